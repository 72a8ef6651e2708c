"""A whole search on a real Ray cluster: small tables, few trials, every task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from raywf.core.errors import SearchError
from raywf.core.metrics import METRICS
from raywf.core.records import Bundle, Column, Effort, Member, Rate, Snapshot, Sweep, Trial
from raywf.core.settings import OwnModelSettings, SearchSettings, SpineSettings, StoreSettings, Workflow
from raywf.models.bundle import load_bundle
from raywf.search.here import may_fit_here
from raywf.search.ledger import Ledger
from raywf.search.own import Families
from raywf.search.run import SearchPlan, SearchResult, run_search

ROWS = 900
START = datetime(2024, 1, 1, tzinfo=UTC)
CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
TASKS = sorted(CLASSES)
BROKEN = {"num_leaves": -5}


def make_table(task: str, *, timed: bool) -> pa.Table:
    """Return rows whose label depends on a number and a category, with gaps in both."""
    draw = np.random.default_rng(0)
    x, lane = draw.normal(size=ROWS), draw.integers(0, 3, ROWS)
    signal = x + lane
    if task == "regression":
        labels = signal + draw.normal(0, 0.3, ROWS)
    else:
        labels = np.digitize(signal + draw.normal(0, 0.5, ROWS), [0.5, 1.5][: len(CLASSES[task]) - 1]) * 1.0
    columns = {
        "x": pa.array([None if i % 20 == 0 else float(v) for i, v in enumerate(x)]),
        "lane": pa.array([None if i % 33 == 0 else "abc"[v] for i, v in enumerate(lane)]),
        "empty": pa.nulls(ROWS, pa.float64()),
        "__label": pa.array(labels),
        "__key": pa.array(np.arange(ROWS) * 7919),
    }
    if timed:
        columns["__time"] = pa.array(
            [START + timedelta(hours=i) for i in range(ROWS)], pa.timestamp("us", "UTC")
        )
    return pa.table(columns)


def describe(task: str, *, timed: bool) -> Snapshot:
    """Return the record of such a table."""
    return Snapshot(
        id="snapshot",
        workflow="w",
        uri="",
        rows=ROWS,
        columns=(
            Column(name="x", kind="number"),
            Column(name="lane", kind="category"),
            Column(name="empty", kind="number"),
        ),
        task=task,
        classes=CLASSES[task],
        label="y",
        has_time=timed,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
    )


@dataclasses.dataclass(frozen=True)
class Search:
    """What was searched, where, and what came of it."""

    root: Path
    task: str
    table: pa.Table
    result: SearchResult


def search(
    root: Path,
    task: str,
    *,
    timed: bool = True,
    former: tuple[Sweep, ...] = (),
    effort: Effort = "full",
    price: float = 0.05,
    passes: Callable[[Bundle, np.ndarray], bool] = lambda _proof, _rows: True,
    **settings: Any,
) -> Search:
    """Search a table of a task with two quick configurations."""
    workflow = Workflow(
        name="w",
        task=task,  # type: ignore[arg-type]
        spine=SpineSettings(path="x.csv", label="y"),
        search=SearchSettings(
            **{"budget_s": 40, "trials": 2, "folds": 2, "families": ("lightgbm", "linear")} | settings
        ),
        stores=StoreSettings(root=str(root)),
    )
    table = make_table(task, timed=timed)
    plan = SearchPlan(
        sweep_id="sweep",
        folder=root / "bundles",
        former=former,
        effort=effort,
        rate=Rate(usd_per_cpu_hour=price),
        passes=passes,
    )
    return Search(root, task, table, run_search(workflow, describe(task, timed=timed), table, plan=plan))


@pytest.fixture(scope="module")
def searched(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Search]:
    """A search by task, each made once; the multiclass one is of rows without times."""
    made: dict[str, Search] = {}

    def get(task: str) -> Search:
        if task not in made:
            made[task] = search(tmp_path_factory.mktemp(task), task, timed=task != "multiclass")
        return made[task]

    return get


@pytest.mark.parametrize("task", TASKS)
def test_beats_the_prior_on_the_gate_rows(task: str, searched: Callable[[str], Search]) -> None:
    """The proof, which has not seen them, scores them better than shares or the mean do."""
    found = searched(task)
    labels = found.table.column("__label").to_numpy()
    gate = found.result.gate_rows
    seen, held = np.delete(labels, gate), labels[gate]
    scores = load_bundle(found.result.proof.uri).predict_table(found.table.take(pa.array(gate)))
    if task == "multiclass":
        prior = np.tile(np.bincount(seen.astype(int)) / len(seen), (len(held), 1))
    else:
        prior = np.full((len(held), 1), seen.mean())
    metric = METRICS["rmse" if task == "regression" else "log_loss"]
    assert metric.loss(held, scores) < 0.9 * metric.loss(held, prior)


@pytest.mark.parametrize("task", TASKS)
def test_sweep_tells_what_was_done(task: str, searched: Callable[[str], Search]) -> None:
    """All trials are done, weights sum to 1, the record is in the ledger."""
    found = searched(task)
    sweep = found.result.sweep
    assert [t.status for t in sweep.trials] == ["done", "done"]
    assert [len(t.fold_losses) for t in sweep.trials] == [2, 2]
    assert sum(m.weight for m in sweep.members) == pytest.approx(1)
    assert {m.trial_id for m in sweep.members} <= {t.id for t in sweep.trials}
    assert Ledger(str(found.root), "sweep").read_sweep() == sweep


@pytest.mark.parametrize("task", TASKS)
def test_final_bundle_is_fitted_on_all_rows(task: str, searched: Callable[[str], Search]) -> None:
    """With times up to the newest row; without, the proof itself, so that the gate's rows stay unseen."""
    result = searched(task).result
    assert result.proof.members == result.final.members
    if task == "multiclass":
        assert result.final == result.proof
    else:
        assert result.proof.fitted_until < result.final.fitted_until == START + timedelta(hours=ROWS - 1)


@pytest.mark.parametrize("trials", [1, 2])
def test_what_does_not_pass_has_no_final_model(
    trials: int, searched: Callable[[str], Search], tmp_path: Path
) -> None:
    """Whoever judges is asked once, with the proof and the gate's rows; final fits beside it are ended."""
    asked: list[tuple[Bundle, list[int]]] = []

    def refuse(proof: Bundle, rows: np.ndarray) -> bool:
        asked.append((proof, rows.tolist()))
        return False

    result = search(tmp_path, "binary", trials=trials, passes=refuse).result
    assert result.final == result.proof
    assert asked == [(result.proof, result.gate_rows.tolist())]
    passed = searched("binary").result
    assert 0 <= result.final_cpu_s <= result.sweep.cpu_s
    assert 0 < passed.final_cpu_s < passed.sweep.cpu_s


def test_trials_ran_on_known_nodes(searched: Callable[[str], Search]) -> None:
    """Each trial's node is told."""
    result = searched("binary").result
    assert set(result.nodes) == {t.id for t in result.sweep.trials}
    assert all(result.nodes.values())


def test_same_sweep_trains_nothing_again(searched: Callable[[str], Search]) -> None:
    """Called again it reads its trials from the ledger, to the same members."""
    before = searched("binary")
    ledger = before.root / "sweeps" / "sweep" / "trials"
    kept = {file: file.read_bytes() for file in ledger.rglob("*") if file.is_file()}
    again = search(before.root, "binary").result.sweep
    assert {file: file.read_bytes() for file in ledger.rglob("*") if file.is_file()} == kept
    assert again.trials == before.result.sweep.trials
    assert again.members == before.result.sweep.members


def test_failed_trial_does_not_stop_the_search(ray_session: None, tmp_path: Path) -> None:
    """What the library refuses is told; the others make the model."""
    bad = Member(trial_id="old", family="lightgbm", params=BROKEN, rounds=5, weight=1.0)
    warm = dataclasses.replace(_SWEEP, members=(bad,))
    sweep = search(tmp_path, "binary", former=(warm,)).result.sweep
    assert [t.status for t in sweep.trials] == ["failed", "done"]
    assert "num_leaves" in sweep.trials[0].error
    assert (sweep.warm_from, len(sweep.members)) == ("old", 1)


def test_search_of_failed_trials_says_why(ray_session: None, tmp_path: Path) -> None:
    """No model: the error names each trial's reason."""
    bad = Member(trial_id="old", family="lightgbm", params=BROKEN, rounds=5, weight=1.0)
    warm = dataclasses.replace(_SWEEP, members=(bad,))
    with pytest.raises(SearchError, match=r"no trial of 1 gave a model: lightgbm-\w+: .*num_leaves"):
        search(tmp_path, "binary", former=(warm,), trials=1)


def test_budget_is_kept(ray_session: None, tmp_path: Path) -> None:
    """More and slower trials than fit in it are cut, and there is a model all the same."""
    sweep = search(
        tmp_path, "binary", budget_s=15, trials=99, families=("lightgbm", "extratrees", "torch")
    ).result.sweep
    assert sweep.spent_s <= 15 * 1.5
    assert any(t.status == "done" for t in sweep.trials)
    assert sweep.members


def test_money_bounds_the_time(ray_session: None, tmp_path: Path) -> None:
    """Four cents at 4 dollars a CPU-hour are 18 seconds of two CPUs, whatever `budget_s` says."""
    done = search(tmp_path, "binary", timed=False, budget_s=300, max_usd=0.04, price=4.0, trials=400).result
    assert done.sweep.budget_s == pytest.approx(18.0)
    assert done.sweep.cpu_s * 4.0 / 3600 <= 0.04 * 1.25  # 18 seconds are short beside a refit


@pytest.mark.parametrize("timed", [True, False])
def test_budget_for_no_trial_gives_a_model(ray_session: None, tmp_path: Path, timed: bool) -> None:
    """A second is too short for a worker to begin: a model all the same."""
    found = search(tmp_path, "binary", timed=timed, budget_s=1, trials=3).result
    assert found.sweep.members
    assert np.isfinite(found.sweep.score)
    assert np.isfinite(load_bundle(found.final.uri).predict_row({"x": 0.5, "lane": "a"})).all()


_SWEEP = Sweep(
    id="old",
    snapshot_id="s",
    metric="roc_auc",
    greater_is_better=True,
    trials=(),
    members=(),
    score=0.5,
    calibrated=False,
    budget_s=1,
    spent_s=1,
    cpu_s=1,
)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_refit_keeps_members_and_weights(
    task: str, searched: Callable[[str], Search], tmp_path: Path
) -> None:
    """One fold of each, at a fraction of the cost, and a model as good as the one before."""
    old = searched(task).result.sweep
    again = search(tmp_path, task, timed=task == "binary", former=(old,), effort="refit")
    new = again.result.sweep
    assert {m.trial_id: m.weight for m in new.members} == {m.trial_id: m.weight for m in old.members}
    assert all(len(t.fold_losses) == 1 for t in new.trials)
    assert (new.effort, new.warm_from) == ("refit", old.id)
    assert sum(len(t.fold_losses) for t in new.trials) < sum(len(t.fold_losses) for t in old.trials)
    assert abs(new.score - old.score) < 0.1
    assert again.result.nodes == dict.fromkeys(
        (t.id for t in new.trials), ray.get_runtime_context().get_node_id()
    )


def test_a_reweighting_tries_the_members_alone(searched: Callable[[str], Search], tmp_path: Path) -> None:
    """With all folds, and weights of its own."""
    first = searched("binary").result.sweep
    skewed = dataclasses.replace(first, members=tuple(_member(t, 0.5) for t in first.trials))
    new = search(tmp_path, "binary", former=(skewed,), effort="reweight", trials=9).result.sweep
    assert {t.id for t in new.trials} == {m.trial_id for m in skewed.members}
    assert all(len(t.fold_losses) == 2 for t in new.trials)
    assert new.effort == "reweight"


def test_a_warm_search_has_a_share_of_the_budget(searched: Callable[[str], Search], tmp_path: Path) -> None:
    """And begins with the members, the longest first."""
    first = searched("binary").result.sweep
    new = search(tmp_path, "binary", former=(first,), effort="warm", trials=9, budget_s=150).result.sweep
    assert new.budget_s == pytest.approx(0.2 * 150)
    assert new.spent_s < new.budget_s * 1.3
    seconds, members = {t.id: t.seconds for t in first.trials}, {m.trial_id for m in first.members}
    assert [t.id for t in new.trials[: len(members)]] == sorted(members, key=lambda i: -seconds[i])


def _member(trial: Trial, weight: float) -> Member:
    return Member(
        trial_id=trial.id, family=trial.family, params=trial.params, rounds=trial.rounds, weight=weight
    )


def test_whose_fits_are_this_process_s_own(ray_session: None) -> None:
    """Not the user's code, nor what is bound to other nodes, nor more threads than this one offers."""
    own = Families(settings={"mine": OwnModelSettings(code="models.py:Mine", trust=True)})
    assert may_fit_here(["linear"], own, {}, 1)
    assert not may_fit_here(["linear", "mine"], own, {}, 1)
    assert not may_fit_here(["linear"], own, {"role": "training"}, 1)
    assert not may_fit_here(["linear"], own, {}, 1000)
