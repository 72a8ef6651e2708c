"""The monitor's state as a fold of the outcome log: a function of the set of records, whatever their order.

A prediction that comes again counts once, the earliest by (time, version, content); of an id's outcomes the
latest counts, equal times settled by content. Labels may come before their prediction. A window that ended
longer than the horizon, or than its labels need, before the watermark (by a wall clock: and before now) is
closed: its sums stay, its rows are forgotten, and what comes for it later is only counted, so the rule above
holds for records that are no later than that.

Records come in columns and are kept in columns (`Rows`); an id is known by its key, a hash. Content is what
evidence can tell apart: a prediction's scores and bins, an outcome's label and value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice, pairwise

import numpy as np
import orjson
from numpy.typing import NDArray

from raywf.core.attribution import Attribution
from raywf.core.clock import from_microseconds, to_microseconds
from raywf.core.metrics import Array, Metric
from raywf.core.records import Evidence, Outcome
from raywf.core.settings import MonitorSettings
from raywf.monitor.attribution import add_up, attribute
from raywf.monitor.drift import MISSING, Codes, bin_values
from raywf.monitor.key_index import RowNumbers
from raywf.monitor.labels import LabelPool, label_content
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.monitor.rows import NEVER, NOWHERE, Rows
from raywf.monitor.services import Services
from raywf.monitor.since import Moved, moved_since
from raywf.monitor.slices import Asked, SliceEvidence, slice_evidence
from raywf.monitor.window import Window
from raywf.outcomes.columns import (
    MICROSECOND,
    Answers,
    Keys,
    Labels,
    LogColumns,
    Micros,
    columns_of,
    id_keys,
)
from raywf.outcomes.lines import Entry

_Key = tuple[str, int]
_ATTRIBUTED_ROWS = 1_000
_DRIFT_KEPT = 1_000  # closed windows of a version whose features' drift is kept


@dataclass(slots=True)
class FoldState:
    """All that a fold knows; windows are numbered by their length since 1970, times in microseconds."""

    rows: Rows = field(default_factory=Rows)
    pool: LabelPool = field(default_factory=LabelPool)
    known: dict[str, Reference] = field(default_factory=dict)
    windows: dict[_Key, Window] = field(default_factory=dict)
    slots: list[Window | None] = field(default_factory=list)
    closed: dict[_Key, Evidence] = field(default_factory=dict)
    services: Services = field(default_factory=Services)
    watermark: int | None = None
    late: int = 0
    swept: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """Predictions of one version, each id once; `codes` has shape ``(n_features, n_rows)``.

    `lines` are the features as JSON where the version is not known.
    """

    version: str
    reference: Reference | None
    keys: Keys
    times: Micros
    scores: NDArray[np.float64]
    codes: Codes
    lines: list[bytes]

    def of(self, chosen: RowNumbers) -> _Batch:
        lines = [self.lines[i] for i in chosen] if self.lines else []
        scores, codes = self.scores[chosen], self.codes[:, chosen]
        return _Batch(
            self.version, self.reference, self.keys[chosen], self.times[chosen], scores, codes, lines
        )


class Fold:
    """Folds records into evidence; not safe for threads.

    `metric` is the workflow's. Predictions of a version that `references` does not know yet wait.
    `state` is that of a fold with the same settings, to go on from.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        references: ReferenceSource,
        *,
        metric: Metric,
        state: FoldState | None = None,
    ) -> None:
        self._settings, self._references, self._metric = settings, references, metric
        self._length = settings.window // MICROSECOND
        self._state = state or FoldState()
        self._asked: set[str] = set()  # in vain, since the last update

    @property
    def state(self) -> FoldState:
        """All that it knows; it goes on changing."""
        return self._state

    def update(self, records: Iterable[Entry], *, settle: bool = True) -> None:
        """Take in records, in any order and grouping, seen before or not; what shadows answered is left out.

        Versions that were not known are asked for. Without `settle` no window is closed: a reader that is
        behind may bring old records yet.
        """
        self._asked.clear()
        self._admit()
        self.take(columns_of(records))
        watermark = self._state.watermark
        if settle and watermark is not None:
            if self._settings.clock == "wall":  # an instant to come, by mistake or not, ends no window before
                watermark = min(watermark, to_microseconds(datetime.now(UTC)))
                self._state.swept = min(self._state.swept, watermark // self._length)
            self._close(watermark)

    def take(self, columns: LogColumns) -> None:
        """Take in records in columns, as `update` does without settling and asking again."""
        for answers in columns.answers:
            self._take_answers(answers)
        self._take_labels(columns.labels)
        self._state.services.take(columns.services, self._length)
        newest, watermark = columns.newest, self._state.watermark
        if newest is not None and (watermark is None or newest > watermark):
            self._state.watermark = newest

    def evidence(self, version: str) -> tuple[Evidence, ...]:
        """Return the version's windows in time order; those without rows are left out."""
        state = self._state
        found = [e for (v, _), e in state.closed.items() if v == version]
        for key, window in state.windows.items():
            if window.version == version:
                one = self._evidence(window)
                found += [state.services.told(key, one)] if one is not None else []
        return tuple(sorted(found, key=lambda e: e.start))

    def attribution(self, version: str) -> Attribution | None:
        """Return what the loss of the newest windows, against that at promotion, comes from.

        The newest that are mature and not closed, and have a thousand labelled rows between them; None where
        there are none, or nothing is known of the losses at promotion.
        """
        state, now = self._state, self.watermark
        parts, labelled = [], 0
        mine = [w for (v, _), w in sorted(state.windows.items(), reverse=True) if v == version]
        for window in mine if now is not None else ():
            told = self._evidence(window) if labelled < _ATTRIBUTED_ROWS else None
            part = None
            if told is not None and now is not None and told.is_mature(now):
                part = window.losses_by_bin(state.rows, state.pool)
            if told is not None and part is not None:
                parts.append(part)
                labelled += told.labelled
        after, reference = add_up(parts), state.known.get(version)
        if after is None or reference is None or reference.expectations is None:
            return None
        return attribute(reference.expectations.by_bin, after, reference.profile)

    def slices(self, version: str, column: str, *, last: int) -> tuple[SliceEvidence, ...]:
        """Return how the version does by a column's values, in its newest windows that are not closed.

        Raises:
            SettingsError: if the version has no such column.
        """
        state, known = self._state, self._state.known.get(version)
        if known is None:
            return ()
        newest = [w for (v, _), w in sorted(state.windows.items(), reverse=True) if v == version]
        held = (rows for rows in (w.members(state.rows) for w in newest) if len(rows))
        chosen = np.concatenate([np.empty(0, np.int64), *islice(held, last)])
        asked = Asked(self._metric, self._settings.min_labelled)
        return slice_evidence(state.rows, state.pool, chosen, known, column, asked=asked)

    def moved(self, version: str) -> dict[datetime, Moved]:
        """Return by its start how far each of a version's windows moved from the one before it.

        Both have to have rows and not to be closed: those that are have given their rows up.
        """
        state = self._state
        mine = [w for (v, _), w in sorted(state.windows.items()) if v == version]
        held = [w for w in mine if len(w.members(state.rows))]
        found = {}
        for before, after in pairwise(held):
            moved = moved_since(before, after, state.rows, state.pool, settings=self._settings)
            if moved is not None:
                found[from_microseconds(after.start)] = moved
        return found

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that have evidence, sorted."""
        state = self._state
        known = [w for w in state.windows.values() if w.reference is not None and len(w.members(state.rows))]
        return tuple(sorted({*(w.version for w in known), *(v for v, _ in state.closed)}))

    @property
    def watermark(self) -> datetime | None:
        """The greatest time of any record."""
        at = self._state.watermark
        return None if at is None else from_microseconds(at)

    def outcome(self, identity: str) -> Outcome | None:
        """Return the outcome of a prediction's id that counts at present."""
        return self.outcomes([identity]).get(identity)

    def outcomes(self, identities: Sequence[str]) -> dict[str, Outcome]:
        """Return the outcomes that count at present, of those ids that have one."""
        rows, pool = self._state.rows, self._state.pool
        found = {}
        for identity, row in zip(identities, rows.find(id_keys(identities)).tolist(), strict=True):
            if row >= 0 and rows.known[row] != NEVER:
                value = float(rows.values[row])
                found[identity] = Outcome(
                    id=identity,
                    time=from_microseconds(int(rows.known[row])),
                    label=pool.decode(int(rows.kinds[row]), float(rows.numbers[row])),
                    value=None if np.isnan(value) else value,
                )
        return found

    def counts(self) -> dict[str, int]:
        """Return totals: distinct predictions and outcomes, labelled rows, what waits, what was left out."""
        state = self._state
        ends = state.closed.values()
        tallies = [(w.reference, w.tally(state.rows, state.pool)) for w in state.windows.values()]
        orphans = np.count_nonzero(state.rows.windows[: state.rows.used] == NOWHERE)
        return {
            "predictions": sum(t.rows for _, t in tallies) + sum(e.rows for e in ends),
            "labelled": sum(t.labelled for _, t in tallies) + sum(e.labelled for e in ends),
            "outcomes_without_prediction": int(orphans),
            "predictions_of_unknown_version": sum(t.rows for known, t in tallies if known is None),
            "labels_of_unknown_class": sum(t.odd for known, t in tallies if known is not None),
            "late": state.late,
        }

    def _take_answers(self, answers: Answers) -> None:
        reference = self._reference(answers.version)
        if reference is None:
            codes, lines = np.empty((0, len(answers.keys)), np.uint8), answers.features.lines()
        else:
            names = [profile.name for profile in reference.profile]
            codes, lines = _bins(answers.features.columns(names), reference, len(answers.keys)), []
        self._state.rows.widen(scores=answers.scores.shape[1], codes=len(codes))
        batch = _Batch(answers.version, reference, answers.keys, answers.times, answers.scores, codes, lines)
        for chosen in _rounds(batch.keys, batch.times):
            self._place(batch if len(chosen) == len(batch.keys) else batch.of(chosen))

    def _place(self, batch: _Batch) -> None:
        """Give rows to predictions of different ids."""
        rows, table = self._state.rows.find(batch.keys), self._state.rows
        counts = np.ones(len(rows), dtype=bool)
        replaced = rows >= 0
        replaced[replaced] = table.windows[rows[replaced]] != NOWHERE
        if replaced.any():
            counts[replaced] = self._goes_before(batch.of(np.flatnonzero(replaced)), rows[replaced])
            replaced &= counts
            self._withdraw(rows[replaced])
        numbers = batch.times // self._length
        late = counts & self._is_closed(batch.version, numbers)
        self._state.late += int(np.count_nonzero(late))
        gone = rows[late & replaced]
        table.drop(gone[table.known[gone] == NEVER])
        kept = np.flatnonzero(counts & ~late)
        new = kept[rows[kept] < 0]
        rows[new] = table.add(batch.keys[new])
        if len(kept) < len(rows):
            batch, rows, numbers = batch.of(kept), rows[kept], numbers[kept]
        table.answer(rows, batch.times, batch.scores, batch.codes)
        for number, chosen in _groups(numbers):
            window = self._window(batch, number)
            table.windows[rows[chosen]] = window.slot
            window.add(rows[chosen])
            for i in chosen.tolist() if batch.lines else ():
                window.waiting[int(rows[i])] = [batch.lines[i]]

    def _goes_before(self, batch: _Batch, rows: RowNumbers) -> NDArray[np.bool_]:
        """Return which predictions count instead of those in the rows."""
        table = self._state.rows
        found = batch.times < table.times[rows]
        for i in self._ties(batch, rows).tolist():
            row, line = int(rows[i]), batch.lines[i] if batch.lines else b""
            window = self._state.slots[table.windows[row]]
            assert window is not None
            if window.version != batch.version:
                found[i] = batch.version < window.version
                continue
            ours, theirs = _content(batch, i, table), table.content(row)
            found[i] = ours < theirs
            if ours == theirs and line and line not in window.waiting[row]:  # their bins will settle it
                window.waiting[row].append(line)
                window.relabel()
        return found

    def _ties(self, batch: _Batch, rows: RowNumbers) -> RowNumbers:
        """Return where times are equal; of a known version what is the same in all is left out."""
        table = self._state.rows
        ties = np.flatnonzero(batch.times == table.times[rows])
        if not len(ties) or batch.lines:
            return ties
        slots = (self._state.slots[slot] for slot in table.windows[rows[ties]].tolist())
        same = np.array([window is not None and window.version == batch.version for window in slots])
        for column, scores in zip(table.scores, batch.scores[ties].T, strict=False):
            same &= column[rows[ties]] == scores
        for column in table.scores[batch.scores.shape[1] :]:
            same &= np.isnan(column[rows[ties]])
        for bins, codes in zip(table.codes, batch.codes[:, ties], strict=False):
            same &= bins[rows[ties]] == codes
        found: RowNumbers = ties[~same]
        return found

    def _withdraw(self, rows: RowNumbers) -> None:
        table = self._state.rows
        for slot in np.unique(table.windows[rows]).tolist():
            window = self._state.slots[slot]
            assert window is not None
            window.withdraw(rows)
        table.windows[rows] = NOWHERE

    def _take_labels(self, labels: Labels) -> None:
        kinds, numbers = self._state.pool.encode(labels.labels)
        table = self._state.rows
        for chosen in _rounds(labels.keys, -labels.times):
            rows = table.find(labels.keys[chosen])
            new = rows < 0
            rows[new] = table.add(labels.keys[chosen[new]])
            known, times, values = table.known[rows], labels.times[chosen], labels.values[chosen]
            counts = times > known
            same = (table.kinds[rows] == kinds[chosen]) & _equal(table.numbers[rows], numbers[chosen])
            same &= _equal(table.values[rows], values)
            for i in np.flatnonzero((times == known) & ~same).tolist():
                ours = label_content(labels.labels[chosen[i]], float(values[i]))
                counts[i] = ours > self._label_content(rows[i])
            rows, taken = rows[counts], chosen[counts]
            table.known[rows], table.values[rows] = times[counts], values[counts]
            table.kinds[rows], table.numbers[rows] = kinds[taken], numbers[taken]
            for slot in np.unique(table.windows[rows]).tolist():
                window = self._state.slots[slot] if slot != NOWHERE else None
                if window is not None:
                    window.relabel()

    def _label_content(self, row: int) -> bytes:
        table = self._state.rows
        label = self._state.pool.decode(int(table.kinds[row]), float(table.numbers[row]))
        return label_content(label, float(table.values[row]))

    def _admit(self) -> None:
        """Ask for the versions that rows wait for."""
        for version in {w.version for w in self._state.windows.values() if w.reference is None}:
            self._reference(version)

    def _reference(self, version: str) -> Reference | None:
        known = self._state.known.get(version)
        if known is None and version not in self._asked:
            known = self._references.reference(version)
            if known is None:
                self._asked.add(version)
                return None
            self._state.known[version] = known
            for window in self._state.windows.values():
                if window.version == version:
                    self._bin(window, known)
        return known

    def _bin(self, window: Window, reference: Reference) -> None:
        """Bin the rows that waited for their version."""
        rows = np.array([row for row, lines in window.waiting.items() for _ in lines], dtype=np.int64)
        features = [orjson.loads(line) for lines in window.waiting.values() for line in lines]
        names = [profile.name for profile in reference.profile]
        codes = _bins([[one.get(name) for one in features] for name in names], reference, len(rows))
        if len(rows) > len(window.waiting):  # of a row's bins the first are written last
            order = sorted(range(len(rows)), key=lambda i: codes[:, i].tobytes(), reverse=True)
            rows, codes = rows[order], codes[:, order]
        self._state.rows.widen(scores=0, codes=len(codes))
        for column, bins in zip(self._state.rows.codes, codes, strict=False):
            column[rows] = bins
        window.admit(reference)

    def _window(self, batch: _Batch, number: int) -> Window:
        state, key = self._state, (batch.version, number)
        if key not in state.windows:
            start = number * self._length
            made = Window(batch.version, start, start + self._length, len(state.slots), batch.reference)
            state.windows[key] = made
            state.slots.append(made)
        return state.windows[key]

    def _is_closed(self, version: str, numbers: Micros) -> NDArray[np.bool_]:
        ended = [n for n in np.unique(numbers).tolist() if (version, n) in self._state.closed]
        return np.isin(numbers, ended) if ended else np.zeros(len(numbers), dtype=bool)

    def _evidence(self, window: Window) -> Evidence | None:
        state = self._state
        return window.evidence(state.rows, state.pool, self._metric, settings=self._settings)

    def _forget_drift(self, version: str) -> None:
        """Let go of how far features moved in all but the newest closed windows of a version."""
        closed = self._state.closed
        for number in sorted(n for v, n in closed if v == version)[:-_DRIFT_KEPT]:
            closed[version, number] = replace(closed[version, number], drift=())

    def _close(self, watermark: int) -> None:
        """Forget the rows of windows that are past the horizon, and outcomes that nobody waited for.

        A window whose labels need longer than that stays until they have come.
        """
        state = self._state
        kept = max(self._settings.horizon // MICROSECOND, 2 * self._length)
        limit = watermark - kept
        for key, window in list(state.windows.items()):
            if window.reference is None:
                continue
            labelled = round(window.reference.maturity_s * 1e6) + 2 * self._length
            if window.end < watermark - max(kept, labelled):
                evidence = self._evidence(window)
                if evidence is not None:
                    state.closed[key] = state.services.told(key, evidence)
                    self._forget_drift(key[0])
                state.rows.drop(window.members(state.rows))
                state.slots[window.slot] = None
                del state.windows[key]
        number = limit // self._length
        if number > state.swept:
            state.swept = number
            used = state.rows.used
            lost = (state.rows.windows[:used] == NOWHERE) & (state.rows.known[:used] < limit)
            state.late += int(np.count_nonzero(lost))
            state.rows.drop(np.flatnonzero(lost))
            state.services.forget(number, kept=state.windows)


def _bins(columns: Sequence[Sequence[object]], reference: Reference, rows: int) -> Codes:
    """Return the bins of all features, shape ``(n_features, n_rows)``."""
    codes = np.empty((len(reference.profile), rows), dtype=np.uint8)
    for i, (profile, values) in enumerate(zip(reference.profile, columns, strict=True)):
        codes[i] = bin_values(values, profile)
    return codes


def _equal(ours: Array, theirs: Array) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return same


def _content(batch: _Batch, at: int, table: Rows) -> tuple[bytes, bytes]:
    """Return a prediction's content as `Rows.content` does."""
    scores = np.full(len(table.scores), np.nan)
    scores[: batch.scores.shape[1]] = batch.scores[at]
    codes = batch.codes[:, at].tobytes()
    return scores.tobytes(), codes.ljust(len(table.codes), bytes([MISSING]))


def _groups(numbers: Micros) -> Iterator[tuple[int, RowNumbers]]:
    """Yield each number and where it stands."""
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    for chosen in np.split(order, cuts):
        if len(chosen):
            yield int(numbers[chosen[0]]), chosen


def _rounds(keys: Keys, ranks: Micros) -> Iterator[RowNumbers]:
    """Yield the places of keys of the least rank, in as many parts that no part has a key twice."""
    in_order = np.sort(keys)
    if not (in_order[1:] == in_order[:-1]).any():
        yield np.arange(len(keys))
        return
    order = np.lexsort((ranks, keys))
    sorted_keys, sorted_ranks = keys[order], ranks[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = sorted_keys[1:] != sorted_keys[:-1]
    starts = np.flatnonzero(first)
    begin = np.repeat(starts, np.diff(np.append(starts, len(order))))
    least = sorted_ranks == sorted_ranks[begin]
    turns = np.arange(len(order)) - begin
    for turn in range(int(turns[least].max()) + 1):
        yield order[least & (turns == turn)]
