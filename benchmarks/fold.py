"""The monitor's fold and its restart: ``python benchmarks/fold.py [--events 10000000] [--folder F]``.

Writes a log of predictions (8 numbers, 2 categories) and their labels, which come one to thirty days later,
over 150 days of event time, so that no row is beyond the horizon. Then, each in a process of its own: what it
takes to read the log from its first line to the evidence of every window, with a checkpoint every so often as
the monitor makes it; what the fold alone takes of lines that are parsed; and how long a monitor takes that
starts from the last checkpoint and reads what came after. Speeds are by CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import orjson

from raywf.core.records import ColumnProfile
from raywf.core.settings import MonitorSettings
from raywf.monitor.fold import Fold
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.columns import parse_columns
from raywf.outcomes.lines import log_folder

NUMBERS, CATEGORIES, DAYS, BLOCK, BLOCK_BYTES = 8, 2, 150, 50_000, 4_000_000
VALUES = ("north", "south", "east", "west", "none of these")
START = datetime(2026, 1, 1, tzinfo=UTC)
SEGMENT_BYTES = 64_000_000


def reference() -> Reference:
    edges = tuple(np.linspace(-1.5, 1.5, 9).tolist())
    profile = [
        ColumnProfile(name=f"number_{i}", kind="number", edges=edges, counts=(100,) * 10)
        for i in range(NUMBERS)
    ]
    profile += [
        ColumnProfile(name=f"category_{i}", kind="category", values=VALUES[:4], counts=(100,) * 4 + (0,))
        for i in range(CATEGORIES)
    ]
    return Reference(version="1", task="binary", classes=("no", "yes"), profile=tuple(profile))


def settings() -> MonitorSettings:
    return MonitorSettings()


def write_log(folder: Path, events: int) -> int:
    """Write the log in the order of its times and return its bytes."""
    folder.mkdir(parents=True)
    rows = events // 2
    rng = np.random.default_rng(0)
    step = timedelta(days=DAYS) / max(rows, 1)
    waiting: list[tuple[datetime, bytes]] = []
    size = total = 0
    file = None
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        lines: list[tuple[datetime, bytes]] = []
        numbers = rng.normal(size=(count, NUMBERS)).tolist()
        places = rng.integers(0, len(VALUES), (count, CATEGORIES)).tolist()
        scores, delays = rng.random(count).round(6).tolist(), (1 + 29 * rng.random(count)).tolist()
        labels = (rng.random(count) < 0.4).tolist()
        for i in range(count):
            at, one = START + (first + i) * step, uuid.UUID(bytes=rng.bytes(16)).hex
            features: dict[str, Any] = {f"number_{j}": value for j, value in enumerate(numbers[i])}
            features |= {f"category_{j}": VALUES[place] for j, place in enumerate(places[i])}
            said = {"id": one, "t": at, "v": "1", "f": features, "s": [scores[i]]}
            late = at + timedelta(days=delays[i])
            known = {"id": one, "t": late, "l": "yes" if labels[i] else "no"}
            lines.append((at, orjson.dumps(said, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)))
            waiting.append((late, orjson.dumps(known, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)))
        end = START + (first + count) * step
        if first + count >= rows:
            end = datetime.max.replace(tzinfo=UTC)
        lines += [one for one in waiting if one[0] < end]
        waiting = [one for one in waiting if one[0] >= end]
        data = b"".join(line for _, line in sorted(lines))
        if file is None or size >= SEGMENT_BYTES:
            if file is not None:
                file.close()
            name = f"{START + first * step:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex}.jsonl"
            file, size = open(folder / name, "wb"), 0
        file.write(data)
        size += len(data)
        total += len(data)
    if file is not None:
        file.close()
    return total


if __name__ == "__main__":
    write_log(log_folder(sys.argv[2], "w"), int(sys.argv[1]))
