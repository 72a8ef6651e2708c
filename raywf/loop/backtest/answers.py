"""What a backtest answers and the labels that come to it late: the fold's records, and losses by version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.clock import from_microseconds, to_microseconds
from raywf.core.own import workflow_metric
from raywf.core.records import Evidence, Outcome, Prediction
from raywf.loop.backtest.past import Past
from raywf.loop.backtest.staged import Live, Staged
from raywf.monitor.fold import Fold
from raywf.monitor.reference import KnownReferences, Reference


@dataclass(slots=True)
class _Losses:
    """Rows of one version: when their labels are known, and losses; nan where it knows no such label."""

    known: NDArray[np.int64]
    losses: NDArray[np.float64]
    version: str


@dataclass(slots=True)
class _Waiting:
    """Rows that wait for their label."""

    rows: _Losses
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of the past as records have them; `labels` are their names, or values."""

    ids: list[str]
    times: list[datetime]
    known: NDArray[np.int64]
    labels: list[str | float]


class Answers:
    """Answers the past's rows and tells the fold of it, and of each label once it is known."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._references: dict[str, Reference] = {}
        workflow, known = past.workflow, KnownReferences(self._references)
        self._fold = Fold(workflow.monitor, known, metric=workflow_metric(workflow))
        self._waiting: list[_Waiting] = []
        self._told: list[_Losses] = []

    def know(self, reference: Reference) -> None:
        """Let a version's rows be judged."""
        self._references[reference.version] = reference

    def evidence(self, version: str) -> tuple[Evidence, ...]:
        """Return a version's windows by the labels known so far."""
        return self._fold.evidence(version)

    def answer(self, live: Live, staged: Staged | None, rows: slice) -> NDArray[np.float64]:
        """Let rows be answered by the champion, or in a rollout by their lanes.

        Returns the scores that were given, shape ``(n_rows, k)``, with a column for each class of the past.
        """
        table = self._past.table[rows]
        said = self._rows(rows, table)
        if staged is None:
            scores = live.predictor.predict_table(table)
            self._keep(live, said, np.arange(len(said.ids)), scores)
            return self._past.spell(live.predictor, scores)
        sides = (staged.champion, staged.challenger)
        ours, theirs = (side.predictor.predict_table(table) for side in sides)
        lanes = staged.lanes(said.ids, table)
        staged.see(said.ids, said.times, table, theirs=lanes, scores=(ours, theirs))
        for side, scores, chosen in zip(sides, (ours, theirs), (~lanes, lanes), strict=True):
            self._keep(side, said, np.flatnonzero(chosen), scores)
        spelt = [self._past.spell(s.predictor, found) for s, found in zip(sides, (ours, theirs), strict=True)]
        return np.where(lanes[:, None], spelt[1], spelt[0])

    def learn(self, now: datetime, staged: Staged | None) -> None:
        """Take in the labels that became known by now."""
        cut, waiting = to_microseconds(now), []
        for one in self._waiting:
            due = one.rows.known <= cut
            outcomes = [o for o, is_due in zip(one.outcomes, due, strict=True) if is_due]
            self._fold.update(outcomes)
            if staged is not None:
                staged.learn(outcomes)
            rows = one.rows
            self._told.append(_Losses(rows.known[due], rows.losses[due], rows.version))
            rest = [o for o, is_due in zip(one.outcomes, due, strict=True) if not is_due]
            if rest:
                waiting.append(_Waiting(_Losses(rows.known[~due], rows.losses[~due], rows.version), rest))
        self._waiting = waiting

    def take_losses(self, version: str) -> NDArray[np.float64]:
        """Return a version's losses whose labels came since this was last asked, in their order."""
        told = [one for one in self._told if one.version == version]
        self._told = []
        if not told:
            return np.zeros(0)
        losses, known = (np.concatenate([getattr(one, n) for one in told]) for n in ("losses", "known"))
        ordered: NDArray[np.float64] = losses[np.argsort(known, kind="stable")]
        return ordered[~np.isnan(ordered)]

    def _rows(self, rows: slice, table: pa.Table) -> _Rows:
        classes = self._past.snapshot.classes
        labels = table.column("__label").to_pylist()
        return _Rows(
            ids=[str(n) for n in range(rows.start, rows.stop)],
            times=[from_microseconds(t) for t in self._past.times[rows].tolist()],
            known=self._past.known[rows],
            labels=[classes[int(label)] for label in labels] if classes else labels,
        )

    def _keep(self, side: Live, said: _Rows, chosen: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        """Give the fold what one version answered to the chosen rows, and keep their outcomes for later."""
        if not len(chosen):
            return
        version, places = side.version.version, chosen.tolist()
        self._fold.update(
            [
                Prediction(id=said.ids[i], time=said.times[i], version=version, features={}, scores=tuple(s))
                for i, s in zip(places, scores[chosen].tolist(), strict=True)
            ]
        )
        labels = [said.labels[i] for i in places]
        known = said.known[chosen]
        outcomes = [
            Outcome(id=said.ids[i], time=from_microseconds(t), label=label)
            for i, t, label in zip(places, known.tolist(), labels, strict=True)
        ]
        losses = _losses(side.reference, labels, scores[chosen])
        self._waiting.append(_Waiting(_Losses(known, losses, version), outcomes))


def _losses(
    reference: Reference, labels: Sequence[str | float], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    values = np.array([reference.label_value(label) for label in labels], dtype=np.float64)
    losses = np.full(len(values), np.nan)
    told = ~np.isnan(values)
    losses[told] = reference.losses(values[told], scores[told])
    return losses
