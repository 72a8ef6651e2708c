"""The leaderboard of a sweep, as `raywf run`, `search` and `explain` print it."""

from __future__ import annotations

from collections.abc import Sequence

from raywf.cli.options import table
from raywf.core.explanation import Standing
from raywf.core.records import Sweep

_MOST_SPENT = 0.75
SHOWN = 12  # of a list's lines, and every member
_HEADERS = ("trial", "status", "folds", "+-", "behind", "+-", "weight", "row us", "seconds")


def leaderboard(sweep: Sweep) -> list[str]:
    """Return a title and a line for each of the best; margins are of 95 % intervals over the folds."""
    from raywf.search.explain.standings import rank_trials

    return draw(sweep, rank_trials(sweep))


def draw(sweep: Sweep, standings: Sequence[Standing]) -> list[str]:
    """Return the lines of a leaderboard that has been ranked: the first twelve, and every member."""
    shown = [s for place, s in enumerate(standings) if place < SHOWN or s.weight]
    rows = [
        (
            s.trial_id,
            s.status,
            s.folds,
            s.score,
            _number(s.margin),
            _number(s.behind),
            _number(s.behind_margin),
            f"{s.weight:.2f}" if s.weight else "slow" if s.is_slow else "",
            f"{s.row_us:.0f}",
            f"{s.seconds:.1f}",
        )
        for s in shown
    ]
    title = f"sweep {sweep.id}: {sweep.metric} {sweep.score:.4f} out of fold, {sweep.spent_s:.0f} s"
    headers = [*_HEADERS[:3], sweep.metric, *_HEADERS[3:]]
    left = len(standings) - len(shown)
    more = f"{left} more trials; " if left else ""
    slow = "; slow: alone above search.row_ms" if any(s.is_slow for s in shown) else ""
    foot = f"{more}behind: the best, on the same folds; +-: half a 95 % interval{slow}"
    return [title, *table(headers, rows), foot, *_failures(sweep)]


def _failures(sweep: Sweep) -> list[str]:
    """Return a line a reason why trials failed, with the trials."""
    failed: dict[str, list[str]] = {}
    for trial in sweep.trials:
        if trial.error:
            failed.setdefault(trial.error, []).append(trial.id)
    return [
        f"failed: {ids[0]}{f' and {len(ids) - 1} more' if ids[1:] else ''}: {error}"
        for error, ids in failed.items()
    ]


def left_over(sweep: Sweep, trials: int) -> list[str]:
    """Return a line if a search ended with much of its time left since `trials` were all that it may run."""
    is_spent = sweep.spent_s > _MOST_SPENT * sweep.budget_s
    if sweep.effort != "full" or len(sweep.trials) < trials or is_spent:
        return []
    took = f"{sweep.spent_s:.0f} of {sweep.budget_s:.0f} s"
    return [f"all {trials} trials ran in {took}; with a higher search.trials it would have gone on"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
