"""`raywf cost` on a store that was made up: no Ray, no registry."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from raywf.cli.main import cli
from raywf.core.errors import SettingsError
from raywf.core.journal import Journal
from raywf.core.records import Attempt, Member, Sweep, Trial
from raywf.search.ledger import Ledger
from raywf.testing import make_decision

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = """
name: churn
task: binary
spine: {path: a.csv, label: y}
search: {budget_s: 600, trial_cpus: 2}
retrain: {every: 10d}
"""
TRIAL = Trial(id="linear-1", family="linear", params={}, status="done", seconds=9, cost_usd=0.25)
SWEEP = Sweep(
    id="one",
    snapshot_id="d",
    metric="roc_auc",
    greater_is_better=True,
    trials=(
        TRIAL,
        dataclasses.replace(TRIAL, id="torch-1", family="torch", status="stopped", cost_usd=0.5),
        dataclasses.replace(TRIAL, id="torch-2", family="torch", status="failed", cost_usd=0.05),
    ),
    members=(Member(trial_id="linear-1", family="linear", params={}, rounds=0, weight=1.0),),
    score=0.8,
    calibrated=False,
    budget_s=60,
    spent_s=60,
    cpu_s=120,
    cost_usd=1.0,
)


def note(root: Path, sweep_id: str, usd: float, *, hours: int = 0, workflow: str = "churn") -> Ledger:
    """Write an attempt of a search."""
    started = NOON + timedelta(hours=hours)
    ledger = Ledger(str(root), sweep_id)
    ledger.note(Attempt(workflow=workflow, started=started, wall_s=60, cpu_s=120, cost_usd=usd))
    return ledger


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A search in two attempts, asked for by a decision; one that was cut off; one of another workflow."""
    (tmp_path / "workflow.yaml").write_text(SETTINGS)
    root = tmp_path / ".raywf"
    note(root, "one", 0.75)
    note(root, "one", 0.25, hours=24).write_sweep(SWEEP)
    note(root, "two", 1.0, hours=25)
    note(root, "three", 0.002, hours=30, workflow="fraud")
    decision = make_decision("d1", workflow="churn", window="w", reasons=("it fell",), time=NOON)
    Journal(str(root), "churn").decide(decision)
    Journal(str(root), "churn").record(decision, "searched", figures={"sweep": "one"})
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """Run `raywf cost` and return what it prints; a `RaywfError` is raised."""
    file = str(folder / "workflow.yaml")
    done = CliRunner().invoke(cli, ["cost", "-f", file, *words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def read(folder: Path, *words: str) -> Any:
    return json.loads(run(folder, "--json", *words))


def test_the_parts_are_told(project: Path) -> None:
    """How much there was, and what it paid for."""
    lines = run(project).splitlines()
    assert lines[0] == "churn: $2.00 in 2 searches"
    assert lines[1].split() == ["$0.25", "12%", "done", "trials", "that", "were", "done"]
    told = {line.split()[2]: line.split()[0] for line in lines[1:6]}
    assert told == {
        "done": "$0.25",
        "stopped": "$0.50",
        "failed": "$0.0500",
        "idle": "$0.20",
        "unfinished": "$1.00",
    }


@pytest.mark.parametrize(
    ("by", "usd"),
    [
        ("version", {"none": 2.0}),
        ("sweep", {"one": 1.0, "two": 1.0}),
        ("day", {"2026-03-01": 0.75, "2026-03-02": 1.25}),
        ("family", {"torch": 0.55, "linear": 0.25, "none": 1.2}),
        ("workflow", {"churn": 2.0, "fraud": 0.002}),
    ],
)
def test_each_view_adds_up_to_the_whole(project: Path, by: str, usd: dict[str, float]) -> None:
    """By version, search, day, family or workflow: the same money."""
    found = read(project, "--by", by)
    assert {x["name"]: x["usd"] for x in found["lines"]} == pytest.approx(usd)
    assert found["usd"] == pytest.approx(sum(usd.values()))
    assert sum(found["parts"].values()) == pytest.approx(found["usd"])


def test_the_dearest_trial_comes_first(project: Path) -> None:
    """With its search, how it ended and its weight."""
    assert [x["name"] for x in read(project, "--by", "trial")["lines"]] == ["torch-1", "linear-1", "torch-2"]
    assert "one: done, 9.0 s, weight 1.00" in run(project, "--by", "trial")


def test_a_search_tells_its_story(project: Path) -> None:
    """When, for which cause, and what came of it."""
    shown = run(project, "--by", "sweep")
    assert "2026-03-01T12:00, loss: no version" in shown
    assert "2026-03-02T13:00, search: unfinished" in shown


def test_nothing_yet_is_said(tmp_path: Path) -> None:
    """In one line, with the next step, and nothing is made on the way."""
    (tmp_path / "workflow.yaml").write_text(SETTINGS)
    assert run(tmp_path).startswith(f"no search of churn yet in {tmp_path}/.raywf; next: raywf run")
    assert read(tmp_path)["lines"] == []
    assert not (tmp_path / ".raywf").exists()


def test_an_estimate_is_of_nodes(project: Path) -> None:
    """Ten minutes of two m7i.2xlarge: 16 CPUs at 0.0504, on demand beside spot, and three of them a month."""
    found = read(project, "--estimate", "--nodes", "2", "--set", "cost.node_type=m7i.2xlarge")
    assert (found["cpus"], found["cluster_cpus"], found["nodes"]) == (16, 16, 2)
    on_demand, spot = found["offers"]
    assert on_demand["usd"] == pytest.approx(2 * 0.4032 / 6)
    assert on_demand["month_usd"] == pytest.approx(3 * on_demand["usd"])
    assert (spot["terms"], spot["usd"]) == ("spot", pytest.approx(2 * 0.15 / 6))


def test_an_estimate_keeps_to_the_money(project: Path) -> None:
    """`search.max_usd` cuts the seconds; nodes that a search leaves idle are told beside it."""
    limits = ["--set", "search.max_usd=0.01", "--set", "search.max_concurrent=2"]
    offer = read(project, "--estimate", "--nodes", "3", *limits)["offers"][0]
    assert (offer["usd"], offer["nodes_usd"]) == (pytest.approx(0.01), pytest.approx(0.03))
    assert offer["seconds"] == pytest.approx(0.01 / (4 * 0.0504) * 3600)
    assert "whole nodes" in run(project, "--estimate", "--nodes", "3", *limits)


def test_an_own_price_is_the_only_offer(project: Path) -> None:
    """There is no spot price of it."""
    found = read(project, "--estimate", "--set", "cost.usd_per_cpu_hour=0.02", "--set", "cluster.cpus=4")
    assert [(o["terms"], o["usd_per_hour"]) for o in found["offers"]] == [("own price", pytest.approx(0.08))]


def test_a_cluster_elsewhere_needs_its_size(project: Path) -> None:
    """It is not asked."""
    with pytest.raises(SettingsError, match=r"the cluster is at '10.0.0.1:6379'; .*--nodes N"):
        run(project, "--estimate", "--set", "cluster.address=10.0.0.1:6379")


def test_nodes_go_with_an_estimate(project: Path) -> None:
    """What was paid is paid."""
    with pytest.raises(click.UsageError, match="--nodes goes with --estimate"):
        run(project, "--nodes", "2")
