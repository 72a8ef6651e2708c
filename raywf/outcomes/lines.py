"""The log's line format, and the folder that its segments lie in.

A segment is a file of newline-terminated JSON objects below ``<root>/log/<workflow>/``. A prediction is
``{"id","t","v","f","s"}`` (time, version, features by name, scores), an outcome ``{"id","t","l"}`` with
``"u"`` for its value where it has one. Many rows of one request are ``{"ids","t","v","c","s"}`` with features
by column. During a rollout a prediction has its part too, as ``"r"``: [step, microseconds, failed]; what a
shadow would have answered is ``{"id","t","v","x","r"}`` with its scores as ``"x"``. How a replica served a
version in a window is ``{"id","t","v","w","n","h","cpu"}``: the window's start and seconds, [answered,
refused, failed] requests, pairs of a bin of times and its count, CPU-seconds; each goes in the place of the
one of that id before it. Times are ISO 8601, UTC.
JSON escapes control characters, so a newline byte ends a line and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from raywf.core.clock import parse_time
from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import Part, ShadowAnswer
from raywf.core.service import Service
from raywf.core.store import Store

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
_ARRAYS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC


def log_folder(root: str, workflow: str) -> Path:
    """Return this node's folder for a workflow's segments: where they lie, or what is kept of them here."""
    return Store(root).node_folder / "log" / workflow


Entry = Prediction | Outcome | ShadowAnswer | Service


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionBatch:
    """Rows that one request asked for and one version answered: features by column, scores ``(n_rows, k)``.

    One line of the log, which is read as a `Prediction` a row. A column is a list of JSON values or an array
    of floats (NaN: missing) or datetime64 (UTC).
    """

    ids: Sequence[str]
    times: Sequence[datetime]
    version: str
    features: Mapping[str, Sequence[Any] | NDArray[Any]]
    scores: NDArray[np.float64]
    part: Part | None = None


def to_line(record: Entry | PredictionBatch) -> bytes:
    """Return the record as one line, with its newline.

    Raises:
        TypeError: if a feature's value is not a JSON value.

    """
    if isinstance(record, PredictionBatch):
        return _batch_line(record)
    data: dict[str, Any] = {"id": record.id, "t": record.time.astimezone(UTC)}
    if isinstance(record, Prediction):
        data |= {"v": record.version, "f": record.features, "s": record.scores}
        if record.part is not None:
            data["r"] = _part(record.part)
    elif isinstance(record, ShadowAnswer):
        data |= {"v": record.version, "x": record.scores, "r": _part(record.part)}
    elif isinstance(record, Service):
        counts = (record.answered, record.refused, record.failed)
        data |= {"v": record.version, "w": record.length_s, "n": counts}
        data |= {"h": sorted(record.times.items()), "cpu": record.cpu_s}
    else:
        data["l"] = record.label
        if record.value is not None:
            data["u"] = record.value
    return orjson.dumps(data, option=_OPTIONS)


def _batch_line(batch: PredictionBatch) -> bytes:
    first = batch.times[0]
    together = batch.times.count(first) == len(batch.times)
    times = first.astimezone(UTC) if together else [time.astimezone(UTC) for time in batch.times]
    scores = np.ascontiguousarray(batch.scores)
    data: dict[str, Any] = {
        "ids": batch.ids,
        "t": times,
        "v": batch.version,
        "c": batch.features,
        "s": scores,
    }
    if batch.part is not None:
        data["r"] = _part(batch.part)
    return orjson.dumps(data, option=_OPTIONS | _ARRAYS)


def line_digest(record: Entry) -> bytes:
    """Return eight bytes made of a record's content, which settle what its time does not."""
    return hashlib.blake2b(to_line(record), digest_size=8).digest()


def _part(part: Part) -> tuple[str, float, bool]:
    return part.step, round(part.took_us, 1), part.failed


def from_line(line: bytes) -> Entry:
    """Read one line, with or without its newline.

    Raises:
        ValueError, KeyError, TypeError: if the line is not one that `to_line` wrote.

    """
    (entry,) = entries_of(line)
    return entry


def entries_of(line: bytes) -> list[Entry]:
    """Read what one line holds: the rows of a batch, else one record.

    Raises:
        ValueError, KeyError, TypeError: as `from_line`.

    """
    return entries_in(orjson.loads(line))


def entries_in(data: dict[str, Any]) -> list[Entry]:
    """Return the records of a line that was parsed.

    Raises:
        ValueError, KeyError, TypeError: as `from_line`.

    """
    return _batch_entries(data) if "ids" in data else [_entry(data)]


def _batch_entries(data: dict[str, Any]) -> list[Entry]:
    count = len(data["ids"])
    stated = data["t"] if isinstance(data["t"], list) else [data["t"]] * count
    times = [datetime.fromisoformat(text) for text in stated]
    if not isinstance(data["c"], dict):
        raise TypeError("a batch's columns are no object")
    part = Part(*data["r"]) if "r" in data else None
    names, columns = list(data["c"]), list(data["c"].values())
    rows = zip(*columns, strict=True) if columns else [()] * count
    return [
        Prediction(
            id=one,
            time=time,
            version=data["v"],
            features=dict(zip(names, row, strict=True)),
            scores=tuple(map(float, scores)),
            part=part,
        )
        for one, time, row, scores in zip(data["ids"], times, rows, data["s"], strict=True)
    ]


def _entry(data: dict[str, Any]) -> Entry:
    time = datetime.fromisoformat(data["t"])
    if "s" in data:
        scores = tuple(map(float, data["s"]))
        part = Part(*data["r"]) if "r" in data else None
        return Prediction(
            id=data["id"], time=time, version=data["v"], features=data["f"], scores=scores, part=part
        )
    if "x" in data:
        scores = tuple(map(float, data["x"]))
        return ShadowAnswer(id=data["id"], time=time, version=data["v"], scores=scores, part=Part(*data["r"]))
    if "n" in data:
        answered, refused, failed = map(int, data["n"])
        return Service(
            id=data["id"],
            time=parse_time(data["t"]),
            length_s=float(data["w"]),
            version=data["v"],
            answered=answered,
            refused=refused,
            failed=failed,
            cpu_s=float(data["cpu"]),
            times={int(one): int(count) for one, count in data["h"]},
        )
    return Outcome(id=data["id"], time=time, label=data["l"], value=data.get("u"))
