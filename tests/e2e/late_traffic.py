"""Invented orders, late or not by a rule that turns over after a month: a table, and traffic to send."""

from __future__ import annotations

import csv
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from command_line import post

START = datetime(2024, 1, 1, tzinfo=UTC)
TURN = START + timedelta(days=30)
STEP = timedelta(minutes=15)
_RETRY_S = 30.0


def orders(*, since: datetime, seed: int) -> Iterator[tuple[datetime, dict[str, Any], str]]:
    """Yield (time, features, label) without end, one each quarter of an hour."""
    draw, at = random.Random(seed), since
    while True:
        weight, lane = round(draw.uniform(0, 100), 2), draw.choice(["north", "south", "west"])
        heavy = weight > 50 if at < TURN else weight < 50
        share = 0.15 + 0.6 * heavy + 0.15 * (lane == "west")
        yield at, {"weight": weight, "lane": lane}, "yes" if draw.random() < share else "no"
        at += STEP


def write_orders(path: Path, *, days: int) -> None:
    """Write the table of the first days; each label is known an hour after its order."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["order", "asked_at", "known_at", "weight", "lane", "late"])
        for i, (at, features, label) in enumerate(orders(since=START, seed=1)):
            if at >= START + timedelta(days=days):
                return
            known = at + timedelta(hours=1)
            writer.writerow([i, at.isoformat(), known.isoformat(), *features.values(), label])


class Traffic(threading.Thread):
    """Sends orders and their outcomes in time order, and keeps what the endpoint has acknowledged.

    A request that finds no connection is sent again with the same id, as a careful client does; `refused`
    holds every answer that was not the expected one, `slowest_s` the longest that one took with its retries.
    """

    def __init__(self, url: str) -> None:
        super().__init__(name="traffic", daemon=True)
        self.url = url
        self.predicted: list[str] = []
        self.labelled: dict[str, str] = {}
        self.refused: list[Any] = []
        self.retried = 0
        self.slowest_s = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        for i, (at, features, label) in enumerate(orders(since=TURN, seed=2)):
            if self._ended.wait(0.01):
                return
            one, now = f"order-{i:06}", at.isoformat()
            if self._send("predict", {"id": one, "time": now, "features": features}, 200):
                self.predicted.append(one)
            known = (at + timedelta(hours=1)).isoformat()
            if self._send("outcomes", {"id": one, "time": known, "label": label}, 202):
                self.labelled[one] = label

    def end(self) -> None:
        """Stop after the present order."""
        self._ended.set()
        self.join(timeout=2 * _RETRY_S)

    def _send(self, path: str, body: dict[str, Any], expected: int) -> bool:
        start = time.monotonic()
        while True:
            try:
                status, answer = post(f"{self.url}/v1/{path}", body)
            except OSError as err:
                self.retried += 1
                status, answer = 0, str(err)
            spent_s = time.monotonic() - start
            self.slowest_s = max(self.slowest_s, spent_s)
            if status == expected:
                return True
            if status or spent_s > _RETRY_S:
                self.refused.append((status, answer, body))
                return False
