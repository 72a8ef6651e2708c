"""What an endpoint's replica counts for Prometheus: kept in this process, told to Ray's metrics now and then.

The hot path adds to plain numbers; a thread tells them every few seconds, since a call of Ray's metrics costs
about as much as a prediction. On each node Ray serves them as ``ray_raywf_...`` at its metrics port.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from ray.util import metrics

EVERY_S = 2.0
_logger = logging.getLogger(__name__)
_MOST_TIMES = 20_000

Facts = Mapping[str, float]


class Sink(Protocol):
    """Takes figures by name and tags."""

    def count(self, name: str, more: float, tags: Mapping[str, str]) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        ...


class Meter:
    """Counts requests by route and status, rows by version, and times of predict requests.

    `request` and `rows` are for the event loop and its threads; `tell` is for one thread.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._told: Counter[tuple[str, str, str]] = Counter()
        self._times: list[float] = []
        self._lock = threading.Lock()  # rows are counted by worker threads too

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one request to a route, with how long its answer took."""
        self._counts["requests", route, str(status)] += 1
        if route == "/v1/predict" and len(self._times) < _MOST_TIMES:
            self._times.append(seconds)

    def rows(self, version: str, count: int) -> None:
        """Count rows that a version answered."""
        with self._lock:
            self._counts["rows", version, ""] += count

    def tell(self, sink: Sink, facts: Facts) -> None:
        """Tell what was added since the last time, the times' quantiles, and further facts as gauges."""
        with self._lock:
            counts = Counter(self._counts)
        times, self._times = self._times, []
        for key, more in (counts - self._told).items():
            name, first, second = key
            tags = {"route": first, "status": second} if name == "requests" else {"version": first}
            sink.count(f"raywf_{name}", more, tags)
            self._told[key] = counts[key]
        for share in (0.5, 0.99):
            taken = float(np.quantile(times, share)) if times else 0.0
            sink.gauge("raywf_predict_seconds", taken, {"quantile": f"{share:g}"})
        for fact, value in facts.items():
            sink.gauge(f"raywf_{fact}", value, {})


class RaySink:
    """Ray's metrics, each figure with the tags of its replica."""

    def __init__(self, workflow: str, replica: str) -> None:
        self._own = {"workflow": workflow, "replica": replica}
        self._known: dict[str, metrics.Counter | metrics.Gauge] = {}

    def count(self, name: str, more: float, tags: Mapping[str, str]) -> None:
        """Add to a counter."""
        made = self._known.get(name)
        if made is None:
            made = self._known[name] = metrics.Counter(name, tag_keys=(*self._own, *tags))
        made.inc(more, tags={**self._own, **tags})

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        made = self._known.get(name)
        if made is None:
            made = self._known[name] = metrics.Gauge(name, tag_keys=(*self._own, *tags))
        made.set(value, tags={**self._own, **tags})


def keep_telling(meter: Meter, sink: Sink, facts: Callable[[], Facts], stop: threading.Event) -> None:
    """Tell again and again until `stop` is set; meant for a daemon thread."""
    while not stop.wait(EVERY_S):
        try:
            meter.tell(sink, facts())
        except Exception:  # figures that cannot be told must not end the replica
            _logger.exception("the metrics could not be told")
