"""The client against the endpoint on a real socket: answers, refusals, and calls that are made again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import uvicorn
from conftest import make_workflow
from starlette.requests import Request
from starlette.responses import Response

from raywf.client import AsyncClient, CallError, Client
from raywf.core.records import Outcome, Prediction
from raywf.outcomes import LogReader
from raywf.serving.app import Endpoint
from raywf.serving.environment import free_ports
from raywf.serving.keys import Caller, KeyBook
from raywf.testing import SMALL_ROW, FolderSource, small_bundle

ROW = dict(SMALL_ROW)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Site:
    """An endpoint behind uvicorn; `before` may answer in its stead."""

    def __init__(self, folder: Path) -> None:
        source = FolderSource(str(folder / "registry"))
        source.add(small_bundle(folder / "bundle", rounds=5), version="1")
        source.move("champion", "1")
        self.root = str(folder / "root")
        self.key = KeyBook(self.root, "w").add(Caller(name="a", scopes=("predict", "outcomes")), now=NOW)
        self.endpoint = Endpoint(make_workflow(folder / "root"), source)
        self.before: Callable[[], Response | None] = lambda: None
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.server = uvicorn.Server(
            uvicorn.Config(self._app, interface="asgi3", port=port, log_level="error", lifespan="off")
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        answer = self.before() or await self.endpoint(Request(scope, receive))
        await answer(scope, receive, send)

    def log(self) -> tuple[Any, ...]:
        return LogReader(self.root, "w").read()[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests; each looks at its own ids."""
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.server.should_exit = True
    made.thread.join(10)


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    """A client with a key."""
    site.before = lambda: None
    with Client(site.url, key=site.key) as made:
        yield made


def test_one_row_and_its_outcome(site: Site, client: Client) -> None:
    """The log has the row under its id with its time, and what became of it."""
    answer = client.predict(ROW, prediction_id="one", time=NOW)
    assert (answer.id, answer.model_version, set(answer.probabilities)) == ("one", "1", {"late", "no"})
    assert answer.prediction == max(answer.probabilities, key=lambda name: answer.probabilities[name])
    client.report("one", "late", value=2.5)
    found = [e for e in site.log() if e.id == "one"]
    assert isinstance(found[0], Prediction)
    assert found[0].time == NOW
    assert isinstance(found[1], Outcome)
    assert (found[1].label, found[1].value) == ("late", 2.5)
    assert client.model()["version"] == "1"


def test_many_rows(site: Site) -> None:
    """In batches, in order, by rows and by table alike, plain and async."""
    rows = [ROW | {"distance": 100.0 + i} for i in range(25)]
    ids = [f"many-{i}" for i in range(25)]
    table = pa.Table.from_pylist(rows)
    with Client(site.url, key=site.key, batch=10) as client:
        found = client.predict_many(rows, ids=ids)
        by_table = client.predict_table(table)
    assert [answer.id for answer in found] == ids
    shares = [answer.probabilities["late"] for answer in found]
    assert by_table["probability_late"].to_pylist() == pytest.approx(shares)

    async def again() -> tuple[list[Any], pa.Table]:
        async with AsyncClient(site.url, key=site.key, batch=10) as client:
            await client.report("many-0", "no")
            assert (await client.model())["version"] == "1"
            return (
                await client.predict_many(rows),
                await client.predict_table(table),
                await client.predict(ROW),
            )

    many, tabled, _ = asyncio.run(again())
    assert [answer.probabilities["late"] for answer in many] == shares
    assert tabled["probability_late"].to_pylist() == pytest.approx(shares)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_call_is_made_again(site: Site, client: Client, status: int) -> None:
    """Twice refused and then answered: one prediction of one id."""
    left = [status, status]
    site.before = lambda: Response(b"busy", left.pop()) if left else None
    answer = client.predict(ROW)
    assert [e.id for e in site.log()].count(answer.id) == 1


def test_a_stated_pause_is_kept(site: Site, client: Client) -> None:
    """Retry-After says how long."""
    left = [429]
    site.before = lambda: Response(b"", left.pop(), headers={"retry-after": "1"}) if left else None
    start = time.monotonic()
    client.predict(ROW)
    assert time.monotonic() - start > 0.9


@pytest.mark.parametrize(
    ("features", "status", "reason"),
    [({"distance": 1}, 422, "missing"), (ROW | {"distance": "far"}, 422, "must be a number")],
)
def test_refusals(client: Client, features: dict[str, Any], status: int, reason: str) -> None:
    """At once, with status, reason and problems."""
    with pytest.raises(CallError, match=reason) as caught:
        client.predict(features)
    assert (caught.value.status, caught.value.problems[0]["row"]) == (status, 0)


def test_without_a_key(site: Site) -> None:
    """Refused, and the key's text is in no message."""
    site.before = lambda: None
    with Client(site.url, key="rwf_wrong") as client, pytest.raises(CallError, match="401") as caught:
        client.predict(ROW)
    assert "rwf_wrong" not in repr(caught.value)


def test_nobody_there() -> None:
    """After the last attempt one error says so."""
    with Client("http://127.0.0.1:9", retries=1) as client, pytest.raises(CallError, match="no answer"):
        client.predict(ROW)
