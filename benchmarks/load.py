"""A small HTTP/1.1 load client: keep-alive connections, one process, closed loop, raw asyncio protocols.

``python benchmarks/load.py URL --connections 32 --seconds 20 --out FILE --body '{"features": ...}'`` writes
one JSON line a request, ``[start, seconds, status, id, model version]`` (start: Unix time; status 0: the
connection broke), and prints one JSON object with the totals as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

Sample = tuple[float, float, int, str, str]
TIMEOUT_S = 30.0


@dataclass
class Totals:
    """What a run gave; `samples` in the order of their ends."""

    samples: list[Sample] = field(default_factory=list)
    first_failure: str = ""


class Connection(asyncio.Protocol):
    """One connection; `ask` sends bytes and waits for the whole answer."""

    def __init__(self) -> None:
        self.buffer, self.length, self.head = b"", -1, b""
        self.answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self.transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError(str(exc or "closed by the server")))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.length < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head, self.buffer = self.buffer[:end].lower(), self.buffer[end + 4 :]
            at = self.head.find(b"content-length:")
            self.length = int(self.head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) >= self.length and self.answer is not None and not self.answer.done():
            body, self.buffer = self.buffer[: self.length], self.buffer[self.length :]
            self.length = -1
            self.answer.set_result((int(self.head[9:12]), self.head, body))

    async def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        self.answer = asyncio.get_running_loop().create_future()
        assert self.transport is not None
        self.transport.write(data)
        async with asyncio.timeout(TIMEOUT_S):
            return await self.answer


def _request(host: str, path: str, template: dict[str, object], name: str) -> bytes:
    body = json.dumps({**template, "id": name}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _header(head: bytes, name: bytes) -> str:
    at = head.find(name + b":")
    return "" if at < 0 else head[at + len(name) + 1 :].split(b"\r\n", 1)[0].strip().decode()


class Schedule:
    """When each request is due, for all connections together; without a rate as soon as one is free."""

    def __init__(self, rate: float | None) -> None:
        self._start, self._gap, self._count = time.perf_counter(), 1 / rate if rate else 0.0, 0

    async def next(self) -> float:
        """Wait until a request is due, and return from when it counts: when it was due if that is past."""
        due = self._start + self._count * self._gap
        self._count += 1
        now = time.perf_counter()
        if not self._gap or due > now:
            await asyncio.sleep(max(0.0, due - now))
            return time.perf_counter()
        return due


async def _work(
    number: int, url: str, template: dict[str, object], schedule: Schedule, end: float, totals: Totals
) -> None:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    connection: Connection | None = None
    count, run = 0, f"{os.getpid()}-{number}"
    while time.time() < end:
        count += 1
        name = f"{run}-{count}"
        data = _request(parts.netloc, "/v1/predict", template, name)
        clock = await schedule.next()
        started = time.time() - (time.perf_counter() - clock)
        try:
            if connection is None or connection.closed:
                _, connection = await loop.create_connection(Connection, parts.hostname, parts.port)
            status, head, body = await connection.ask(data)
            version = _header(head, b"x-raywf-model-version")
            if status != 200 and not totals.first_failure:
                totals.first_failure = f"{status} {body[:300]!r}"
            if b"connection: close" in head:
                connection.transport.close()  # type: ignore[union-attr]
                connection = None
        except (OSError, TimeoutError) as err:
            status, version, connection = 0, "", None
            totals.first_failure = totals.first_failure or f"{type(err).__name__}: {err}"
            await asyncio.sleep(0.05)
        totals.samples.append((started, time.perf_counter() - clock, status, name, version))


async def run(
    url: str, template: dict[str, object], *, connections: int, seconds: float, rate: float | None = None
) -> Totals:
    """Send requests over all connections for so many seconds, at most `rate` a second."""
    totals, end, schedule = Totals(), time.time() + seconds, Schedule(rate)
    await asyncio.gather(*(_work(i, url, template, schedule, end, totals) for i in range(connections)))
    return totals


def quantile(values: list[float], share: float) -> float:
    """Return the nearest-rank quantile; nan where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rate", type=float, help="requests a second, each at its own time")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--body", required=True)
    args = parser.parse_args()
    gc.disable()  # samples are many and hold no cycles; a collection would show as a slow answer
    work = run(
        args.url, json.loads(args.body), connections=args.connections, seconds=args.seconds, rate=args.rate
    )
    totals = uvloop.run(work)
    if args.out:
        args.out.write_text("".join(json.dumps(sample) + "\n" for sample in totals.samples))
    times = [sample[1] for sample in totals.samples if sample[2] == 200]
    summary = {
        "requests": len(totals.samples),
        "failed": len(totals.samples) - len(times),
        "rps": round(len(times) / args.seconds, 1),
        "p50_ms": round(quantile(times, 0.5) * 1e3, 3),
        "p99_ms": round(quantile(times, 0.99) * 1e3, 3),
        "first_failure": totals.first_failure,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
