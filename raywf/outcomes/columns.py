"""The log's lines as columns: what a fold of many events takes in, without an object for each of them.

An id is known by a number of 64 bits made of it, the same in every process. Two of ten million ids have the
same one with a chance of about three in a million.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
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
from raywf.core.service import Service
from raywf.outcomes.lines import Entry, entries_in

Keys = NDArray[np.uint64]
Micros = NDArray[np.int64]  # since 1970
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_Data = dict[str, Any]
_LABELS = {str, bool, int, float}
_INSTANT = pa.timestamp("us", tz="UTC")
_SORTED = orjson.OPT_SORT_KEYS
_FEW = 300  # lines whose objects fit into a processor's nearest caches
_FAULTS = (ValueError, KeyError, TypeError, AttributeError)  # of lines that `to_line` did not write


@dataclass(slots=True)
class Features:
    """Rows' features by column, None where a row has none."""

    rows: int = 0
    by_name: dict[str, list[Any]] = field(default_factory=dict)

    def columns(self, names: Sequence[str]) -> list[list[Any]]:
        """Return the values of each named column."""
        return [self.by_name.get(name) or [None] * self.rows for name in names]

    def lines(self) -> list[bytes]:
        """Return each row's features as a JSON object."""
        rows = zip(*self.by_name.values(), strict=True) if self.by_name else [()] * self.rows
        pairs = (zip(self.by_name, row, strict=True) for row in rows)
        return [orjson.dumps({k: v for k, v in one if v is not None}, option=_SORTED) for one in pairs]

    def add(self, rows: int, columns: Mapping[str, Sequence[Any]]) -> None:
        """Take in more rows."""
        for name in columns.keys() - self.by_name.keys():
            self.by_name[name] = [None] * self.rows
        for name, values in self.by_name.items():
            values += columns.get(name) or [None] * rows
        self.rows += rows


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
    services: tuple[Service, ...] = ()

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
    gathered = _Gathered()
    try:
        for start in range(0, len(lines), _FEW):
            gathered.add(list(map(orjson.loads, lines[start : start + _FEW])))
        return gathered.columns(corrupt=0)
    except _FAULTS:
        sound = _sound(_parsed(lines))
        return _columns(sound, corrupt=len(lines) - len(sound))


def columns_of(entries: Iterable[Entry]) -> LogColumns:
    """Return records as columns."""
    batch = tuple(entries)
    by_version: dict[str, list[Prediction]] = {}
    for entry in batch:
        if isinstance(entry, Prediction):
            by_version.setdefault(entry.version, []).append(entry)
    drafts: dict[str, _Draft] = {version: _Draft() for version in by_version}
    for version, rows in by_version.items():
        columns = _by_name([row.features for row in rows])
        drafts[version].add([r.id for r in rows], [r.time for r in rows], [r.scores for r in rows], columns)
    found = [entry for entry in batch if isinstance(entry, Outcome)]
    labels = Labels(
        id_keys([o.id for o in found]),
        micros(o.time for o in found),
        [o.label for o in found],
        np.array([o.value for o in found], dtype=np.float64),
    )
    answers = tuple(d.answers(v, micros(d.times)) for v, d in drafts.items())
    services = tuple(entry for entry in batch if isinstance(entry, Service))
    newest = max((entry.time for entry in batch if not isinstance(entry, Service)), default=None)
    last = None if newest is None else int(micros([newest])[0])
    return LogColumns(answers, labels, last, len(batch), services=services)


@dataclass(slots=True)
class _Draft:
    """One version's rows while they are gathered; `times` are texts or instants."""

    ids: list[str] = field(default_factory=list)
    times: list[Any] = field(default_factory=list)
    scores: list[Sequence[float]] = field(default_factory=list)
    features: Features = field(default_factory=Features)

    def add(
        self, ids: list[str], times: list[Any], scores: Sequence[Any], columns: Mapping[str, Sequence[Any]]
    ) -> None:
        if any(len(part) != len(ids) for part in (times, scores, *columns.values())):
            raise ValueError("a batch's parts are of different lengths")
        self.ids += ids
        self.times += times
        self.scores += scores
        self.features.add(len(ids), columns)

    def answers(self, version: str, times: Micros) -> Answers:
        return Answers(version, id_keys(self.ids), times, _matrix(self.scores), self.features)


@dataclass(slots=True)
class _Gathered:
    """What lines hold, by column, before it becomes arrays."""

    drafts: dict[str, _Draft] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)  # of outcomes, as times, labels and values
    times: list[str] = field(default_factory=list)
    labels: list[str | float] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    shadows: list[_Data] = field(default_factory=list)
    in_rollout: list[_Data] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)

    def add(self, rows: list[Any]) -> None:
        if set(map(type, rows)) - {dict}:
            raise TypeError("a line holds no object")
        singles: list[_Data] = []
        outcomes: list[_Data] = []
        for row in rows:
            if "s" in row:
                if "ids" in row:
                    self._add_batch(row)
                else:
                    singles.append(row)
            elif "x" in row:
                entries_in(row)  # who asks for entries relies on it
                self.shadows.append(row)
            elif "n" in row:
                self.services += [one for one in entries_in(row) if isinstance(one, Service)]
            else:
                outcomes.append(row)
        versions = {row["v"] for row in singles}
        for version in versions:
            is_only = len(versions) == 1
            self._add_singles(version, singles if is_only else [r for r in singles if r["v"] == version])
        self.ids += [row["id"] for row in outcomes]
        self.times += [row["t"] for row in outcomes]
        self.labels += [row["l"] for row in outcomes]
        self.values += [row.get("u") for row in outcomes]

    def columns(self, *, corrupt: int) -> LogColumns:
        if set(map(type, self.drafts)) - {str}:
            raise TypeError("a version is no text")
        if set(map(type, self.labels)) - _LABELS:
            raise TypeError("a label is neither text nor number")
        if any(type(Part(*row["r"]).step) is not str for row in (*self.in_rollout, *self.shadows)):
            raise TypeError("a rollout's step is no text")
        answers = tuple(
            draft.answers(version, instants(draft.times)) for version, draft in self.drafts.items()
        )
        values = np.array(self.values, dtype=np.float64)
        labels = Labels(id_keys(self.ids), instants(self.times), self.labels, values)
        others = (labels.times, instants([row["t"] for row in self.shadows]))
        newest = [int(times.max()) for times in (*(a.times for a in answers), *others) if len(times)]
        others_count = len(self.shadows) + len(self.services)
        return LogColumns(
            answers,
            labels,
            max(newest, default=None),
            events=sum(len(a.keys) for a in answers) + len(labels.keys) + others_count,
            corrupt=corrupt,
            in_rollout=self.in_rollout + self.shadows,
            services=tuple(self.services),
        )

    def _add_singles(self, version: str, rows: list[_Data]) -> None:
        columns = _by_name([row["f"] for row in rows])
        draft = self.drafts.setdefault(version, _Draft())
        draft.add([r["id"] for r in rows], [r["t"] for r in rows], [r["s"] for r in rows], columns)
        self.in_rollout += [row for row in rows if "r" in row]

    def _add_batch(self, row: _Data) -> None:
        ids, times = row["ids"], row["t"]
        stated = times if isinstance(times, list) else [times] * len(ids)
        self.drafts.setdefault(row["v"], _Draft()).add(ids, stated, row["s"], row["c"])
        if "r" in row:
            self.in_rollout.append(row)


def _by_name(rows: list[_Data]) -> dict[str, Sequence[Any]]:
    """Turn rows' features into columns."""
    if set(map(type, rows)) - {dict}:
        raise TypeError("a row's features are no object")
    names = list(rows[0])
    if len(names) > 1 and set(map(len, rows)) == {len(names)}:
        try:
            return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))
        except KeyError:
            pass
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


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
    gathered = _Gathered()
    gathered.add(rows)
    return gathered.columns(corrupt=corrupt)


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
