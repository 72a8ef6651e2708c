"""A rollout's step and what it showed, to the next: go on, hold, make the challenger champion, or go back.

Everything is judged by bounds that hold however often one looks: the paired difference of the losses by a
confidence sequence, failures by a likelihood ratio. Each step is judged by its own rows, since the traffic's
mix moves with time; the chance of a wrong verdict is shared out among the steps, or a shadow's challengers,
and among failures, the loss and its slices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from raywf.core.rollout import Duel, RolloutStep, SlicePairs, Stage, Tally
from raywf.core.serving_settings import RolloutSettings
from raywf.policy.sequence import confidence_sequence

_TIMES = (2.0, 5.0, 10.0, 50.0)  # the rates of failure that the limit is set against, as its multiples
_FLOOR_US = 1000.0  # below this a row's time is no reason to go back
_FEWEST_TIMES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What comes next for the challenger `version`; with the same stage and share nothing does yet."""

    stage: Stage
    share: float
    version: str
    reasons: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Harm:
    """Bounds on the challenger's mean loss less the champion's, and how many rows they rest on."""

    rows: int
    lower: float
    upper: float


def judge_rollout(
    step: RolloutStep,
    duels: Sequence[Duel],
    settings: RolloutSettings,
    *,
    now: datetime,
    growth_mb: float | None = None,
) -> Move:
    """Return the move after a step at `now` (event time), by its challengers' duels.

    `growth_mb` is the most that a replica's memory has grown since the rollout began. Of several challengers,
    which a shadow has, the one with the lowest upper bound is made champion.
    """
    if step.paused:
        return _hold(step, step.challengers[0], "paused")
    alpha = settings.alpha / (len(settings.steps) if step.mode == "canary" else len(duels))
    moves = [_judge(step, duel, settings, now=now, growth_mb=growth_mb, alpha=alpha / 3) for duel in duels]
    for stage in ("promoted", "rolled_back"):
        found = [move for move in moves if move.stage == stage]
        if found and (stage == "promoted" or len(found) == len(moves)):
            return min(found, key=lambda move: move.figures.get("upper", 1.0))
    return next((m for m in moves if m.stage not in {"promoted", "rolled_back"}), moves[0])


def measure_harm(pairs: Sequence[Tally], *, alpha: float) -> Harm:
    """Return bounds on how much worse the challenger is; each is exceeded with a chance of alpha at most."""
    bounds = confidence_sequence(pairs, alpha=min(0.999, 2 * alpha))
    if not bounds:
        return Harm(0, -1.0, 1.0)
    return Harm(bounds[-1].rows, 2 * bounds[-1].lower - 1, 2 * bounds[-1].upper - 1)


def fails_too_often(failed: int, rows: int, limit: float, *, alpha: float) -> bool:
    """Whether more than a share of `limit` of the answers fails, beyond a chance of `alpha`.

    A likelihood ratio against rates above the limit, mixed evenly: it exceeds ``1 / alpha`` with a chance of
    at most alpha while the rate is within the limit, whenever one looks (Ville's inequality).

    >>> fails_too_often(10, 1000, 0.001, alpha=0.05), fails_too_often(2, 1000, 0.001, alpha=0.05)
    (True, False)
    """
    rates = [min(0.9, times * limit) for times in _TIMES]
    logs = [
        failed * math.log(rate / limit) + (rows - failed) * math.log((1 - rate) / (1 - limit))
        for rate in rates
    ]
    top = max(logs)
    mixed = top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))
    return mixed >= math.log(1 / alpha)


def _judge(
    step: RolloutStep,
    duel: Duel,
    settings: RolloutSettings,
    *,
    now: datetime,
    growth_mb: float | None,
    alpha: float,
) -> Move:
    """Judge one challenger; failures, the loss and its slices each err with a chance of alpha at most."""
    harm = measure_harm(duel.pairs, alpha=alpha)
    figures = _figures(duel, harm, growth_mb)
    version = duel.challenger.version
    wrong = _wrong(duel, harm, settings, alpha=alpha, growth_mb=growth_mb)
    if wrong:
        stage: Stage = "rolled_back"
        return Move(stage=stage, share=0.0, version=version, reasons=wrong, figures=figures)
    side, labelled = duel.challenger, duel.labelled
    seen = side.one_in * (side.rows if step.mode == "shadow" else side.live)
    if step.mode == "watch":
        return _watched(step, version, settings, figures, now=now)
    waits = []
    if now < step.time + settings.bake:
        waits.append(f"baking for {settings.bake} since {step.time:%Y-%m-%d %H:%M:%S}")
    if seen < settings.min_rows:
        waits.append(f"{seen} of {settings.min_rows} rows answered")
    if labelled < settings.min_labelled:
        waits.append(f"{labelled} of {settings.min_labelled} rows labelled")
    if not waits:
        move = _onward(step, version, harm, settings, figures)
        if move is not None:
            return move
        waits.append(_undecided(harm, settings))
    if step.mode != "ab" and now >= step.time + settings.patience:
        reasons = (f"nothing was decided within {settings.patience}", *waits)
        return Move(stage="aborted", share=0.0, version=version, reasons=reasons, figures=figures)
    return _hold(step, version, *waits, figures=figures)


def _watched(
    step: RolloutStep, version: str, settings: RolloutSettings, figures: dict[str, Any], *, now: datetime
) -> Move:
    """Return what follows for a new champion that did no harm so far."""
    since = f"since {step.time:%Y-%m-%d %H:%M:%S}"
    if now < step.time + settings.watch:
        return _hold(step, version, f"watched for {settings.watch} {since}", figures=figures)
    reason = f"no harm within {settings.watch} {since}, {figures['labelled']} rows labelled"
    return Move(stage="kept", share=0.0, version=version, reasons=(reason,), figures=figures)


def _onward(
    step: RolloutStep, version: str, harm: Harm, settings: RolloutSettings, figures: dict[str, Any]
) -> Move | None:
    """Return the next step of one that did no harm and has lasted long enough; None if it is not due."""
    if step.mode == "ab":
        return None
    later = [share for share in settings.steps if share > step.share] if step.mode == "canary" else []
    if later:
        differs = f"the loss differs by {harm.lower:+.4f} to {harm.upper:+.4f}"
        reason = f"no harm at {step.share:.0%} of the traffic: {differs}"
        return Move(stage=step.stage, share=later[0], version=version, reasons=(reason,), figures=figures)
    bound = settings.margin if settings.require == "not_worse" else 0.0
    if harm.upper > bound or (settings.require == "better" and harm.upper >= 0):
        return None
    found = "better" if harm.upper < 0 else f"not worse by more than {settings.margin:g}"
    reason = f"shown to be {found}: the loss differs by at most {harm.upper:+.4f} ({harm.rows} rows, paired)"
    return Move(stage="promoted", share=1.0, version=version, reasons=(reason,), figures=figures)


def _wrong(
    duel: Duel, harm: Harm, settings: RolloutSettings, *, alpha: float, growth_mb: float | None
) -> tuple[str, ...]:
    """Return why the challenger must not go on, if it must not."""
    found = []
    ours, theirs = duel.champion, duel.challenger
    asked = theirs.rows + theirs.failed
    if asked and fails_too_often(theirs.failed, asked, settings.max_failed, alpha=alpha):
        found.append(
            f"{theirs.failed} of {asked} answers failed, above {settings.max_failed:.2%} beyond doubt"
        )
    if ours.took_us and theirs.took_us and min(ours.live or ours.rows, theirs.live) >= _FEWEST_TIMES:
        limit = settings.max_slower * max(ours.took_us[1], _FLOOR_US)
        if theirs.took_us[1] > limit:
            found.append(
                f"a row takes {theirs.took_us[1] / 1000:.1f} ms at the 95th percentile, "
                f"the champion's {ours.took_us[1] / 1000:.1f} ms"
            )
    if growth_mb is not None and growth_mb > settings.max_growth_mb:
        found.append(
            f"a replica's memory grew by {growth_mb:.0f} MB, more than {settings.max_growth_mb:g} MB"
        )
    if harm.lower > 0:
        found.append(f"worse: the loss is higher by at least {harm.lower:.4f} ({harm.rows} rows, paired)")
    worst = _worst_slice(duel.slices, alpha=alpha)
    if worst is not None and worst[1].lower > settings.slice_margin:
        one, its = worst
        found.append(
            f"worse where {one.column} is {one.value}: the loss is higher by at least {its.lower:.4f} "
            f"({its.rows} rows, paired)"
        )
    return tuple(found)


def _worst_slice(slices: Sequence[SlicePairs], *, alpha: float) -> tuple[SlicePairs, Harm] | None:
    """Return the slice with the highest lower bound; all, those without pairs too, share the alpha."""
    harms = [(one, measure_harm(one.pairs, alpha=alpha / len(slices))) for one in slices if one.pairs]
    return max(harms, key=lambda found: found[1].lower, default=None)


def _undecided(harm: Harm, settings: RolloutSettings) -> str:
    wanted = "below 0" if settings.require == "better" else f"at most {settings.margin:g}"
    return (
        f"the loss differs by {harm.lower:+.4f} to {harm.upper:+.4f}, wanted is {wanted} ({harm.rows} rows)"
    )


def _hold(step: RolloutStep, version: str, *reasons: str, figures: dict[str, Any] | None = None) -> Move:
    return Move(stage=step.stage, share=step.share, version=version, reasons=reasons, figures=figures or {})


def _figures(duel: Duel, harm: Harm, growth_mb: float | None) -> dict[str, Any]:
    return {
        "version": duel.challenger.version,
        "rows": duel.challenger.rows,
        "live": duel.challenger.live,
        "failed": duel.challenger.failed,
        "labelled": duel.labelled,
        "lower": round(harm.lower, 6),
        "upper": round(harm.upper, 6),
        "took_us": duel.challenger.took_us,
        "champion_took_us": duel.champion.took_us,
        "value_mean": duel.challenger.value_mean,
        "champion_value_mean": duel.champion.value_mean,
        "growth_mb": growth_mb,
    }
