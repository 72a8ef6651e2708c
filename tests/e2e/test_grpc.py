"""Calls over gRPC to real replicas: both of them, on loopback, through a swap, with keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from raywf.core.records import Prediction
from raywf.outcomes import LogReader
from raywf.serving.keys import Caller, KeyBook
from raywf.serving.messages import SERVICE, ModelReply, ModelRequest, PredictReply, PredictRequest

HERE = Path(__file__).resolve().parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
pytestmark = pytest.mark.timeout(200)


class Served:
    """The serving driver with gRPC, and calls to it, each by a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(HERE / "serving_driver.py"), str(folder), "--grpc"]
        errors = open(folder / "driver.err", "wb")  # noqa: SIM115 lives as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=ENV
        )
        self.port = self._read()["grpc"]

    def do(self, verb: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": verb, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def predict(self, one: str, **metadata: str) -> Any:
        request = PredictRequest()
        features = request.rows.add(id=one).features
        features["distance"].number = 1400.0
        features["carrier"].text = "UA"
        features["departure"].time.FromDatetime(datetime(2013, 1, 1, 5, 15, tzinfo=UTC))
        features["delay"].missing.SetInParent()
        return self._call("Predict", request, PredictReply, metadata)

    def model(self) -> Any:
        return self._call("Model", ModelRequest(), ModelReply, {})

    def _call(self, name: str, request: Any, reply: Any, metadata: dict[str, str]) -> Any:
        options = [("grpc.use_local_subchannel_pool", 1)]  # else a channel takes the former one's connection
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            call = channel.unary_unary(f"/{SERVICE}/{name}", None, reply.FromString)
            return call(request.SerializeToString(), metadata=tuple(metadata.items()), timeout=20)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(">>> "):
                return json.loads(line[4:])
        raise AssertionError((self.folder / "driver.err").read_text()[-3000:])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two replicas of version 1."""
    made = Served(tmp_path_factory.mktemp("served"))
    yield made
    made.close()


def test_both_replicas_answer(served: Served) -> None:
    """New connections are shared out; one replica would have all 40 of them once in 10^12 runs."""
    assert len({served.model().replica for _ in range(40)}) == 2


def test_rows_are_logged(served: Served) -> None:
    """Before the answer is out."""
    reply = served.predict("first")
    assert (reply.model_version, reply.predictions[0].id) == ("1", "first")
    entries, _ = LogReader(str(served.folder / "root"), "served").read()
    assert "first" in {entry.id for entry in entries if isinstance(entry, Prediction)}


def test_listens_on_loopback_only(served: Served) -> None:
    """Each replica's listener is bound to the host of the settings."""
    text = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout
    here = [line.split()[3] for line in text.splitlines() if line.split()[3].endswith(f":{served.port}")]
    assert {one.replace("[::ffff:127.0.0.1]", "127.0.0.1") for one in here} == {f"127.0.0.1:{served.port}"}
    assert len(here) == 2


def test_a_swap_reaches_grpc(served: Served) -> None:
    """The next call is answered by the new version, whichever replica has it."""
    assert "error" not in served.do("swap", version="2")
    assert {served.predict(f"swapped-{i}").model_version for i in range(10)} == {"2"}


def test_a_wrong_row_is_refused(served: Served) -> None:
    """With the status that says so."""
    with pytest.raises(grpc.RpcError, match="'rows' must be a list of at least one") as caught:
        served._call("Predict", PredictRequest(), PredictReply, {})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_keys_close_the_port(served: Served) -> None:
    """From the first key on nobody calls without one."""
    book = KeyBook(str(served.folder / "root"), "served")
    key = book.add(Caller(name="shop", scopes=("predict",)), now=datetime.now(UTC))
    deadline = time.monotonic() + 20
    refused = 0
    while refused < 10:  # in a row, so that both replicas have read it
        assert time.monotonic() < deadline, "calls without a key are still taken"
        try:
            served.predict("open")
            refused = 0
        except grpc.RpcError as err:
            assert err.code() is grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017 the loop waits for it
            refused += 1
    assert served.predict("keyed", authorization=f"Bearer {key}").predictions[0].id == "keyed"
