"""What the ensemble answered out of fold, made again of its members' kept scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raywf.core.errors import SearchError
from raywf.core.metrics import Groups
from raywf.core.records import Sweep
from raywf.search.calibrate import fit_calibration
from raywf.search.data import SearchData
from raywf.search.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Rows by their index in the snapshot's table, each once, with labels ``(n_rows,)`` and the ensemble's
    scores ``(n_rows, k)`` by fits that had not seen them.
    """

    index: NDArray[np.int64]
    labels: NDArray[np.float64]
    scores: NDArray[np.float64]
    groups: Groups = None

    def take(self, rows: NDArray[np.bool_]) -> Held:
        """Return some of the rows."""
        return Held(
            index=self.index[rows],
            labels=self.labels[rows],
            scores=self.scores[rows],
            groups=None if self.groups is None else self.groups[rows],
        )


def out_of_fold(data: SearchData, sweep: Sweep, ledger: Ledger) -> Held:
    """Return the ensemble's out-of-fold answers; a row of several shuffles has their mean.

    Raises:
        SearchError: if a member's folds are gone.
    """
    count = fold_count(sweep)
    folds = data.folds[:count]
    mix: NDArray[np.float64] = np.zeros(0)
    for number, member in enumerate(sweep.members):
        scores = member_scores(ledger, member.trial_id, count) * member.weight
        mix = scores if number == 0 else mix + scores
    index = np.concatenate([fold.score for fold in folds])
    labels = data.rows.y[index]
    if sweep.calibrated:
        weights = None if data.rows.weights is None else data.rows.weights[index]
        calibration = fit_calibration(labels, mix, rows=index, weights=weights)
        mix = mix if calibration is None else calibration.apply(mix)
    rows, place = np.unique(index, return_inverse=True)
    times = np.bincount(place)[:, None]
    mean = np.column_stack([np.bincount(place, weights=column) for column in mix.T]) / times
    groups = None if data.rows.groups is None else data.rows.groups[rows]
    return Held(index=rows, labels=data.rows.y[rows], scores=mean, groups=groups)


def fold_count(sweep: Sweep) -> int:
    """Return how many folds the ensemble was chosen by."""
    chosen = {m.trial_id for m in sweep.members}
    return min((len(t.fold_losses) for t in sweep.trials if t.id in chosen), default=0)


def member_scores(ledger: Ledger, trial_id: str, count: int) -> NDArray[np.float64]:
    """Return a trial's scores of its first `count` folds, one below the other.

    Raises:
        SearchError: if one is gone.
    """
    results = ledger.folds(trial_id, count)
    if not results or len(results) < count:
        raise SearchError(f"sweep {ledger.sweep_id} has {len(results)} of {count} folds of {trial_id} left")
    return np.concatenate([r.scores for r in results]).astype(np.float64)
