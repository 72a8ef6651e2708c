"""Which parameters the better trials had."""

from __future__ import annotations

from typing import Any

from raywf.core.explanation import ParameterRange
from raywf.core.records import Sweep, Trial
from raywf.search.explain.parameters import parameter_ranges


def trial(loss: float, family: str = "lightgbm", status: str = "done", **params: Any) -> Trial:
    return Trial(id=f"{family}-{loss}", family=family, params=params, status=status, fold_losses=(loss,))


def ranges(*trials: Trial) -> tuple[ParameterRange, ...]:
    return parameter_ranges(
        Sweep(
            id="s",
            snapshot_id="x",
            metric="rmse",
            greater_is_better=False,
            trials=trials,
            members=(),
            score=0.5,
            calibrated=False,
            budget_s=1,
            spent_s=1,
            cpu_s=1,
        )
    )


def test_best_quarter_beside_all() -> None:
    """Numbers in order; what all share is left out."""
    trials = [trial(i, leaves=10 * i, rate=0.1) for i in (4, 2, 8, 1, 3, 7, 6, 5)]
    (found,) = ranges(*trials)
    assert (found.name, found.trials) == ("leaves", 8)
    assert found.values == tuple(10.0 * i for i in range(1, 9))
    assert found.best == (10.0, 20.0)


def test_flags_lists_and_unset_values_are_text() -> None:
    """After the numbers."""
    made = ranges(trial(1, a=True), trial(2, a=[8, 4]), trial(3), trial(4, a=2))
    assert [(r.name, r.values, r.best) for r in made] == [("a", (2.0, "[8, 4]", "true", "unset"), ("true",))]


def test_few_or_unfinished_trials_tell_nothing() -> None:
    """Two of a family, or stopped ones."""
    stopped = trial(3, status="stopped", a=3)
    assert ranges(trial(1, a=1), trial(2, a=2), stopped, trial(1, family="linear", C=1)) == ()
