"""Champion and challengers on the same rows: what the log says of the newest rollout, step by step.

As the fold of windows it is a function of the set of records, whatever their order. Only the newest rollout's
rows are kept.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import Duel, Part, RolloutStep, ShadowAnswer, Side, SlicePairs, Tally
from raywf.monitor.drift import MISSING, bin_values
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.outcomes.lines import Entry, line_digest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_COLUMNS, _MOST_VALUES = 6, 12  # categories whose values are looked at one by one
_FEWEST = 20  # pairs of a slice
_WINDOWS = 8  # of a step that lasts as long as it has to

Outcomes = Callable[[str], Outcome | None]


@dataclass(slots=True)
class _Answer:
    """What one version said to a row; `slices` are the row's bins in the columns that are looked at."""

    version: str
    time: datetime
    scores: tuple[float, ...]
    part: Part
    rank: bytes
    slices: tuple[int, ...] = ()


@dataclass(slots=True)
class _Row:
    """A row's live answer, once it is known, and its shadows' by version."""

    live: _Answer | None
    shadows: dict[str, _Answer]


class DuelFold:
    """Keeps the rows of the newest rollout; not safe for threads.

    `outcome_of` gives the outcome of a prediction's id that counts at present, or None.
    """

    def __init__(self, references: ReferenceSource, outcome_of: Outcomes) -> None:
        self._references, self._outcome_of = references, outcome_of
        self._rollout = ""
        self._steps: dict[str, dict[str, _Row]] = {}

    def update(self, records: Iterable[Entry]) -> None:
        """Take in records, in any order and grouping, seen before or not."""
        for record in records:
            part = None if isinstance(record, Outcome) else record.part
            if part is None or isinstance(record, Outcome):
                continue
            rollout = part.step.rpartition(":")[0]
            if rollout > self._rollout:
                self._rollout, self._steps = rollout, {}
            if rollout == self._rollout:
                self._take(record, part)

    def duels(self, step: RolloutStep, bake: timedelta) -> tuple[Duel, ...]:
        """Return each challenger beside the champion by the rows of one step, which may be none."""
        rows = self._steps.get(step.tag, {})
        champion = self._references.reference(step.champion)
        found = []
        for name in step.challengers:
            challenger = self._references.reference(name)
            pairs: list[_Pair] = []
            if champion is not None and challenger is not None:
                pairs = self._pairs(rows, champion, challenger)
            length = bake / _WINDOWS
            found.append(
                Duel(
                    champion=self._side(rows, step.champion, step.champion),
                    challenger=self._side(rows, name, step.champion),
                    pairs=_tallies(pairs, length),
                    slices=() if champion is None else _slices(pairs, champion, length),
                )
            )
        return tuple(found)

    def _take(self, record: Prediction | ShadowAnswer, part: Part) -> None:
        row = self._steps.setdefault(part.step, {}).setdefault(record.id, _Row(None, {}))
        rank = line_digest(record)
        shadow = isinstance(record, ShadowAnswer)
        former = row.shadows.get(record.version) if shadow else row.live
        if former is not None and (former.time, former.rank) <= (record.time, rank):
            return
        answer = _Answer(record.version, record.time, record.scores, part, rank)
        if isinstance(record, ShadowAnswer):
            row.shadows[record.version] = answer
        else:
            answer.slices = self._bins(record)
            row.live = answer

    def _bins(self, prediction: Prediction) -> tuple[int, ...]:
        reference = self._references.reference(prediction.version)
        if reference is None:
            return ()
        return tuple(
            int(bin_values([prediction.features.get(p.name)], p)[0])
            for p in (reference.profile[i] for i in _looked_at(reference))
        )

    def _side(self, rows: dict[str, _Row], version: str, champion: str) -> Side:
        answered = [(i, r.live) for i, r in rows.items() if r.live is not None]
        live = {i: a for i, a in answered if a.version == version and not a.part.failed}
        shadows = [r.shadows[version] for r in rows.values() if version in r.shadows]
        failed = sum(not answer.scores for answer in shadows)
        if version != champion:
            failed += sum(answer.part.failed for _, answer in answered)
        outcomes = [self._outcome_of(identity) for identity in live]
        paid = [o.value for o in outcomes if o is not None and o.value is not None]
        took = [answer.part.took_us for answer in live.values() if answer.part.took_us > 0]
        return Side(
            version=version,
            rows=len(live) + sum(bool(answer.scores) for answer in shadows),
            failed=failed,
            live=len(live),
            took_us=(float(np.quantile(took, 0.5)), float(np.quantile(took, 0.95))) if took else None,
            value_mean=math.fsum(paid) / len(paid) if paid else None,
        )

    def _pairs(self, rows: dict[str, _Row], champion: Reference, challenger: Reference) -> list[_Pair]:
        """Return the rows that both answered and whose label both know, by time and id."""
        found: list[tuple[str, _Row, tuple[float, ...], tuple[float, ...], float, float]] = []
        for identity, row in rows.items():
            outcome = self._outcome_of(identity)
            if row.live is None or outcome is None:
                continue
            said = {row.live.version: row.live.scores} | {v: a.scores for v, a in row.shadows.items()}
            ours, theirs = said.get(champion.version), said.get(challenger.version)
            labels = champion.label_value(outcome.label), challenger.label_value(outcome.label)
            if ours and theirs and labels[0] is not None and labels[1] is not None:
                found.append((identity, row, ours, theirs, labels[0], labels[1]))
        if not found:
            return []
        losses = [
            reference.losses(np.array([f[4 + i] for f in found]), np.array([f[2 + i] for f in found]))
            for i, reference in enumerate((champion, challenger))
        ]
        figures = 0.5 + (losses[1] - losses[0]) / 2
        made = []
        for (identity, row, *_), figure in zip(found, figures.tolist(), strict=True):
            assert row.live is not None
            made.append(_Pair(row.live.time, identity, figure, row.live.slices))
        return sorted(made, key=lambda p: (p.time, p.id))


@dataclass(frozen=True, slots=True)
class _Pair:
    time: datetime
    id: str
    figure: float
    slices: tuple[int, ...]


def _looked_at(reference: Reference) -> list[int]:
    """Return the places of the categories that are few enough to be looked at one by one."""
    few = [
        i
        for i, p in enumerate(reference.profile)
        if p.kind == "category" and 1 < len(p.values) <= _MOST_VALUES
    ]
    return few[:_MOST_COLUMNS]


def _tallies(pairs: Sequence[_Pair], length: timedelta) -> tuple[Tally, ...]:
    """Sum pairs up by windows of event time, oldest first."""
    windows: defaultdict[int, list[float]] = defaultdict(list)
    for pair in pairs:
        windows[(pair.time - _EPOCH) // length].append(pair.figure)
    return tuple(
        Tally(
            labelled=len(figures),
            loss_sum=math.fsum(figures),
            loss_squares=math.fsum(figure * figure for figure in figures),
        )
        for _, figures in sorted(windows.items())
    )


def _slices(pairs: Sequence[_Pair], reference: Reference, length: timedelta) -> tuple[SlicePairs, ...]:
    found = []
    for place, column in enumerate(_looked_at(reference)):
        by_value: defaultdict[int, list[_Pair]] = defaultdict(list)
        for pair in pairs:
            if len(pair.slices) > place and pair.slices[place] != MISSING:
                by_value[pair.slices[place]].append(pair)
        profile = reference.profile[column]
        found += [
            SlicePairs(column=profile.name, value=profile.values[code], pairs=_tallies(chosen, length))
            for code, chosen in sorted(by_value.items())
            if len(chosen) >= _FEWEST and code < len(profile.values)
        ]
    return tuple(found)
