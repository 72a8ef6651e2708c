"""Have the newest rows moved away from training? A reason to look earlier, not to retrain.

What drifts may not matter to the model, and what matters may not show in a feature: drift says where to
look. Only who names it in `retrain.when` lets it have a say in a retraining.
"""

from __future__ import annotations

from raywf.core.clock import format_time
from raywf.policy.question import Question, Trigger

DRIFT = "drift"
_NEWEST = 3  # windows


def offer_drift(asked: Question) -> Trigger | None:
    """Return whether a feature's stability index is above `drift` in the newest windows; None if not set.

    These are the last three that ended since the last change and have `min_labelled` rows each, for with few
    rows the index is large by chance. A feature's index is their mean, by rows.
    """
    limit, least = asked.settings.drift, asked.min_labelled
    if limit is None or asked.history.champion is None:
        return None
    since = asked.history.last_change
    windows = [e for e in asked.windows(since=since) if e.rows >= least and e.drift][-_NEWEST:]
    sums: dict[str, tuple[float, int]] = {}
    for drift in (drift for window in windows for drift in window.drift):
        total, rows = sums.get(drift.column, (0.0, 0))
        sums[drift.column] = total + drift.psi * drift.rows, rows + drift.rows
    found = sorted(((-total / rows, name) for name, (total, rows) in sums.items() if rows))
    if not found:
        return Trigger(cause=DRIFT, words=f"no window of {least:,} rows to tell of drift by")
    index, name = -found[0][0], found[0][1]
    more = sum(-value > limit for value, _ in found) - 1
    others = f" ({more} more are above the limit)" if more > 0 else ""
    return Trigger(
        cause=DRIFT,
        words=(
            f"feature {name!r} has a stability index of {index:.3f}{others} in the last {len(windows)} "
            f"windows, of {limit:g}"
        ),
        due=index > limit,
        window=format_time(windows[-1].end),
    )
