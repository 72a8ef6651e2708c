"""The paired comparison that decides whether a challenger may replace the champion."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from raywf.core.metrics import Metric, bounded_loss
from raywf.core.records import BASELINE, Check, Verdict
from raywf.core.settings import GateSettings

_RESAMPLES = 400
_SEED = 20_130_101
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateBlock:
    """The rows that decide: labels ``(n_rows,)``, both models' scores ``(n_rows, k)``.

    `against` names what the challenger is compared with: a version, or "baseline" for the training prior.
    `thresholds` are the challenger's and the champion's; `groups` are the rows', for a metric of groups.
    """

    labels: Array
    challenger: Array
    champion: Array
    against: str
    loss_scale: float | None = None
    thresholds: tuple[float, float] = (0.5, 0.5)
    groups: NDArray[np.int64] | None = None

    def losses(self, metric: Metric) -> tuple[float, float]:
        """Return the challenger's and the champion's loss."""
        ours, theirs = self.thresholds
        return (
            metric.loss(self.labels, self.challenger, groups=self.groups, threshold=ours),
            metric.loss(self.labels, self.champion, groups=self.groups, threshold=theirs),
        )

    def resampled(self, rng: np.random.Generator) -> GateBlock:
        """Return a bootstrap sample: of rows, or of whole groups, each of which is then a group anew."""
        groups = None
        if self.groups is None:
            index = rng.integers(0, len(self.labels), len(self.labels))
        else:
            order = np.argsort(self.groups, kind="stable")
            parts = np.split(order, np.flatnonzero(np.diff(self.groups[order])) + 1)
            drawn = [parts[i] for i in rng.integers(0, len(parts), len(parts))]
            index = np.concatenate(drawn)
            groups = np.repeat(np.arange(len(drawn)), [len(part) for part in drawn])
        return replace(
            self,
            labels=self.labels[index],
            challenger=self.challenger[index],
            champion=self.champion[index],
            groups=groups,
        )


def judge(block: GateBlock, metric: Metric, settings: GateSettings) -> Verdict:
    """Compare the two models on the block.

    The metric's gain is estimated with a paired percentile bootstrap (Efron and Tibshirani, 1993, ch. 13):
    both models are scored on the same resampled rows. Accept when the gain's lower bound is above 0, or,
    where the rows cannot resolve it, when it is above ``-margin`` (a share of the champion's score) and the
    gain itself is not negative. Reject when the upper bound is below 0, or the bounded loss (of the metric's
    quantile) is surely higher by more than the margin. Otherwise undecided.
    """
    rows = len(block.labels)
    ours, theirs = _scores(block, metric)
    loss = _bounded(block, metric, block.challenger) if rows else np.zeros(0)
    mean_loss = float(loss.mean()) if rows else float("nan")
    if rows < settings.min_rows or not np.isfinite([ours, theirs]).all():
        reason = f"{rows} fresh labelled rows, the gate needs {settings.min_rows} with every class among them"
        return _verdict(block, metric, "undecided", (), reason=reason, scores=(ours, theirs, mean_loss))
    first = block.against == BASELINE  # a first model has to be better, not only no worse
    margin = 0.0 if first else settings.margin * abs(theirs)
    gain = _gain_check(block, metric, settings, margin=margin)
    harm = _loss_check(block, metric, settings)
    better = f"{metric.name} {ours:.4f} against {theirs:.4f} on {rows} rows"
    interval = f"gain {gain.figure:+.4f} in [{gain.low:+.4f}, {gain.high:+.4f}]"
    if not harm.passed:
        outcome, reason = "reject", f"{better}, but the loss rises by at least {harm.low:.4f}"
    elif gain.high < 0:
        outcome, reason = "reject", f"{better}: worse, {interval}"
    elif gain.low > 0:
        outcome, reason = "accept", f"{better}: better, {interval}"
    elif gain.passed:
        outcome, reason = "accept", f"{better}: no worse and newer, {interval}"
    else:
        outcome, reason = "undecided", f"{better}: not shown, {interval}"
    return _verdict(block, metric, outcome, (gain, harm), reason=reason, scores=(ours, theirs, mean_loss))


def _bounded(block: GateBlock, metric: Metric, scores: Array) -> Array:
    return bounded_loss(block.labels, scores, scale=block.loss_scale, quantile=metric.quantile)


def _scores(block: GateBlock, metric: Metric) -> tuple[float, float]:
    if not len(block.labels):
        return float("nan"), float("nan")  # not every metric has a value of no rows
    ours, theirs = block.losses(metric)
    return (-ours, -theirs) if metric.greater_is_better else (ours, theirs)


def _gain_check(block: GateBlock, metric: Metric, settings: GateSettings, *, margin: float) -> Check:
    rng = np.random.default_rng(_SEED)
    samples = np.asarray([block.resampled(rng).losses(metric) for _ in range(_RESAMPLES)])
    low, high = np.nanquantile(samples[:, 1] - samples[:, 0], [settings.alpha, 1 - settings.alpha])
    ours, theirs = block.losses(metric)
    figure = theirs - ours
    return Check(
        name=f"{metric.name} gain",
        figure=figure,
        low=float(low),
        high=float(high),
        bound=-margin,
        passed=bool(low > 0 or (margin > 0 and low > -margin and figure >= 0)),
        note="paired bootstrap",
    )


def _loss_check(block: GateBlock, metric: Metric, settings: GateSettings) -> Check:
    rise = _bounded(block, metric, block.challenger) - _bounded(block, metric, block.champion)
    error = float(rise.std() / np.sqrt(len(rise)))
    mean = float(rise.mean())
    # one-sided normal bounds on a mean of paired differences; rows are many by the time this is asked
    reach = float(ndtri(1 - settings.alpha)) * error
    bound = settings.margin
    return Check(
        name="bounded loss rise",
        figure=mean,
        low=mean - reach,
        high=mean + reach,
        bound=bound,
        passed=bool(mean - reach <= bound),
        note="paired mean",
    )


def _verdict(
    block: GateBlock,
    metric: Metric,
    outcome: str,
    checks: tuple[Check, ...],
    *,
    reason: str,
    scores: tuple[float, float, float],
) -> Verdict:
    return Verdict(
        outcome=outcome,  # type: ignore[arg-type]
        rows=len(block.labels),
        metric=metric.name,
        challenger=scores[0],
        champion=scores[1],
        against=block.against,
        checks=checks,
        loss=scores[2],
        reason=reason,
    )
