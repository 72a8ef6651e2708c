"""Sends the year through real HTTP in time order: each flight's question, its label when it has landed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import numpy as np
import orjson
import pyarrow as pa

from raywf.core.clock import format_time

CONNECTIONS = 12
STEP = timedelta(hours=6)
_RETRY_S = 30.0
_BROKEN = {0, 502, 503, 504}  # no answer, or a proxy's word that whoever had the request is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """One question: its body as sent, and the label with the instant at which it became known."""

    id: str
    time: datetime
    body: bytes
    label: str | None
    known: datetime | None


@dataclass(slots=True)
class Tally:
    """What was sent and answered. `latency` holds (wall instant, seconds) of each prediction request.

    `retried` counts the requests that were sent again because a connection broke, `failed` those that were
    refused or had no answer in the end; `outcomes` counts the labels that were acknowledged.
    """

    requests: int = 0
    failed: int = 0
    retried: int = 0
    outcomes: int = 0
    reasons: list[str] = field(default_factory=list)
    latency: list[tuple[float, float]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def make_flights(table: pa.Table, columns: Sequence[str]) -> list[Flight]:
    """Turn joined rows into questions in the order of their event time."""
    labels = table.column("__label").to_pylist()
    known = table.column("__label_time").to_pylist()
    times = table.column("__time").to_pylist()
    ids = [f"k{key}" for key in table.column("__key").to_pylist()]
    out = []
    for i, row in enumerate(table.select(list(columns)).to_pylist()):
        features = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}
        when = times[i].astimezone(UTC)
        body = orjson.dumps({"features": features, "id": ids[i], "time": format_time(when)})
        ended = known[i].astimezone(UTC) if known[i] is not None else None
        out.append(Flight(id=ids[i], time=when, body=body, label=labels[i], known=ended))
    return sorted(out, key=lambda f: f.time)


class Replay:
    """Walks through the flights; `step` sends one span of event time and returns when all is answered."""

    def __init__(self, url: str, flights: Sequence[Flight]) -> None:
        self.tally = Tally()
        self._flights = flights
        self._next = 0
        self._landing: list[Flight] = []
        self._client = aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=30),
            headers={"content-type": "application/json"},
        )

    @property
    def spans(self) -> Iterator[datetime]:
        """The ends of the steps of event time, from the first flight to the last."""
        end = self._flights[0].time
        while end < self._flights[-1].time + STEP:
            end += STEP
            yield end

    async def step(self, until: datetime) -> None:
        """Ask about every flight before `until`, then tell which have landed by then."""
        due: list[Flight] = []
        while self._next < len(self._flights) and self._flights[self._next].time < until:
            due.append(self._flights[self._next])
            self._next += 1
        await self._ask_all(due)
        self._landing += [f for f in due if f.known is not None]
        landed = [f for f in self._landing if f.known is not None and f.known <= until]
        self._landing = [f for f in self._landing if f.known is not None and f.known > until]
        if landed:
            await self._tell(landed)

    async def refresh(self, seconds: float) -> None:
        """Ask about the latest flights again, by the same ids, as a board that refreshes; takes `seconds`."""
        latest = self._flights[max(0, self._next - 24) : self._next]
        start = time.monotonic()
        for flight in latest:
            if time.monotonic() - start > seconds:
                break
            await self._ask(flight, repeated=True)
            await asyncio.sleep(max(0.0, seconds / len(latest) - 0.004))
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - start)))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask_all(self, due: Sequence[Flight]) -> None:
        queue = iter(due)

        async def work() -> None:
            for flight in queue:
                await self._ask(flight)

        await asyncio.gather(*(work() for _ in range(CONNECTIONS)))

    async def _ask(self, flight: Flight, *, repeated: bool = False) -> None:
        start = time.perf_counter()
        answer = await self._post("/v1/predict", flight.body)
        if answer is None:
            return
        self.tally.latency.append((time.time(), time.perf_counter() - start))
        if not repeated:
            found = answer["predictions"][0]
            self.tally.scores[flight.id] = found["probabilities"]["true"]
            self.tally.versions[flight.id] = answer["model_version"]

    async def _tell(self, landed: Sequence[Flight]) -> None:
        outcomes = [{"id": f.id, "label": f.label, "time": format_time(f.known)} for f in landed if f.known]
        if await self._post("/v1/outcomes", orjson.dumps({"outcomes": outcomes})) is not None:
            self.tally.outcomes += len(outcomes)

    async def _post(self, path: str, body: bytes) -> Any:
        """Send a request, again while the connection breaks (its ids make that safe); None if it failed."""
        self.tally.requests += 1
        deadline = time.monotonic() + _RETRY_S
        while True:
            try:
                status, content = await self._send(path, body)
            except (aiohttp.ClientError, TimeoutError) as err:
                status, content = 0, f"{type(err).__name__}: {err}".encode()
            if 200 <= status < 300:
                return orjson.loads(content)
            if status not in _BROKEN or time.monotonic() > deadline:
                self.tally.failed += 1
                self.tally.reasons.append(f"{path}: {status} {content[:200].decode(errors='replace')}")
                return None
            self.tally.retried += 1
            await asyncio.sleep(0.05)

    async def _send(self, path: str, body: bytes) -> tuple[int, bytes]:
        async with self._client.post(path, data=body) as response:
            return response.status, await response.read()
