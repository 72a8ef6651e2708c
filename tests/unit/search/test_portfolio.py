"""Which configurations are tried, and in which order."""

from __future__ import annotations

import pytest

from raywf.core.records import Member, Sweep
from raywf.core.settings import FAMILIES, SearchSettings
from raywf.search.portfolio import plan_trials, trial_id


def sweep(*members: tuple[str, dict[str, object], float]) -> Sweep:
    """Return a former sweep with these members."""
    made = tuple(
        Member(trial_id=trial_id(f, p), family=f, params=p, rounds=10, weight=w) for f, p, w in members
    )
    return Sweep(
        id="old",
        snapshot_id="s",
        metric="roc_auc",
        greater_is_better=True,
        trials=(),
        members=made,
        score=0.8,
        calibrated=False,
        budget_s=10,
        spent_s=9,
        cpu_s=9,
    )


def test_former_members_come_first() -> None:
    """The heaviest of them before the others, then the portfolio."""
    warm = sweep(("linear", {"C": 7.0}, 0.3), ("lightgbm", {"num_leaves": 99}, 0.7))
    planned = plan_trials(SearchSettings(), rows=1000, warm=warm)
    assert [t.params for t in planned[:2]] == [{"num_leaves": 99}, {"C": 7.0}]
    assert planned[2:] == plan_trials(SearchSettings(trials=10), rows=1000)


def test_former_members_of_the_portfolio_are_not_tried_twice() -> None:
    """Ids stay unique, and as many trials as without them are run."""
    second = plan_trials(SearchSettings(), rows=1000)[1]
    planned = plan_trials(SearchSettings(), rows=1000, warm=sweep((second.family, second.params, 1.0)))
    assert planned[0] == second
    assert len({t.id for t in planned}) == len(planned) == 12


def test_former_members_of_other_families_are_left_out() -> None:
    """The settings say what may be tried."""
    warm = sweep(("xgboost", {"max_depth": 2}, 1.0))
    planned = plan_trials(SearchSettings(families=("linear",)), rows=1000, warm=warm)
    assert {t.family for t in planned} == {"linear"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_configuration(family: str) -> None:
    """Each alone gives a trial."""
    assert plan_trials(SearchSettings(families=(family,)), rows=1000)  # type: ignore[arg-type]


def test_number_of_trials_is_bounded() -> None:
    """The first of the order are kept."""
    all_of_them = plan_trials(SearchSettings(), rows=1000)
    assert plan_trials(SearchSettings(trials=3), rows=1000) == all_of_them[:3]


def test_forests_are_spared_many_rows() -> None:
    """ExtraTrees are not tried on a large table."""
    planned = plan_trials(SearchSettings(), rows=1_000_000)
    assert "extratrees" not in {t.family for t in planned}


def test_id_depends_on_content_alone() -> None:
    """The order of parameters does not matter, their values do."""
    assert trial_id("linear", {"a": 1, "b": 2}) == trial_id("linear", {"b": 2, "a": 1})
    assert trial_id("linear", {"a": 1}) != trial_id("linear", {"a": 2})
