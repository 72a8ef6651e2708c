"""Champion and challengers on the same rows: what the log says of the newest rollout's present step.

As the fold of windows it is a function of the set of records, whatever their order: of the rows of the newest
step, and where those are many of the ones whose id's hash is low enough.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.rollout import Duel, Part, RolloutStep, ShadowAnswer, Side, SlicePairs, Tally
from raywf.core.service import Service
from raywf.monitor.drift import as_text
from raywf.monitor.earned import Values, earned
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.outcomes.lines import Entry, line_digest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_ROWS = 20_000
_MOST_COLUMNS, _MOST_VALUES, _LONGEST = 6, 12, 60  # categories whose values are looked at one by one
_FEWEST = 20  # pairs of a slice
_WINDOWS = 8  # of a step that lasts as long as it has to

Outcomes = Callable[[str], Outcome | None]


@dataclass(slots=True)
class _Answer:
    """What one version said to a row; `texts` are the row's short texts by column."""

    version: str
    time: datetime
    scores: tuple[float, ...]
    part: Part
    rank: bytes
    texts: dict[str, str]


@dataclass(slots=True)
class _Row:
    """A row's live answer, once it is known, and its shadows' by version."""

    live: _Answer | None
    shadows: dict[str, _Answer]


class DuelFold:
    """Keeps rows of the newest rollout's newest step; not safe for threads.

    `outcome_of` gives the outcome of a prediction's id that counts at present, or None; `values` are the
    workflow's `monitor.values`. Of more than `most_rows` rows it keeps one in two, four and so on.
    """

    def __init__(
        self,
        references: ReferenceSource,
        outcome_of: Outcomes,
        *,
        values: Values | None = None,
        most_rows: int = _MOST_ROWS,
    ) -> None:
        self._references, self._outcome_of, self._most = references, outcome_of, most_rows
        self._values = values or {}
        self._step = ""
        self._rows: dict[str, _Row] = {}
        self._halvings = 0

    @property
    def step(self) -> str:
        """The tag of the step whose rows are kept; records of earlier ones are passed over."""
        return self._step

    @property
    def ids(self) -> list[str]:
        """The ids of the rows that are kept."""
        return list(self._rows)

    def data(self) -> dict[str, Any]:
        """Return all that it keeps as plain JSON values."""
        rows = [
            (one, row.live and _answer_data(row.live), [_answer_data(a) for a in row.shadows.values()])
            for one, row in self._rows.items()
        ]
        return {"step": self._step, "halvings": self._halvings, "rows": rows}

    def restore(self, data: dict[str, Any]) -> None:
        """Go on from what `data` returned.

        Raises:
            ValueError, KeyError, TypeError: if it is nothing of the kind.
        """
        rows = {}
        for one, live, shadows in data["rows"]:
            answers = [_answer(answer, data["step"]) for answer in shadows]
            told = None if live is None else _answer(live, data["step"])
            rows[one] = _Row(told, {a.version: a for a in answers})
        self._step, self._halvings, self._rows = data["step"], data["halvings"], rows

    def update(self, records: Iterable[Entry]) -> None:
        """Take in records, in any order and grouping, seen before or not."""
        for record in records:
            if isinstance(record, Outcome | Service) or record.part is None:
                continue
            if record.part.step > self._step:
                self._step, self._rows, self._halvings = record.part.step, {}, 0
            if record.part.step == self._step and self._is_kept(record.id):
                self._take(record, record.part)
                while len(self._rows) > self._most:
                    self._halvings += 1
                    self._rows = {i: row for i, row in self._rows.items() if self._is_kept(i)}

    def duels(self, step: RolloutStep, bake: timedelta, now: datetime) -> tuple[Duel, ...]:
        """Return each challenger beside the champion by the rows of a step, which may be none.

        Pairs are of rows that are as old at `now` (event time) as both versions wanted rows to be, so that
        labels which come soon do not decide alone.
        """
        rows = self._rows if step.tag == self._step else {}
        champion = self._references.reference(step.champion)
        found = []
        for name in step.challengers:
            challenger = self._references.reference(name)
            pairs: list[_Pair] = []
            if champion is not None and challenger is not None:
                aged = now - timedelta(seconds=max(champion.maturity_s, challenger.maturity_s))
                ours = dataclasses.replace(champion, quantile=challenger.quantile)
                theirs = dataclasses.replace(challenger, loss_scale=champion.loss_scale)
                pairs = self._pairs(rows, ours, theirs, until=aged)
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

    def _is_kept(self, identity: str) -> bool:
        if not self._halvings:
            return True
        digest = hashlib.blake2b(identity.encode(errors="surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> (64 - self._halvings) == 0

    def _take(self, record: Prediction | ShadowAnswer, part: Part) -> None:
        row = self._rows.setdefault(record.id, _Row(None, {}))
        rank = line_digest(record)
        shadow = isinstance(record, ShadowAnswer)
        former = row.shadows.get(record.version) if shadow else row.live
        if former is not None and (former.time, former.rank) <= (record.time, rank):
            return
        answer = _Answer(record.version, record.time, record.scores, part, rank, {})
        if isinstance(record, ShadowAnswer):
            row.shadows[record.version] = answer
        else:
            answer.texts = _texts(record)
            row.live = answer

    def _side(self, rows: dict[str, _Row], version: str, champion: str) -> Side:
        answered = [(i, r.live) for i, r in rows.items() if r.live is not None]
        live = {i: a for i, a in answered if a.version == version and not a.part.failed}
        shadows = [r.shadows[version] for r in rows.values() if version in r.shadows]
        failed = sum(not answer.scores for answer in shadows)
        if version != champion:
            failed += sum(answer.part.failed for _, answer in answered)
        paid = self._paid(live, self._references.reference(version))
        took = [answer.part.took_us for answer in live.values() if answer.part.took_us > 0]
        return Side(
            version=version,
            rows=len(live) + sum(bool(answer.scores) for answer in shadows),
            failed=failed,
            live=len(live),
            one_in=2**self._halvings,
            took_us=(float(np.quantile(took, 0.5)), float(np.quantile(took, 0.95))) if took else None,
            value_mean=math.fsum(paid) / len(paid) if paid else None,
        )

    def _paid(self, live: dict[str, _Answer], of: Reference | None) -> list[float]:
        """Return what answers earned: what came with the outcome, else by `values`."""
        paid, labels, scores = [], [], []
        for identity, answer in live.items():
            outcome = self._outcome_of(identity)
            if outcome is None:
                continue
            if outcome.value is not None:
                paid.append(outcome.value)
            elif self._values and of is not None and of.classes and len(answer.scores) == of.width:
                label = of.label_value(outcome.label)
                if label is not None:
                    labels.append(label)
                    scores.append(answer.scores)
        if labels and of is not None:
            said, was = np.array(scores), np.array(labels)
            told = earned(was, said, classes=of.classes, threshold=of.threshold, values=self._values)
            paid += told.tolist()
        return paid

    def _pairs(
        self, rows: dict[str, _Row], champion: Reference, challenger: Reference, *, until: datetime
    ) -> list[_Pair]:
        """Return the rows that both answered and whose label both know, by time and id."""
        found: list[tuple[str, _Answer, tuple[float, ...], tuple[float, ...], float, float]] = []
        for identity, row in rows.items():
            live, outcome = row.live, self._outcome_of(identity)
            if live is None or outcome is None or live.time > until:
                continue
            said = {live.version: live.scores} | {v: a.scores for v, a in row.shadows.items()}
            ours, theirs = said.get(champion.version), said.get(challenger.version)
            labels = champion.label_value(outcome.label), challenger.label_value(outcome.label)
            if ours and theirs and labels[0] is not None and labels[1] is not None:
                found.append((identity, live, ours, theirs, labels[0], labels[1]))
        if not found:
            return []
        losses = [
            reference.losses(np.array([f[4 + i] for f in found]), np.array([f[2 + i] for f in found]))
            for i, reference in enumerate((champion, challenger))
        ]
        figures = (0.5 + (losses[1] - losses[0]) / 2).tolist()
        made = [
            _Pair(live.time, identity, figure, live.texts)
            for (identity, live, *_), figure in zip(found, figures, strict=True)
        ]
        return sorted(made, key=lambda p: (p.time, p.id))


@dataclass(frozen=True, slots=True)
class _Pair:
    time: datetime
    id: str
    figure: float
    texts: dict[str, str]


def _answer_data(answer: _Answer) -> list[Any]:
    part = answer.part.took_us, answer.part.failed
    return [answer.version, answer.time.isoformat(), answer.scores, part, answer.rank.hex(), answer.texts]


def _answer(data: list[Any], step: str) -> _Answer:
    version, time, scores, part, rank, texts = data
    at, said = datetime.fromisoformat(time), Part(step, *part)
    return _Answer(version, at, tuple(scores), said, bytes.fromhex(rank), texts)


def _texts(prediction: Prediction) -> dict[str, str]:
    """Return the row's texts and flags that are short enough to be the names of slices."""
    values = prediction.features.items()
    return {k: as_text(v) for k, v in values if isinstance(v, (str, bool)) and len(str(v)) <= _LONGEST}


def _looked_at(reference: Reference) -> list[ColumnProfile]:
    """Return the categories that are few enough to be looked at one by one."""
    few = [p for p in reference.profile if p.kind == "category" and 1 < len(p.values) <= _MOST_VALUES]
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
    """Return the pairs of each value of each column that is looked at; none of a value with few of them."""
    found = []
    for profile in _looked_at(reference):
        by_value: defaultdict[str, list[_Pair]] = defaultdict(list)
        for pair in pairs:
            by_value[pair.texts.get(profile.name, "")].append(pair)
        for value in profile.values:
            chosen = by_value[value] if len(by_value[value]) >= _FEWEST else []
            found.append(SlicePairs(column=profile.name, value=value, pairs=_tallies(chosen, length)))
    return tuple(found)
