"""How much a replica has to do, and what follows from it."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from conftest import Client

from raywf.core.serving_settings import ServingSettings
from raywf.serving.load import TICK_S, LoadGauge
from raywf.serving.scaling import BUSY, WAIT_S, ScaleByLoad, autoscaling


def test_a_blocked_loop_is_seen_and_forgotten() -> None:
    """The wait is about as long as the loop is blocked again and again, and falls when it is not."""

    async def run() -> tuple[float, float, float]:
        gauge = LoadGauge()
        gauge.start()
        gauge.start()
        await asyncio.sleep(2 * TICK_S)
        time.sleep(0.3)
        await asyncio.sleep(0)
        once = gauge.wait_s
        await asyncio.sleep(4 * TICK_S)
        for _ in range(5):
            await asyncio.sleep(0.001)
            time.sleep(0.3)
        await asyncio.sleep(0.001)
        blocked = gauge.wait_s
        await asyncio.sleep(20 * TICK_S)
        return once, blocked, gauge.wait_s

    once, blocked, later = asyncio.run(run())
    assert once < 0.15  # a stall that is over
    assert 0.1 < blocked < 5
    assert later < blocked / 3


def test_a_wait_for_a_thread_is_a_wait() -> None:
    """It is told for a while."""

    async def run() -> float:
        gauge = LoadGauge()
        gauge.start()
        gauge.waited(2.0)
        await asyncio.sleep(3 * TICK_S)
        return gauge.wait_s

    assert 0.5 < asyncio.run(run()) <= 2.0


def test_only_traffic_is_refused_while_requests_wait(client: Client) -> None:
    """Predictions and outcomes get 503 and Retry-After; health and admin calls are answered."""
    client.endpoint._load.wait_s = 1.5
    refused = client.post("/v1/predict", json={})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "too busy" in refused.json()["error"]
    assert client.post("/v1/outcomes", json={}).status_code == 503
    assert client.request("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("busy", "waits", "wanted"),
    [([0.1, 0.1], [0, 0], 1), ([0.9, 0.9], [0, 0], 3), ([0.1, 0.1], [0, 0.3], 3), ([], [], 1)],
)
def test_replicas_by_load(busy: list[float], waits: list[float], wanted: int) -> None:
    """As many as take 60 % of a processor each, one more where requests wait."""
    metrics = {BUSY: dict(enumerate(busy)), WAIT_S: dict(enumerate(waits))}
    context = SimpleNamespace(aggregated_metrics=metrics, current_num_replicas=2)
    assert ScaleByLoad(0.25)(context) == (wanted, {})


def test_the_number_is_fixed_unless_there_is_a_most() -> None:
    """With `max_replicas` it is between the two."""
    assert autoscaling(ServingSettings()) is None
    scaled = autoscaling(ServingSettings(replicas=1, max_replicas=4))
    assert scaled is not None
    assert (scaled.min_replicas, scaled.max_replicas) == (1, 4)
