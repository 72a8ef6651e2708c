"""Were several of the last windows bad? The simple alternative to the sequence of `raywf.policy.loss`."""

from __future__ import annotations

from raywf.core.clock import format_time
from raywf.policy.loss import level_of, mature_windows
from raywf.policy.question import Question, Trigger

WINDOWS = "windows"


def offer_windows(asked: Question) -> Trigger | None:
    """Return whether enough of the last windows had a loss above level and tolerance; None if not set.

    A plain rule, with no bound on its false alarms: each window's mean is taken as it is. The windows are
    those that `judge_loss` judges, once they have ended, and the last ones must have `min_labelled` labels
    between them.
    """
    rule, champion = asked.settings.windows, asked.history.champion
    if rule is None or champion is None:
        return None
    windows = mature_windows(asked.evidence, champion.version, since=asked.history.last_change, now=asked.now)
    ended = [e for e in windows if e.end <= asked.now]  # what a few rows begin with may look bad
    level, _, windows = level_of(ended, champion, min_labelled=asked.min_labelled)
    last = windows[-rule.of :]
    rows = sum(e.labelled for e in last)
    if level is None or not last or rows < asked.min_labelled:
        return Trigger(
            cause=WINDOWS, words=f"the last {len(last)} windows have {rows} of {asked.min_labelled} labels"
        )
    limit = level + asked.settings.tolerance
    bad = sum(e.loss_sum > limit * e.labelled for e in last)
    return Trigger(
        cause=WINDOWS,
        words=(
            f"{bad} of the last {len(last)} windows ({rows:,} labelled rows) have a mean loss above "
            f"{limit:.4f}: {level:.4f} at promotion and tolerance {asked.settings.tolerance:g}; "
            f"{rule.bad} of {rule.of} are worth a retraining"
        ),
        due=bad >= rule.bad,
        window=format_time(last[-1].end),
    )
