"""Calls over gRPC to an endpoint in this process: the same answers, log and refusals as over HTTP."""

from __future__ import annotations

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from conftest import Client, make_workflow

from raywf.core.errors import ServingError
from raywf.core.records import Outcome, Prediction
from raywf.core.serving_settings import ServingSettings
from raywf.outcomes import LogReader
from raywf.serving.app import Endpoint
from raywf.serving.environment import free_ports
from raywf.serving.keys import Caller, KeyBook
from raywf.serving.messages import (
    SERVICE,
    ModelReply,
    ModelRequest,
    OutcomesReply,
    OutcomesRequest,
    PredictReply,
    PredictRequest,
)
from raywf.serving.rpc import REFUSAL, RpcServer
from raywf.testing import FolderSource

REPLIES = {"Predict": PredictReply, "Outcomes": OutcomesReply, "Model": ModelReply}


class Asking:
    """Calls the gRPC server of an endpoint that is made with the first call; a refusal is returned."""

    def __init__(self, root: Path, source: FolderSource) -> None:
        self.root, self.source, (self.port,) = root, source, free_ports(1)
        self.flow = make_workflow(root, max_rows=3, max_body_bytes=20_000, grpc_port=self.port)
        self.endpoint: Endpoint | None = None

    def __call__(self, name: str, request: Any, **metadata: str) -> Any:
        self.endpoint = self.endpoint or Endpoint(self.flow, self.source)
        return asyncio.run(self._talk(self.endpoint, name, request, tuple(metadata.items())))

    async def _talk(
        self, endpoint: Endpoint, name: str, request: Any, metadata: tuple[tuple[str, str], ...]
    ) -> Any:
        server = RpcServer(endpoint.answer, self.flow.serving)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            method = channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=REPLIES[name].FromString,
            )
            try:
                return await method(request, metadata=metadata, timeout=20)
            except grpc.aio.AioRpcError as err:
                return err
            finally:
                await server.stop()

    def logged(self) -> list[Any]:
        return list(LogReader(str(self.root), "w").read()[0])


@pytest.fixture
def ask(tmp_path: Path, source: FolderSource) -> Asking:
    return Asking(tmp_path / "rpc", source)


def request_of(rows: int = 1, **changes: Any) -> Any:
    """Return rows of the model's columns."""
    request = PredictRequest()
    for i in range(rows):
        features = request.rows.add(id=f"r{i}").features
        given = {"distance": {"number": 1400.0}, "carrier": {"text": "UA"}, "delay": {"missing": {}}}
        for name, value in {**given, "departure": {"text": "2013-01-01T05:15:00Z"}, **changes}.items():
            features[name].CopyFrom(type(features[name])(**value))
    return request


def test_rows_are_answered_as_over_http(ask: Asking, client: Client) -> None:
    """The same probabilities, and each row in the log."""
    reply = ask("Predict", request_of(2))
    row = {"distance": 1400, "carrier": "UA", "delay": None, "departure": "2013-01-01T05:15:00Z"}
    (same,) = client.post("/v1/predict", json={"features": row}).json()["predictions"]
    assert reply.model_version == "1"
    assert [dict(p.probabilities) for p in reply.predictions] == [same["probabilities"]] * 2
    assert [p.prediction for p in reply.predictions] == [same["prediction"]] * 2
    assert [e.id for e in ask.logged() if isinstance(e, Prediction)] == ["r0", "r1"]


def test_outcomes_are_taken(ask: Asking) -> None:
    """Into the log."""
    request = OutcomesRequest()
    request.outcomes.add(id="r0", label={"text": "late"}, value=2.0)
    assert ask("Outcomes", request).accepted == 1
    (entry,) = ask.logged()
    assert isinstance(entry, Outcome)
    assert (entry.id, entry.label, entry.value) == ("r0", "late", 2.0)


def test_the_model_is_described(ask: Asking) -> None:
    """With its columns and classes."""
    reply = ask("Model", ModelRequest())
    assert (reply.version, reply.task, list(reply.classes)) == ("1", "binary", ["no", "late"])
    assert [c.name for c in reply.columns] == ["distance", "carrier", "departure", "delay"]


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (
            request_of(distance={"text": "far"}),
            "INVALID_ARGUMENT",
            "row 0, field 'distance'",
        ),
        (request_of(tail={"text": "x"}), "INVALID_ARGUMENT", "field 'tail': unknown field"),
        (request_of(0), "INVALID_ARGUMENT", "at least one"),
        (request_of(4), "RESOURCE_EXHAUSTED", "at most 3"),
        (request_of(carrier={"text": "x" * 30_000}), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_what_does_not_fit_is_refused(ask: Asking, request_: Any, code: str, reason: str) -> None:
    """With the status of its kind and HTTP's reason; nothing is logged."""
    refused = ask("Predict", request_)
    assert (refused.code().name, reason in refused.details()) == (code, True), refused.details()
    assert ask.logged() == []


def test_a_refusal_has_its_problems(ask: Asking) -> None:
    """As the JSON that HTTP answers with, in the trailing metadata."""
    refused = ask("Predict", request_of(2, distance={"text": "far"}))
    body = orjson.loads(dict(refused.trailing_metadata())[REFUSAL])
    assert body["refused_rows"] == 2
    assert [p["row"] for p in body["problems"]] == [0, 1]


def test_keys_are_needed_as_over_http(ask: Asking) -> None:
    """None or a wrong one, one for something else, one that is used too often, and the right one."""
    book, now = KeyBook(str(ask.root), "w"), datetime.now(UTC)
    shop = book.add(Caller(name="shop", scopes=("predict",)), now=now)
    other = book.add(Caller(name="labels", scopes=("outcomes",)), now=now)
    slow = book.add(Caller(name="slow", scopes=("predict",), rate=0.001), now=now)

    def code(key: str | None) -> str:
        given = {} if key is None else {"authorization": f"Bearer {key}"}
        found = ask("Predict", request_of(), **given)
        return found.code().name if isinstance(found, grpc.aio.AioRpcError) else "OK"

    assert [code(key) for key in (None, "rwf_x", other)] == ["UNAUTHENTICATED"] * 2 + ["PERMISSION_DENIED"]
    assert [code(slow), code(slow)] == ["OK", "RESOURCE_EXHAUSTED"]
    assert code(shop) == "OK"


def test_a_log_that_cannot_be_written(ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller is told to call again."""

    def fail(records: Any) -> None:
        raise OSError(28, "No space left on device")

    assert ask("Predict", request_of()).model_version == "1"
    monkeypatch.setattr(ask.endpoint._log, "append", fail)  # type: ignore[union-attr]
    refused = ask("Predict", request_of())
    assert (refused.code().name, "nothing was taken" in refused.details()) == ("UNAVAILABLE", True)


def test_another_s_port_is_refused(ask: Asking) -> None:
    """A server that does not share its port has it alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        flow = make_workflow(ask.root, grpc_port=taken.getsockname()[1])

        async def start() -> None:
            RpcServer(Endpoint(flow, ask.source).answer, flow.serving)

        with pytest.raises(ServingError, match=r"grpc_port .* cannot be listened on"):
            asyncio.run(start())


@pytest.mark.parametrize("port", [0, 8000, 70_000])
def test_a_port_has_to_be_one_of_its_own(port: int) -> None:
    """Not HTTP's."""
    with pytest.raises(ValueError, match="grpc_port"):
        ServingSettings(port=8000, grpc_port=port)
