"""What a replica counts, and that each figure is told once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from raywf.serving.meter import Meter
from raywf.testing import SMALL_ROW


class Kept:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self.gauges: dict[tuple[str, ...], float] = {}

    def count(self, name: str, more: float, tags: Mapping[str, str]) -> None:
        self.counts[name, *tags.values()] += more

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self.gauges[name, *tags.values()] = value


def test_each_is_told_once() -> None:
    """Counters by what came since, quantiles of the times since."""
    meter, kept = Meter(), Kept()
    for i in range(100):
        meter.request("/v1/predict", 200 if i % 10 else 422, i / 1000)
    meter.rows("3", 90)
    for _ in range(2):
        meter.tell(kept, {"version_served": 3.0})
    assert kept.counts == {
        ("raywf_requests", "/v1/predict", "200"): 90,
        ("raywf_requests", "/v1/predict", "422"): 10,
        ("raywf_rows", "3"): 90,
    }
    assert kept.gauges["raywf_version_served",] == 3.0
    assert kept.gauges["raywf_predict_seconds", "0.5"] == 0.0
    meter.request("/v1/predict", 200, 0.25)
    meter.tell(kept, {})
    assert kept.gauges["raywf_predict_seconds", "0.99"] == 0.25


def test_the_endpoint_counts(client: Any) -> None:
    """Every request by its route and status, every row by its version; unknown paths are one route."""
    for _ in range(3):
        client.post("/v1/predict", json={"features": dict(SMALL_ROW)})
    client.post("/v1/predict", json={"rows": [{"features": dict(SMALL_ROW)}] * 5})
    client.post("/v1/predict", json={"columns": {k: [v] * 7 for k, v in SMALL_ROW.items()}})
    client.post("/v1/predict", content=b"{")
    client.get("/healthz")
    client.get("/x")
    client.get("/y")
    kept = Kept()
    client.endpoint._meter.tell(kept, client.endpoint._facts())
    assert kept.counts == {
        ("raywf_requests", "/v1/predict", "200"): 5,
        ("raywf_requests", "/v1/predict", "400"): 1,
        ("raywf_requests", "/healthz", "200"): 1,
        ("raywf_requests", "other", "404"): 2,
        ("raywf_rows", "1"): 15,
    }
    assert kept.gauges["raywf_version_served",] == 1.0
