"""The log's lines as columns: what a fold of many events takes in, without an object for each of them.

An id is known by a number of 64 bits made of it, the same in every process. Two of ten million ids have the
same one with a chance of about three in a million.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from pandas.util import hash_array

from raywf.core.clock import parse_time
from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import Part
from raywf.outcomes.lines import Entry, entries_in

Keys = NDArray[np.uint64]
Micros = NDArray[np.int64]  # since 1970
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_Data = dict[str, Any]
_LABELS = {str, bool, int, float}
_INSTANT = pa.timestamp("us", tz="UTC")
_FAULTS = (ValueError, KeyError, TypeError, AttributeError)  # of lines that `to_line` did not write


@dataclass(frozen=True, slots=True)
class Features:
    """Rows' features in the order of the rows: of single lines by row, of batches by column."""

    parts: tuple[list[_Data] | tuple[int, _Data], ...]

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Return the values of each named column, None where a row has none."""
        found: list[list[Any]] = [[] for _ in names]
        for part in self.parts:
            for column, values in zip(found, _values(part, names), strict=True):
                column += values
        return found

    def lines(self) -> list[bytes]:
        """Return each row's features as a JSON object."""
        whole: list[_Data] = []
        for part in self.parts:
            whole += part if isinstance(part, list) else _turned(*part)
        return [orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in whole]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one version answered: scores of shape ``(n_rows, k)``, NaN where a row has fewer than others."""

    version: str
    keys: Keys
    times: Micros
    scores: NDArray[np.float64]
    features: Features


@dataclass(frozen=True, slots=True)
class Labels:
    """What became known; values are NaN where none was told."""

    keys: Keys
    times: Micros
    labels: list[str | float]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LogColumns:
    """Some lines of the log: `newest` is the greatest time in them, and `corrupt` counts what is left out."""

    answers: tuple[Answers, ...]
    labels: Labels
    newest: int | None
    events: int
    corrupt: int = 0
    in_rollout: list[_Data] = field(default_factory=list)

    def rollout_entries(self, since: str) -> list[Entry]:
        """Return the entries that are part of a rollout's step, from one step on."""
        return [entry for data in self.in_rollout if data["r"][0] >= since for entry in entries_in(data)]


def id_keys(ids: Sequence[str]) -> Keys:
    """Return each id's number, which is never 0.

    Raises:
        TypeError, ValueError: if an id is no text.
    """
    if set(map(type, ids)) - {str}:
        raise TypeError("an id is no text")
    keys: Keys = hash_array(np.array(ids, dtype=object), categorize=False)
    keys[keys == 0] = 1
    return keys


def instants(texts: Sequence[Any]) -> Micros:
    """Return ISO 8601 instants in microseconds since 1970; one without an offset is taken as UTC.

    Raises:
        ValueError, TypeError: if one is no such text.
    """
    try:
        return np.asarray(pa.array(texts, pa.string()).cast(_INSTANT).cast(pa.int64()).to_numpy())
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
        return micros([parse_time(text) for text in texts])


def micros(times: Iterable[datetime]) -> Micros:
    """Return instants in microseconds since 1970."""
    return np.array([(time - EPOCH) // MICROSECOND for time in times], dtype=np.int64)


def parse_columns(data: bytes) -> LogColumns:
    """Read whole lines; those that cannot be read are counted."""
    lines = data.split(b"\n")[:-1]
    try:
        rows = list(map(orjson.loads, lines))
    except ValueError:
        rows = _parsed(lines)
    try:
        return _columns(rows, corrupt=len(lines) - len(rows))
    except _FAULTS:
        sound = _sound(rows)
        return _columns(sound, corrupt=len(lines) - len(sound))


def columns_of(entries: Iterable[Entry]) -> LogColumns:
    """Return records as columns."""
    batch = tuple(entries)
    drafts: dict[str, _Draft] = {}
    times: list[datetime] = []
    found: list[Outcome] = []
    for entry in batch:
        times.append(entry.time)
        if isinstance(entry, Outcome):
            found.append(entry)
        elif isinstance(entry, Prediction):
            draft = drafts.setdefault(entry.version, _Draft())
            draft.add([entry.id], [entry.time], [entry.scores], [entry.features])
    labels = Labels(
        id_keys([o.id for o in found]),
        micros(o.time for o in found),
        [o.label for o in found],
        np.array([o.value for o in found], dtype=np.float64),
    )
    answers = tuple(d.answers(v, micros(d.times)) for v, d in drafts.items())
    newest = int(micros([max(times)])[0]) if times else None
    return LogColumns(answers, labels, newest, len(batch))


@dataclass(slots=True)
class _Draft:
    """One version's rows while they are gathered; `times` are texts or instants."""

    ids: list[str] = field(default_factory=list)
    times: list[Any] = field(default_factory=list)
    scores: list[Sequence[float]] = field(default_factory=list)
    parts: list[list[_Data] | tuple[int, _Data]] = field(default_factory=list)

    def add(self, ids: list[str], times: list[Any], scores: Sequence[Any], part: Any) -> None:
        if not len(ids) == len(times) == len(scores):
            raise ValueError("a batch's parts are of different lengths")
        self.ids += ids
        self.times += times
        self.scores += scores
        if isinstance(part, list) and self.parts and isinstance(self.parts[-1], list):
            self.parts[-1] += part
        else:
            self.parts.append(part)

    def answers(self, version: str, times: Micros) -> Answers:
        return Answers(version, id_keys(self.ids), times, _matrix(self.scores), Features(tuple(self.parts)))


def _parsed(lines: list[bytes]) -> list[Any]:
    rows = []
    for line in lines:
        try:
            rows.append(orjson.loads(line))
        except ValueError:
            continue
    return rows


def _sound(rows: list[Any]) -> list[Any]:
    """Return the rows that are of the log's form, found by halving."""
    try:
        _columns(rows, corrupt=0)
    except _FAULTS:
        if len(rows) == 1:
            return []
        half = len(rows) // 2
        return _sound(rows[:half]) + _sound(rows[half:])
    return rows


def _columns(rows: list[Any], *, corrupt: int) -> LogColumns:
    if set(map(type, rows)) - {dict}:
        raise TypeError("a line holds no object")
    batches: list[_Data] = []
    singles: list[_Data] = []
    shadows: list[_Data] = []
    outcomes: list[_Data] = []
    for row in rows:
        if "s" in row:
            (batches if "ids" in row else singles).append(row)
        elif "x" in row:
            shadows.append(row)
        else:
            outcomes.append(row)
    drafts = _drafts(singles, batches)
    answers = tuple(draft.answers(version, instants(draft.times)) for version, draft in drafts.items())
    labels = _labels(outcomes)
    in_rollout = [row for row in itertools.chain(singles, batches) if "r" in row] + shadows
    if in_rollout:
        _check_parts(in_rollout, shadows)
    others = (labels.times, instants([row["t"] for row in shadows]))
    newest = [int(times.max()) for times in (*(a.times for a in answers), *others) if len(times)]
    events = sum(len(a.keys) for a in answers) + len(labels.keys) + len(shadows)
    return LogColumns(answers, labels, max(newest, default=None), events, corrupt, in_rollout)


def _drafts(singles: list[_Data], batches: list[_Data]) -> dict[str, _Draft]:
    drafts: dict[str, _Draft] = {}
    by_version: dict[str, list[_Data]] = {}
    versions = [row["v"] for row in singles]
    if len(set(versions)) == 1:
        by_version[versions[0]] = singles
    else:
        for version, row in zip(versions, singles, strict=True):
            by_version.setdefault(version, []).append(row)
    for version, rows in by_version.items():
        features = [row["f"] for row in rows]
        if set(map(type, features)) - {dict}:
            raise TypeError("a row's features are no object")
        draft = drafts.setdefault(version, _Draft())
        draft.add([r["id"] for r in rows], [r["t"] for r in rows], [r["s"] for r in rows], features)
    for row in batches:
        ids, columns = row["ids"], row["c"]
        if any(len(values) != len(ids) for values in columns.values()):
            raise ValueError("a batch's columns are of different lengths")
        times = row["t"] if isinstance(row["t"], list) else [row["t"]] * len(ids)
        drafts.setdefault(row["v"], _Draft()).add(ids, times, row["s"], (len(ids), columns))
    if set(map(type, drafts)) - {str}:
        raise TypeError("a version is no text")
    return drafts


def _labels(rows: list[_Data]) -> Labels:
    labels = [row["l"] for row in rows]
    if set(map(type, labels)) - _LABELS:
        raise TypeError("a label is neither text nor number")
    values = np.array([row.get("u") for row in rows], dtype=np.float64)
    return Labels(id_keys([row["id"] for row in rows]), instants([row["t"] for row in rows]), labels, values)


def _check_parts(rows: list[_Data], shadows: list[_Data]) -> None:
    """Refuse what cannot be made an entry of: who asks for entries relies on it."""
    for row in rows:
        if type(Part(*row["r"]).step) is not str:
            raise TypeError("a rollout's step is no text")
    for row in shadows:
        entries_in(row)


def _matrix(scores: list[Sequence[float]]) -> NDArray[np.float64]:
    lengths = set(map(len, scores))
    if len(lengths) == 1:
        (width,) = lengths
        flat = np.array(list(itertools.chain.from_iterable(scores)), dtype=np.float64)
        made = flat.reshape(len(scores), width)
    else:
        made = np.full((len(scores), max(lengths, default=0)), np.nan)
        for row, values in zip(made, scores, strict=True):
            row[: len(values)] = [float(v) for v in values]
        flat = np.array([float(v) for values in scores for v in values])
    if not np.isfinite(flat).all():
        raise ValueError("a score is no number")
    return made


def _values(part: list[_Data] | tuple[int, _Data], names: Sequence[str]) -> Iterable[Iterable[Any]]:
    if isinstance(part, tuple):
        count, columns = part
        return [columns.get(name) or [None] * count for name in names]
    if len(names) < 2:
        return [[row.get(name) for row in part] for name in names]
    try:
        return list(zip(*map(itemgetter(*names), part), strict=True))
    except KeyError:
        return zip(*([row.get(name) for name in names] for row in part), strict=True)


def _turned(count: int, columns: _Data) -> list[_Data]:
    names = list(columns)
    rows: Iterable[tuple[Any, ...]] = zip(*columns.values(), strict=True) if names else [()] * count
    return [dict(zip(names, row, strict=True)) for row in rows]
