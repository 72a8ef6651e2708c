"""Slow models: their rows are answered together, by threads, and never in each other's place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import Client, make_workflow
from numpy.typing import NDArray

from raywf.outcomes import LogReader
from raywf.serving.app import Endpoint
from raywf.serving.gather import SLOW_S, Gathered, Pace, measure_pace
from raywf.testing import SMALL_ROW, FolderSource

Rows = Sequence[Mapping[str, Any]]


class Slow:
    """A model that answers x by 2x after `batch_s`, and `row_s` more for each row; it counts its rows."""

    def __init__(self, batch_s: float, row_s: float = 0.0) -> None:
        self.batch_s, self.row_s = batch_s, row_s
        self.sizes: list[int] = []

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        self.sizes.append(len(rows))
        time.sleep(self.batch_s + self.row_s * len(rows))
        if any(row["x"] < 0 for row in rows):
            raise ValueError("below zero")
        return np.array([[2.0 * row["x"]] for row in rows])


@pytest.mark.parametrize(
    ("batch_s", "row_s", "slow", "gathers"),
    [(0.0, 0.0, False, False), (0.005, 0.0, True, True), (0.0, 0.003, True, False)],
)
def test_pace_tells_what_pays(batch_s: float, row_s: float, slow: bool, gathers: bool) -> None:
    """Fast models are left alone; slow ones gather where a row among others is cheaper."""
    pace = measure_pace(Slow(batch_s, row_s), [{"x": 1.0}])
    assert (pace.is_slow, pace.gathers) == (slow, gathers)
    assert measure_pace(Slow(1.0), []) == Pace()


def test_each_caller_gets_its_own_answer() -> None:
    """Two hundred callers of one to three rows, in far fewer batches than callers."""
    model = Slow(0.005)
    gathered = Gathered(model, most_rows=32)
    asked = [[{"x": float(i)}] * (1 + i % 3) for i in range(200)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(gathered, asked))
    for rows, scores in zip(asked, found, strict=True):
        assert scores.tolist() == [[2 * row["x"]] for row in rows]
    assert sum(model.sizes) == sum(map(len, asked))
    assert max(model.sizes) <= 32
    assert gathered.batches < 100


def test_a_body_above_a_batch_is_answered_whole() -> None:
    """More rows than a batch may have are one batch."""
    model = Slow(0.0)
    assert len(Gathered(model, most_rows=4)([{"x": 1.0}] * 10)) == 10
    assert model.sizes == [10]


def test_one_caller_s_error_is_its_own() -> None:
    """The others of its batch are answered."""
    gathered = Gathered(Slow(0.01))
    asked = [[{"x": float(-1 if i == 7 else i)}] for i in range(20)]

    def ask(rows: Rows) -> Any:
        try:
            return gathered(rows).tolist()
        except ValueError as err:
            return str(err)

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, asked))
    assert found == ["below zero" if i == 7 else [[2.0 * i]] for i in range(20)]
    assert gathered([{"x": 3.0}]).tolist() == [[6.0]]  # and those who come later


def test_a_model_that_ends_its_thread_leaves_nobody_waiting() -> None:
    """Each caller hears of it, and the next ones are answered."""

    def predict(rows: Rows) -> NDArray[np.float64]:
        time.sleep(0.01)
        if any(row["x"] < 0 for row in rows):
            raise SystemExit(3)
        return np.array([[2.0 * row["x"]] for row in rows])

    gathered = Gathered(predict)

    def ask(x: float) -> Any:
        try:
            return gathered([{"x": x}]).tolist()
        except SystemExit as err:
            return err.code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, [-1.0] * 8))
    assert found == [3] * 8
    assert ask(2.0) == [[4.0]]


class SlowEndpoint:
    """An endpoint whose champion takes so long."""

    def __init__(self, root: Path, source: FolderSource, batch_s: float) -> None:
        self.endpoint = Endpoint(make_workflow(root), source)
        model = self.endpoint._slots.active
        inner, self.sizes = model.predictor.predict_rows, list[int]()

        def predict(rows: Rows) -> NDArray[np.float64]:
            self.sizes.append(len(rows))
            time.sleep(batch_s)
            return inner(rows)

        object.__setattr__(model, "pace", Pace(batch_s, batch_s / 16))
        model.predictor.predict_rows = predict  # type: ignore[method-assign]

    def ask(self, count: int) -> tuple[list[httpx.Response], float]:
        """Send so many rows at once; return the answers, and how long ``/healthz`` took meanwhile."""

        async def all_at_once() -> tuple[list[httpx.Response], float]:
            transport = httpx.ASGITransport(app=Client(self.endpoint)._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                rows = [
                    client.post("/v1/predict", json={"features": {**SMALL_ROW, "distance": i}, "id": f"r{i}"})
                    for i in range(count)
                ]
                asked = asyncio.gather(*rows)
                await asyncio.sleep(0.02)
                start = time.perf_counter()
                await client.get("/healthz")
                took_s = time.perf_counter() - start
                return list(await asked), took_s

        return asyncio.run(all_at_once())


def test_requests_of_a_slow_model_are_gathered(tmp_path: Path, source: FolderSource) -> None:
    """Forty requests at once in a few batches, each with its own row's answer; others do not wait."""
    quick = Client(Endpoint(make_workflow(tmp_path / "quick"), source))
    slow = SlowEndpoint(tmp_path / "slow", source, 0.2)
    answers, health_s = slow.ask(40)
    for i, answer in enumerate(answers):
        again = quick.post("/v1/predict", json={"features": {**SMALL_ROW, "distance": i}, "id": f"r{i}"})
        assert answer.json() == again.json()
    assert len(slow.sizes) < 10
    assert health_s < 0.15
    entries, _ = LogReader(str(tmp_path / "slow"), "w").read()
    assert sorted(e.id for e in entries) == sorted(f"r{i}" for i in range(40))  # type: ignore[union-attr]


def test_a_fast_model_is_answered_in_the_loop(tmp_path: Path, source: FolderSource) -> None:
    """No thread takes part."""
    endpoint = Endpoint(make_workflow(tmp_path / "root"), source)
    assert not endpoint._predicts_slowly(b"{}")
    assert Client(endpoint).post("/v1/predict", json={"features": dict(SMALL_ROW)}).status_code == 200
    assert not endpoint._threads._threads
    assert endpoint._slots.active.pace.alone_s < SLOW_S
