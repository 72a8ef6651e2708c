"""The monitor's fold and its restart: ``python benchmarks/fold.py [--events 10000000] [--folder F]``.

Writes a log of predictions (8 numbers, 2 categories) and their labels, which come one to thirty days later,
over 150 days of event time, so that no row is beyond the horizon. Then, each in a process of its own: reads
it from its first line to the evidence of every window, writing a checkpoint 16 MB before its end; and starts
from that checkpoint, with the files in the system's cache and without. Exits 0 only if all tell the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import orjson

from raywf.core.ids import digest_bytes
from raywf.core.metrics import METRICS
from raywf.core.records import ColumnProfile
from raywf.core.settings import MonitorSettings
from raywf.monitor.checkpoint import Checkpoints
from raywf.monitor.fold import Fold
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.column_reader import ColumnReader
from raywf.outcomes.lines import log_folder

NAME, METRIC = "bench", METRICS["roc_auc"]
NUMBERS, CATEGORIES, DAYS, BLOCK = 8, 2, 150, 50_000
VALUES = ("north", "south", "east", "west", "none of these")
START, FOREVER = datetime(2026, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
SEGMENT_BYTES = 64_000_000
EDGES = tuple(np.linspace(-1.5, 1.5, 9).tolist())
PROFILE = (
    *(
        ColumnProfile(name=f"number_{i}", kind="number", edges=EDGES, counts=(9,) * 10)
        for i in range(NUMBERS)
    ),
    *(
        ColumnProfile(name=f"category_{i}", kind="category", values=VALUES[:4], counts=(9,) * 4 + (0,))
        for i in range(CATEGORIES)
    ),
)
REFERENCES = KnownReferences(
    {"1": Reference(version="1", task="binary", classes=("no", "yes"), profile=PROFILE)}
)


def write_log(folder: Path, events: int) -> int:
    """Write the log in the order of its times and return its bytes."""
    folder.mkdir(parents=True)
    rows, total = events // 2, 0
    rng = np.random.default_rng(0)
    step = timedelta(days=DAYS) / max(rows, 1)
    waiting: list[tuple[datetime, bytes]] = []
    segment: BinaryIO | None = None
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        answers, labels = block_of(rng, [START + (first + i) * step for i in range(count)])
        end = START + (first + count) * step if first + count < rows else FOREVER
        lines = answers + [one for one in waiting + labels if one[0] < end]
        waiting = [one for one in waiting + labels if one[0] >= end]
        if segment is None or segment.tell() >= SEGMENT_BYTES:
            if segment is not None:
                segment.close()
            name = f"{START + first * step:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}.jsonl"
            segment = open(folder / name, "wb")  # noqa: SIM115 it is filled by several turns
        total += segment.write(b"".join(line for _, line in sorted(lines)))
    if segment is not None:
        segment.close()
    return total


def block_of(
    rng: np.random.Generator, times: list[datetime]
) -> tuple[list[tuple[datetime, bytes]], list[tuple[datetime, bytes]]]:
    """Return lines of predictions at some times and of their labels, each with its time."""
    count = len(times)
    numbers = rng.normal(size=(count, NUMBERS)).tolist()
    places = rng.integers(0, len(VALUES), (count, CATEGORIES)).tolist()
    scores, delays = rng.random(count).round(6).tolist(), (1 + 29 * rng.random(count)).tolist()
    positive = (rng.random(count) < 0.4).tolist()
    answers, labels = [], []
    for i, at in enumerate(times):
        one, late = uuid.UUID(bytes=rng.bytes(16)).hex, at + timedelta(days=delays[i])
        features: dict[str, Any] = {f"number_{j}": value for j, value in enumerate(numbers[i])}
        features |= {f"category_{j}": VALUES[place] for j, place in enumerate(places[i])}
        answers.append((at, line({"id": one, "t": at, "v": "1", "f": features, "s": [scores[i]]})))
        labels.append((late, line({"id": one, "t": late, "l": "yes" if positive[i] else "no"})))
    return answers, labels


def line(data: dict[str, Any]) -> bytes:
    return orjson.dumps(data, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def fold_log(root: str, tail: int) -> dict[str, Any]:
    """Fold the log from its start, with a checkpoint before the last events, and sum all evidence up."""
    reader, checkpoints = ColumnReader(root, NAME), checkpoints_of(root)
    fold = Fold(MonitorSettings(), REFERENCES, metric=METRIC)
    cursor: dict[str, int] = {}
    events, fold_s, save_s = 0, 0.0, 0.0
    ends = reader.unread_bytes({})
    began, began_cpu = time.perf_counter(), time.process_time()
    is_saved = False
    for columns, after in reader.columns({}, max_bytes=ends):
        start = time.process_time()
        fold.take(columns)
        fold_s += time.process_time() - start
        events, cursor = events + columns.events, after
        if not is_saved and reader.unread_bytes(cursor) <= tail:
            fold.update(())
            wall, start, is_saved = time.perf_counter(), time.process_time(), True
            fold.evidence("1")  # as the monitor does
            checkpoints.save(fold.state, cursor, {})
            save_wall_s, save_s = time.perf_counter() - wall, time.process_time() - start
    start = time.process_time()
    fold.update(())
    evidence = fold.evidence("1")
    fold_s += time.process_time() - start
    cpu_s, wall_s = time.process_time() - began_cpu - save_s, time.perf_counter() - began - save_wall_s
    return {
        "events": events,
        "events_per_s": round(events / cpu_s),
        "events_per_wall_s": round(events / wall_s),
        "fold_only_events_per_s": round(events / fold_s),
        "checkpoint_s": round(save_s, 2),
        "checkpoint_mib": round(sum(p.stat().st_size for p in checkpoints.folder.iterdir()) / 2**20, 1),
        "windows": len(evidence),
        "peak_gib": peak_gib(),
        "told": told(fold),
    }


def restart(root: str) -> dict[str, Any]:
    """Take the checkpoint up, read what came after it and sum all evidence up."""
    began, began_cpu = time.perf_counter(), time.process_time()
    reader, found = ColumnReader(root, NAME), checkpoints_of(root).load(REFERENCES)
    assert found is not None
    load_s, tail = time.process_time() - began_cpu, 0
    fold = Fold(MonitorSettings(), REFERENCES, metric=METRIC, state=found.state)
    for columns, _ in reader.columns(found.cursor, max_bytes=reader.unread_bytes({})):
        fold.take(columns)
        tail += columns.events
    fold.update(())
    fold.evidence("1")
    cpu_s, wall_s = time.process_time() - began_cpu, time.perf_counter() - began
    return {
        "load_cpu_s": round(load_s, 2),
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(wall_s, 2),
        "tail_events": tail,
        "peak_gib": peak_gib(),
        "told": told(fold),
    }


def told(fold: Fold) -> str:
    """Return a digest of all that can be asked."""
    return digest_bytes(repr((fold.evidence("1"), fold.counts(), fold.watermark)).encode())


def checkpoints_of(root: str) -> Checkpoints:
    return Checkpoints(log_folder(root, NAME), MonitorSettings(), metric=METRIC)


def peak_gib() -> float:
    """Return the most memory that this process has had; what it was forked from does not count."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return round(int(line.split()[1]) / 2**20, 2)


def in_process(*arguments: str) -> tuple[dict[str, Any], float]:
    """Run this file with arguments; return what it printed, and the CPU-seconds of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = json.loads(out)
    print(arguments[0], found, f"{used:.1f} CPU-seconds", file=sys.stderr)
    return found, used


def forget(folder: Path) -> None:
    """Have the system drop files from its cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--tail-bytes", type=int, default=16_000_000, help="of the log, after the checkpoint")
    parser.add_argument("--folder", type=Path, help="keep the log here and use one that is there")
    parser.add_argument("--fold", help=argparse.SUPPRESS)
    parser.add_argument("--restart", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fold or options.restart:
        one = fold_log(options.fold, options.tail_bytes) if options.fold else restart(options.restart)
        print(json.dumps(one))
        return 0
    root = options.folder or Path(tempfile.mkdtemp(prefix="rwf-bench-"))
    try:
        log = log_folder(str(root), NAME)
        if not log.exists():
            print(f"a log of {write_log(log, options.events) / 2**30:.2f} GiB", file=sys.stderr)
        shutil.rmtree(log / "fold", ignore_errors=True)
        whole, _ = in_process("--fold", str(root), "--tail-bytes", str(options.tail_bytes))
        warm, _ = in_process("--restart", str(root))
        forget(log)
        began = time.perf_counter()
        cold, _ = in_process("--restart", str(root))
        cold_s = time.perf_counter() - began
    finally:
        if options.folder is None:
            shutil.rmtree(root)
    is_same = {whole.pop("told")} == {warm["told"], cold["told"]}
    whole |= {
        "restart_s": warm["wall_s"],
        "restart_cpu_s": warm["cpu_s"],
        "restart_load_cpu_s": warm["load_cpu_s"],
        "restart_tail_events": warm["tail_events"],
        "restart_cold_s": round(cold_s, 2),
        "restart_peak_gib": warm["peak_gib"],
        "is_same": is_same,
    }
    print(json.dumps(whole))
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
