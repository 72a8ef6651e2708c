"""Which configurations are tried, and in which order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from raywf.core.errors import SearchError
from raywf.core.records import Effort, Member, Sweep
from raywf.core.settings import FAMILIES, SearchSettings
from raywf.search.portfolio import (
    make_trial,
    neighbour,
    order_by_history,
    plan_trials,
    pool_trials,
    trial_id,
)
from raywf.search.run import SearchPlan

EFFORTS: tuple[Effort, ...] = get_args(Effort)


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
    planned = plan_trials(SearchSettings(), rows=1000, former=(warm,))
    assert [t.params for t in planned[:2]] == [{"num_leaves": 99}, {"C": 7.0}]
    assert planned[2:] == plan_trials(SearchSettings(), rows=1000)


def test_a_warm_search_tries_a_forgotten_family_again() -> None:
    """The one that was not tried for the longest, once, after the former members."""
    everything = plan_trials(SearchSettings(), rows=1000)
    boosters = tuple(t for t in everything if t.family in {"lightgbm", "xgboost", "catboost"})
    others = tuple(t for t in everything if t.family in {"linear", "extratrees"})
    member = sweep(("lightgbm", {"num_leaves": 99}, 1.0))
    newest, older = (dataclasses.replace(member, trials=t) for t in (boosters, (*boosters, *others)))
    first, second, *_ = plan_trials(SearchSettings(), rows=1000, former=(newest, older), effort="warm")
    assert (first.family, second.family) == ("lightgbm", "torch")
    settings = SearchSettings(families=("lightgbm", "linear"))
    _, second, *_ = plan_trials(settings, rows=1000, former=(newest, older), effort="warm")
    assert second.family == "linear"


def test_former_members_of_the_portfolio_are_not_tried_twice() -> None:
    """Ids stay unique, and as many trials as without them are run."""
    everything = plan_trials(SearchSettings(), rows=1000)
    second = everything[1]
    planned = plan_trials(SearchSettings(), rows=1000, former=(sweep((second.family, second.params, 1.0)),))
    assert planned[0] == second
    assert len({t.id for t in planned}) == len(planned) == len(everything)


@pytest.mark.parametrize(("gain", "odd"), [(0.1, "lightgbm"), (-0.1, "lightgbm")])
def test_trees_follow_a_probe_of_pairs(gain: float, odd: str) -> None:
    """All read pairs of numbers where they gained, none where they lost, but for one of them each way."""
    planned = plan_trials(SearchSettings(), rows=1000, gain=gain)
    trees = [t for t in planned if t.family in {"lightgbm", "xgboost", "catboost", "extratrees"}]
    others = [t for t in trees if ("pairs" in t.params) != (gain > 0)]
    assert [t.family for t in others] == [odd]
    assert all("pairs" not in t.params for t in planned if t.family in {"linear", "torch"})
    assert len({t.id for t in planned}) == len(planned)


def test_a_probe_that_tells_nothing_leaves_both_kinds() -> None:
    """Some trees read pairs and some do not."""
    planned = plan_trials(SearchSettings(), rows=1000, gain=0.001)
    assert 4 <= sum("pairs" in t.params for t in planned) <= len(planned) - 4


def test_former_members_of_other_families_are_left_out() -> None:
    """The settings say what may be tried."""
    warm = sweep(("xgboost", {"max_depth": 2}, 1.0))
    planned = plan_trials(SearchSettings(families=("linear",)), rows=1000, former=(warm,))
    assert {t.family for t in planned} == {"linear"}


def test_members_that_may_not_run_leave_the_portfolio() -> None:
    """A refit of a forest whose leaves have become too many is a search."""
    leaves = {"n_estimators": 100, "min_samples_leaf": 1}
    forest = sweep(("extratrees", leaves, 1.0))
    few = plan_trials(SearchSettings(), rows=7000, former=(forest,), effort="refit")
    assert [t.params for t in few] == [leaves]
    many = plan_trials(SearchSettings(), rows=9000, former=(forest,), effort="refit")
    assert many == plan_trials(SearchSettings(), rows=9000)


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


@pytest.mark.parametrize(
    "settings",
    [
        SearchSettings(families=("extratrees",)),
        SearchSettings(
            families=("linear", "extratrees"), spaces={"extratrees": {"max_features": [0.5, 1.0]}}
        ),
    ],
)
def test_what_was_asked_for_is_tried_on_any_number_of_rows(settings: SearchSettings) -> None:
    """The only family, and one that a space was given for."""
    assert "extratrees" in {t.family for t in plan_trials(settings, rows=1_000_000)}


@pytest.mark.parametrize(
    "settings",
    [
        SearchSettings(families=("catboost",)),
        SearchSettings(families=("linear", "catboost"), spaces={"catboost": {"depth": [4, 6]}}),
    ],
)
def test_a_family_that_was_asked_for_needs_its_library(
    settings: SearchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to install is said at once, not trial by trial."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SearchError, match=r"'catboost' needs its package: pip install 'raywf\[catboost\]'"):
        plan_trials(settings, rows=1000)
    assert plan_trials(SearchSettings(), rows=1000)


def test_hurry_raises_learning_rates() -> None:
    """Of the boosters, up to a bound; other values stay."""
    calm, hasty = (plan_trials(SearchSettings(), rows=1000, speed=s) for s in (1.0, 2.0))
    for before, after in zip(calm, hasty, strict=True):
        slow, fast = (t.params.get("learning_rate") for t in (before, after))
        assert slow == fast is None or slow < fast <= 0.12
        assert {**before.params, "learning_rate": 0} == {**after.params, "learning_rate": 0}


def test_neighbours_are_close_and_differ() -> None:
    """One family's values, shaken within their bounds; the same number gives the same neighbour."""
    done = [
        dataclasses.replace(t, status="done", fold_losses=(0.1 * i,))
        for i, t in enumerate(plan_trials(SearchSettings(), rows=1000))
    ]
    made = [neighbour(done, n, seed=0) for n in range(30)]
    assert made == [neighbour(done, n, seed=0) for n in range(30)]
    assert len({t.id for t in made if t}) == 30
    assert {t.family for t in made if t} <= {t.family for t in done[:6]}
    for trial in made:
        assert trial is not None
        assert 0.02 <= trial.params.get("learning_rate", 0.05) <= 0.12
        assert isinstance(trial.params.get("num_leaves", 8), int)


def test_nothing_to_shake_gives_no_neighbour() -> None:
    """A configuration without numbers has none beside it."""
    assert neighbour([dataclasses.replace(make_trial("linear", {}), fold_losses=(0.1,))], 0, seed=0) is None


def test_id_depends_on_content_alone() -> None:
    """The order of parameters does not matter, their values do."""
    assert trial_id("linear", {"a": 1, "b": 2}) == trial_id("linear", {"b": 2, "a": 1})
    assert trial_id("linear", {"a": 1}) != trial_id("linear", {"a": 2})


def former(*trials: tuple[int, float]) -> Sweep:
    """A former sweep in which configurations of the portfolio, by their places, had these losses."""
    portfolio = plan_trials(SearchSettings(), rows=1000)
    done = tuple(
        dataclasses.replace(portfolio[place], status="done", fold_losses=(loss,)) for place, loss in trials
    )
    return dataclasses.replace(sweep((portfolio[0].family, portfolio[0].params, 1.0)), trials=done)


def test_the_portfolio_follows_the_workflow_s_own_history() -> None:
    """What fared best comes first; what was never tried keeps about its place; the newest counts most."""
    portfolio = list(plan_trials(SearchSettings(), rows=1000))
    ordered = order_by_history(portfolio, [former((0, 0.9), (1, 0.8), (6, 0.1))])
    assert ordered[0] == portfolio[6]
    assert ordered.index(portfolio[0]) > 0
    assert sorted(t.id for t in ordered) == sorted(t.id for t in portfolio)
    both = order_by_history(portfolio, [former((3, 0.1), (4, 0.2)), former((4, 0.1), (3, 0.2))])
    assert both.index(portfolio[3]) < both.index(portfolio[4])
    assert order_by_history(portfolio, []) == portfolio


def test_the_pool_is_of_all_former_sweeps() -> None:
    """By the loss beyond the best of the same sweep; the newest counts most, and one lucky sweep little."""
    portfolio = plan_trials(SearchSettings(), rows=1000)
    new, old = former((3, 0.20), (4, 0.21), (5, 0.24)), former((6, 0.10), (4, 0.13), (5, 0.11))
    pooled = [t.id for t in pool_trials([new, old])]
    assert pooled[0] == portfolio[3].id
    assert pooled.index(portfolio[4].id) < pooled.index(portfolio[5].id)  # better in the newest
    assert pool_trials([new])[0] == portfolio[3]
    assert pool_trials([sweep(("linear", {}, 1.0))]) == []
    hard = former((3, 2.0), (4, 2.1))  # a month in which all lose ten times as much
    assert [t.id for t in pool_trials([hard, new])][:2] == [portfolio[3].id, portfolio[4].id]


def test_efforts_try_more_and_more() -> None:
    """The members alone; then a forgotten family, runners-up and neighbours before the portfolio; or not."""
    old = former((0, 0.2), (1, 0.3), (2, 0.4))
    plans = {e: plan_trials(SearchSettings(), rows=1000, former=[old], effort=e) for e in EFFORTS}
    portfolio = plan_trials(SearchSettings(), rows=1000)
    assert plans["refit"] == plans["reweight"] == portfolio[:1]
    missed = next(t for t in portfolio if t.family not in {p.family for p in portfolio[:3]})
    assert plans["warm"][:4] == (portfolio[0], missed, portfolio[2], portfolio[1])  # each family's best first
    assert plans["warm"][4] not in portfolio
    assert {t.id for t in portfolio} < {t.id for t in plans["warm"]}
    assert {t.id for t in plans["full"]} == {t.id for t in portfolio}


def test_a_forest_is_not_asked_for_a_quantile() -> None:
    """It answers with the mean; the median of few rows it may stand for, and a space asks for it."""
    found = {
        q: {t.family for t in plan_trials(SearchSettings(), rows=1000, quantile=q)} for q in (None, 0.5, 0.9)
    }
    assert "extratrees" in found[None] & found[0.5]
    assert found[None] - found[0.9] == {"extratrees"}
    asked = SearchSettings(spaces={"extratrees": {"min_samples_leaf": [1, 5]}})
    assert "extratrees" in {t.family for t in plan_trials(asked, rows=1000, quantile=0.9)}


def test_a_warm_search_tries_neighbours_of_several_families() -> None:
    """Four forests that fare alike leave room beside them for what comes after."""
    forests = [make_trial("extratrees", {"max_features": 0.4, "min_samples_leaf": n}) for n in (1, 2, 3, 4)]
    others = [make_trial("lightgbm", {"num_leaves": 30}), make_trial("xgboost", {"max_depth": 6})]
    ran = tuple(
        dataclasses.replace(t, status="done", fold_losses=(0.1 + 0.001 * i,))
        for i, t in enumerate((*forests, *others))
    )
    old = dataclasses.replace(sweep(("extratrees", forests[0].params, 1.0)), trials=ran)
    planned = plan_trials(SearchSettings(), rows=1000, former=[old], effort="warm")
    assert [t.id for t in planned[2:5]] == [others[0].id, others[1].id, forests[1].id]
    seen = {
        t.family
        for n in range(20)
        for t in plan_trials(SearchSettings(seed=n), rows=1000, former=[old], effort="warm")[5:9]
    }
    assert {"extratrees", "lightgbm"} <= seen


@pytest.mark.parametrize("effort", ["refit", "reweight", "warm", "full"])
def test_members_of_no_use_leave_the_portfolio(effort: Effort) -> None:
    """A family that may not be tried any more: rather other trials than none."""
    old = sweep(("xgboost", {"max_depth": 2}, 1.0))
    settings = SearchSettings(families=("linear",))
    assert {t.family for t in plan_trials(settings, rows=1000, former=[old], effort=effort)} == {"linear"}


@pytest.mark.parametrize(
    ("effort", "trials", "most"),
    [("warm", 40, 8), ("warm", 100, 20), ("warm", 10, 5), ("warm", 4, 4), ("full", 40, 40)],
)
def test_a_warm_search_has_its_share_of_trials(
    tmp_path: Path, effort: Effort, trials: int, most: int
) -> None:
    """A fifth of a full one's, and two beside the former members at least; where there are none, all."""
    former = (sweep(*((name, {}, 1.0) for name in ("linear", "lightgbm", "xgboost"))),)
    plan = SearchPlan(sweep_id="s", folder=tmp_path, former=former, effort=effort)
    assert plan.most_trials(SearchSettings(trials=trials)) == most
    assert dataclasses.replace(plan, former=()).most_trials(SearchSettings(trials=trials)) == trials


def test_a_warm_search_draws_anew_beside_others(tmp_path: Path) -> None:
    """A space's draws come to its trials, and are not those of the search before."""
    former = (sweep(*((name, {}, 1.0) for name in ("linear", "lightgbm", "xgboost", "catboost", "torch"))),)
    plan = SearchPlan(sweep_id="s", folder=tmp_path, former=former, effort="warm")
    spaces = {"linear": {"C": [0.1, 1.0]}, "xgboost": {"max_depth": [3, 9]}}
    assert plan.most_trials(SearchSettings(trials=20, spaces=spaces)) == 5 + 2 + 2
    later = dataclasses.replace(plan, former=(dataclasses.replace(former[0], id="new"), *former))
    assert plan.seed(SearchSettings()) != later.seed(SearchSettings())
    assert later.seed(SearchSettings()) < 2**32


def test_what_was_passed_over_is_not_tried_first_again() -> None:
    """The best trial of all was no member, for a row took it too long."""
    slow, runner_up, member = (make_trial("lightgbm", {"num_leaves": n}) for n in (255, 30, 20))
    ran = tuple(
        dataclasses.replace(t, status="done", fold_losses=(loss,))
        for t, loss in ((slow, 0.1), (runner_up, 0.2), (member, 0.3))
    )
    former = dataclasses.replace(sweep(("lightgbm", {"num_leaves": 20}, 1.0)), trials=ran)
    over = dataclasses.replace(former, passed_over=(slow.id,))
    assert [t.id for t in pool_trials((former,))] == [slow.id, runner_up.id, member.id]
    assert [t.id for t in pool_trials((over,))] == [runner_up.id, member.id]
    first, *others = plan_trials(SearchSettings(), rows=1000)
    ran = tuple(dataclasses.replace(t, status="done", fold_losses=(0.1,)) for t in (first, *others))
    former = dataclasses.replace(over, trials=ran, passed_over=())
    assert order_by_history((first, *others), (former,))[0].id == first.id
    over = dataclasses.replace(former, passed_over=(first.id,))
    places = [t.id for t in order_by_history((first, *others), (over,))]
    assert places.index(first.id) > len(others) / 2
