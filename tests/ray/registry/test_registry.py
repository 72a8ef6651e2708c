"""Versions, aliases and lineage in a real MLflow on SQLite."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raywf.core.errors import RegistryError
from raywf.core.journal import Journal
from raywf.core.records import Bundle, Member, ModelVersion, Snapshot, Sweep, Trial
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.promote import promote, promote_by_hand, rollback
from raywf.models.bundle import load_bundle
from raywf.registry import runs as runs_module
from raywf.registry.client import connect, tracking_uri
from raywf.registry.registry import Lineage, Registry, code_version, open_registry
from raywf.registry.runs import log_sweep
from raywf.testing import make_verdict, small_bundle

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)
TRIAL = Trial(
    id="linear-1",
    family="linear",
    params={"C": 0.3},
    status="done",
    fold_losses=(0.5, 0.25),
    score=0.4,
    seconds=1.0,
    cost_usd=0.005,
)
SWEEP = Sweep(
    id="sweep1",
    snapshot_id="snapshot1",
    metric="roc_auc",
    greater_is_better=True,
    trials=(TRIAL, dataclasses.replace(TRIAL, id="torch-1", status="failed", score=None, error="no")),
    members=(Member(trial_id="linear-1", family="linear", params={}, rounds=0, weight=1.0),),
    score=0.8,
    calibrated=False,
    budget_s=5,
    spent_s=4,
    cpu_s=3,
    warm_from="sweep0",
    cost_usd=0.02,
)
SNAPSHOT = Snapshot(
    id="snapshot1",
    workflow="w",
    uri="",
    rows=10,
    columns=(),
    task="binary",
    classes=("no", "yes"),
    label="y",
    has_time=True,
    window=None,
    as_of=AS_OF,
    digest="",
    profile=(),
    sources=(),
)
VERDICT = make_verdict(against="baseline")


@dataclasses.dataclass
class Shop:
    """One MLflow store for the module, with a bundle; each test has a workflow of its own in it."""

    root: Path
    bundle: Bundle

    def open(self, name: str) -> tuple[Workflow, Registry, str]:
        """Return a new workflow, its registry and the run of its sweep."""
        workflow = Workflow(
            name=name,
            task="binary",
            spine=SpineSettings(path="x.csv", label="y"),
            stores=StoreSettings(root=str(self.root)),
        )
        registry = open_registry(workflow)
        return workflow, registry, log_sweep(workflow, SNAPSHOT, SWEEP)

    def add(self, registry: Registry, run: str, decision: str = "d1") -> ModelVersion:
        """Register the bundle for a decision."""
        lineage = Lineage(
            run_id=run,
            sweep_id="sweep1",
            decision_id=decision,
            code_version="abc-dirty",
            parent="7",
            cost_usd=0.02,
            metrics={"roc_auc": 0.8},
        )
        return registry.register(self.bundle, lineage, VERDICT)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A store that is made once: its tables take seconds."""
    root = tmp_path_factory.mktemp("registry")
    yield Shop(root, small_bundle(root / "bundle", rounds=3))
    connect.cache_clear()


def test_registering_twice_gives_one_version(shop: Shop) -> None:
    """The same decision's same bundle."""
    _, registry, run = shop.open("twice")
    assert shop.add(registry, run) == shop.add(registry, run)
    assert [v.version for v in registry.versions()] == ["1"]
    assert shop.add(registry, run, "d2").version == "2"


def test_version_tells_its_lineage(shop: Shop) -> None:
    """Everything that one needs to know where it came from."""
    _, registry, run = shop.open("lineage")
    made = shop.add(registry, run)
    assert (made.snapshot_id, made.sweep_id, made.parent) == (shop.bundle.snapshot_id, "sweep1", "7")
    assert (made.code_version, made.decision_id, made.run_id) == ("abc-dirty", "d1", run)
    assert (made.cost_usd, made.metrics) == (0.02, {"roc_auc": 0.8})
    assert (made.loss, made.loss_rows, made.digest) == (0.15, 100, shop.bundle.digest)


def test_promotion_moves_the_aliases(shop: Shop) -> None:
    """The champion before is `previous`, and retired."""
    workflow, registry, run = shop.open("promote")
    first, second = (shop.add(registry, run, d) for d in ("d1", "d2"))
    promote(workflow, registry, first)
    promote(workflow, registry, second)
    assert registry.resolve("champion").version == second.version
    assert registry.resolve("previous").version == first.version
    assert [v.status for v in registry.versions()] == ["retired", "champion"]
    assert [v.aliases for v in registry.versions()] == [("previous",), ("champion",)]


def test_promotion_is_idempotent(shop: Shop) -> None:
    """Again changes nothing: `previous` stays what it was."""
    _, registry, run = shop.open("again")
    first, second = (shop.add(registry, run, d) for d in ("d1", "d2"))
    registry.promote(first.version)
    once = registry.promote(second.version)
    assert registry.promote(second.version) == once
    assert registry.resolve("previous").version == first.version


def test_rollback_restores_the_former_champion(shop: Shop) -> None:
    """The version that failed is marked, and a second rollback cannot bring it back."""
    workflow, registry, run = shop.open("rollback")
    for decision in ("d1", "d2"):
        registry.promote(shop.add(registry, run, decision).version)
    assert rollback(workflow, registry).version == "1"
    assert registry.version("2").status == "rolled_back"
    with pytest.raises(RegistryError, match="no previous champion to roll back to"):
        rollback(workflow, registry)


def test_promotion_and_rollback_by_hand_are_in_the_journal(shop: Shop) -> None:
    """Each is a decision that was written before it was done, and reached its end."""
    workflow, registry, run = shop.open("journal")
    for decision in ("d1", "d2"):
        promote_by_hand(workflow, registry, shop.add(registry, run, decision))
    rollback(workflow, registry)
    journal = Journal(workflow.stores.root, workflow.name)
    assert [d.kind for d in journal.decisions()] == ["promote", "promote", "rollback"]
    assert [e.stage for e in journal.entries()] == ["promoted"] * 3


def test_rollback_without_a_former_champion(shop: Shop) -> None:
    """There is nothing to go back to."""
    workflow, registry, run = shop.open("none")
    registry.promote(shop.add(registry, run).version)
    with pytest.raises(RegistryError, match="'none' has no previous champion to roll back to"):
        rollback(workflow, registry)


def test_unknown_version_names_the_known(shop: Shop) -> None:
    """So that one can pick another."""
    _, registry, run = shop.open("unknown")
    with pytest.raises(RegistryError, match="no version '99' of 'unknown'; known: none yet"):
        registry.version("99")
    shop.add(registry, run)
    with pytest.raises(RegistryError, match=r"known: 1$"):
        registry.promote("99")


def test_unset_alias_says_what_to_do(shop: Shop) -> None:
    """Before the first run there is no champion."""
    _, registry, _ = shop.open("empty")
    assert registry.find("champion") is None
    with pytest.raises(RegistryError, match="'empty' has no champion; 'raywf run' makes a first one"):
        registry.resolve("champion")


def test_fetched_bundle_is_whole(shop: Shop, tmp_path: Path) -> None:
    """It loads by its digest; a copy that is there already is used."""
    _, registry, run = shop.open("fetch")
    version = shop.add(registry, run)
    folder = registry.fetch(version, tmp_path)
    load_bundle(folder, digest=version.digest).check_reference()
    assert registry.fetch(version, tmp_path) == folder
    assert list(tmp_path.iterdir()) == [folder]


def test_bundle_that_is_gone_cannot_be_fetched(shop: Shop, tmp_path: Path) -> None:
    """The error names the version, and leaves no draft behind."""
    _, registry, run = shop.open("gone")
    version = shop.add(registry, run)
    shutil.rmtree(shop.root / "artifacts" / "gone" / run / "artifacts" / version.uri.rpartition("/")[2])
    with pytest.raises(RegistryError, match="bundle of version 1 cannot be fetched"):
        registry.fetch(version, tmp_path)
    assert list(tmp_path.iterdir()) == []


class AwayError(Exception):
    """As a store's client has them."""


def test_a_store_s_own_error_is_the_registry_s(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that is away raises what its client has, which replicas would not know."""
    _, registry, run = shop.open("away")
    version = shop.add(registry, run)

    def refuse(**_: object) -> None:
        raise AwayError("no endpoint")

    monkeypatch.setattr("mlflow.artifacts.download_artifacts", refuse)
    with pytest.raises(RegistryError, match=r"cannot be fetched: no endpoint"):
        registry.fetch(version, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sweep_is_logged_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again makes neither a second parent nor second children, of which the store tells one at a time."""
    workflow, _, run = shop.open("sweep")
    monkeypatch.setattr(runs_module, "_PAGE", 1)
    assert log_sweep(workflow, SNAPSHOT, SWEEP) == run
    client = connect(tracking_uri(workflow))
    experiment = client.get_experiment_by_name("sweep").experiment_id
    runs = client.search_runs([experiment])
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == run]
    assert {r.data.tags["raywf.trial"] for r in children} == {"linear-1", "torch-1"}
    assert (len(runs), len(children)) == (3, 2)


def test_runs_hold_figures(shop: Shop) -> None:
    """The parent its score, cost and lineage, the children theirs, a failed one its status."""
    workflow, _, run = shop.open("figures")
    client = connect(tracking_uri(workflow))
    parent = client.get_run(run).data
    figures = {"roc_auc": 0.8, "spent_s": 4, "cpu_s": 3}
    assert parent.metrics == figures | {"cost_usd": 0.02, "idle_usd": pytest.approx(0.01)}
    told = [parent.tags[f"raywf.{name}"] for name in ("cost_usd", "snapshot", "warm_from")]
    assert told == ["0.02", "snapshot1", "sweep0"]
    experiment = client.get_experiment_by_name("figures").experiment_id
    children = {r.info.run_name: r for r in client.search_runs([experiment])}
    assert [children[n].info.status for n in ("linear-1", "torch-1")] == ["FINISHED", "FAILED"]
    trial = children["linear-1"].data
    assert (trial.metrics["cost_usd"], trial.tags["raywf.cost_usd"]) == (0.005, "0.005")


def test_interrupted_log_is_completed(shop: Shop) -> None:
    """Children that a crash left out are made, those that are there are not; one it cut off is ended."""
    workflow, _, _ = shop.open("resume")
    more = dataclasses.replace(SWEEP, trials=(*SWEEP.trials, dataclasses.replace(TRIAL, id="linear-2")))
    client = connect(tracking_uri(workflow))
    experiment = client.get_experiment_by_name("resume").experiment_id
    cut = client.search_runs([experiment], "tags.`raywf.trial` = 'linear-1'")[0].info.run_id
    client.update_run(cut, status="RUNNING")
    run = log_sweep(workflow, SNAPSHOT, more)
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run}'")
    assert sorted(r.info.run_name for r in found) == ["linear-1", "linear-2", "torch-1"]
    assert {r.info.status for r in found} == {"FINISHED", "FAILED"}
    assert cut in {r.info.run_id for r in found}


def test_broken_store_is_a_registry_error(tmp_path: Path) -> None:
    """A file that is no database is named."""
    (tmp_path / "mlflow.db").write_text("this is no database " * 100)
    with pytest.raises(RegistryError, match=r"MLflow store sqlite:///.* cannot be reached"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_code_version_without_git(tmp_path: Path) -> None:
    """A folder outside a repository is unversioned."""
    assert code_version(tmp_path) == "unversioned"
