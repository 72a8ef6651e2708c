"""What is expected of one model version, by labelled rows that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raywf.core.metrics import Array, bounded_loss
from raywf.core.records import ColumnProfile
from raywf.monitor.attribution import BinLosses, bin_losses
from raywf.monitor.drift import Codes
from raywf.monitor.estimate import ClassEstimator, Estimate, fit_class_estimator
from raywf.monitor.estimate_loss import LossEstimator, fit_bounded_estimator, fit_loss_estimator
from raywf.monitor.histogram import Histogram, answered

MOST_ROWS = 5_000  # of a window; more make its estimate no surer than the model behind it
LEAST_ROWS = 20

Estimator = ClassEstimator | LossEstimator


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """Estimators of the workflow's metric and of the mean bounded loss, and the losses by bin at promotion.

    An estimator is None where nothing can be estimated. `answers` and `labels` say how the rows' were spread;
    None of too few rows, and of versions from before this was kept.
    """

    metric: ClassEstimator | LossEstimator | None
    loss: ClassEstimator | LossEstimator | None
    by_bin: BinLosses
    answers: Histogram | None = None
    labels: Histogram | None = None

    def estimate(self, codes: Codes, scores: Array) -> tuple[Estimate | None, Estimate | None]:
        """Return what is to be expected of rows: the metric and the loss; None of fewer than 20 rows.

        `codes` are the features' bins, shape ``(n_rows, n_features)``, `scores` have ``(n_rows, k)``.
        """
        if len(scores) < LEAST_ROWS:
            return None, None
        return _estimate(self.metric, codes, scores), _estimate(self.loss, codes, scores)


def fit_expectations(
    metric: str,
    labels: Array,
    scores: Array,
    codes: Codes,
    *,
    profile: Sequence[ColumnProfile],
    threshold: float,
    scale: float | None,
    quantile: float | None = None,
) -> Expectations:
    """Return what is expected by labelled rows that the model was not fitted on.

    `scale` is the loss scale of a regression, None for classes, `quantile` what it is judged by; shapes are
    those of `Expectations.estimate`.
    """
    ours: Estimator | None
    loss: Estimator | None
    losses = bounded_loss(labels, scores, scale=scale, quantile=quantile)
    if scale is not None:
        ours = fit_loss_estimator(metric, labels, scores, codes)
        loss = fit_bounded_estimator(losses, scores, codes)
    else:
        ours = fit_class_estimator(metric, labels, scores, threshold=threshold)
        known = ours or fit_class_estimator("brier", labels, scores)
        loss = known and replace(known, metric="brier")
    return Expectations(
        metric=ours,
        loss=loss,
        by_bin=bin_losses(codes, losses, profile),
        answers=Histogram.of(answered(scores)),
        labels=Histogram.of(labels),
    )


def _estimate(estimator: Estimator | None, codes: Codes, scores: Array) -> Estimate | None:
    if estimator is None:
        return None
    if isinstance(estimator, LossEstimator):
        return estimator.estimate(codes, scores)
    if scores.shape[1] != _columns(estimator):  # another version's predictions under this one's name
        return None
    return estimator.estimate(scores)


def _columns(estimator: ClassEstimator) -> int:
    classes = len(estimator.theta) - 1
    return 1 if classes == 2 else classes
