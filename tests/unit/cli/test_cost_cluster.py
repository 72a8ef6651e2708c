"""`raywf cost --cluster`, `--bill` and `--advice` on a node history that was made up."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from raywf.cli.main import cli
from raywf.core.errors import SettingsError
from raywf.core.loader import load_workflow
from raywf.core.records import Attempt
from raywf.loop.node_history import NodeRecorder
from raywf.search.ledger import Ledger

SETTINGS = """
name: churn
task: binary
spine: {path: a.csv, label: y}
cluster: {pools: true, cloud: aws, system: {node_type: m7i.large}}
serving: {replicas: 2, replica_cpus: 1}
"""
HOUR = timedelta(hours=1)
NODES = [
    {"NodeID": "a", "Alive": True, "Resources": {}, "Labels": {"pool": "system"}},
    {"NodeID": "b", "Alive": True, "Resources": {"CPU": 4}, "Labels": {"pool": "serve"}},
    {
        "NodeID": "c",
        "Alive": True,
        "Resources": {"CPU": 8},
        "Labels": {"pool": "train", "instance-id": "i-c"},
    },
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty hours up to now of a head, a node to serve and one to train, which a search held for an hour."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "workflow.yaml").write_text(SETTINGS)
    now = [datetime.now(UTC)]
    start = now[0] - 40 * HOUR
    recorder = NodeRecorder(
        load_workflow(folder / "workflow.yaml", environ={}), look=lambda: NODES, now=lambda: now[0]
    )
    for step in range(41):
        now[0] = start + step * HOUR
        recorder.tick()
    attempt = Attempt(workflow="churn", started=start + HOUR, wall_s=3600, cpu_s=4 * 3600, cost_usd=0.2)
    Ledger(str(folder / ".raywf"), "one").note(attempt)
    return folder


def run(folder: Path, *words: str) -> str:
    """Run `raywf cost` and return what it prints; a `RaywfError` is raised."""
    file = str(folder / "workflow.yaml")
    done = CliRunner().invoke(cli, ["cost", "-f", file, *words], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def read(folder: Path, *words: str) -> Any:
    return json.loads(run(folder, "--json", *words))


def test_the_bill_is_told(project: Path) -> None:
    """By node type, with the parts, and what the labels do not tell by the cluster's settings."""
    found = read(project, "--cluster", "--by", "day")
    head, serve, train = 0.1008, 0.2016, 0.4032
    assert found["usd"] == pytest.approx(40 * (head + serve + train), rel=0.01)
    assert sum(found["parts"].values()) == pytest.approx(found["usd"], rel=1e-9)
    assert found["parts"]["unfinished"] == pytest.approx(train / 2, rel=0.01)
    assert found["parts"]["replica"] == pytest.approx(20 * serve, rel=0.05)
    assert sum(line["usd"] for line in found["lines"]) == pytest.approx(found["usd"])
    shown = run(project, "--cluster")
    assert "m7i.2xlarge on demand" in shown
    assert "note: m7i.2xlarge: by the settings of pool train" in shown
    assert "per 1,000 predictions: not known: the log has no predictions" in shown


def test_predictions_may_be_given(project: Path) -> None:
    """All nodes' cost by them."""
    found = read(project, "--cluster", "--predictions", "2000000")
    assert found["usd_per_1000_predictions"] == pytest.approx(found["usd"] / 2000)
    assert "(2,000,000 predictions)" in run(project, "--cluster", "--predictions", "2000000")


def test_a_bill_is_set_beside_it(project: Path) -> None:
    """The node with an id by it, the head by its type; the columns that were read are told."""
    day = f"{datetime.now(UTC) - 20 * HOUR:%Y-%m-%d}"
    first = "lineItem/UsageStartDate,lineItem/ResourceId,lineItem/UnblendedCost,lineItem/UsageType"
    lines = [f"{day}T00:00:00Z,i-c,{0.4032 * 24},BoxUsage:m7i.2xlarge"]
    lines += [f"{day}T00:00:00Z,i-head,0.5,BoxUsage:m7i.large"]
    (project / "bill.csv").write_text("\n".join([first, *lines]))
    found = read(project, "--bill", str(project / "bill.csv"))
    assert {(pair["by"], pair["node_type"]) for pair in found["pairs"]} == {
        ("id", "m7i.2xlarge"),
        ("type", "m7i.large"),
    }
    assert [pair["node_type"] for pair in found["only_reckoned"]] == ["m7i.xlarge"]
    shown = run(project, "--bill", str(project / "bill.csv"))
    assert "cost = lineItem/UnblendedCost" in shown
    assert "matched by id and type, day by day" in shown
    assert "reckoned, and not in the bill: $" in shown


def test_advice_has_figures(project: Path) -> None:
    """The node to train is on demand, and stood nearly idle."""
    found = read(project, "--advice")
    assert found["advice"][0]["what"] == "spot instead of on-demand nodes for the train pool"
    assert found["advice"][0]["saving_usd"] == pytest.approx((0.4032 - 0.15) * 730, rel=0.01)
    shown = run(project, "--advice")
    assert "saves $184.8" in shown
    assert "not known: quiet hours: the log has no predictions" in shown


@pytest.mark.parametrize("words", [["--cluster"], ["--advice"]])
def test_no_history_is_said(tmp_path: Path, words: list[str]) -> None:
    """In one line."""
    (tmp_path / "workflow.yaml").write_text(SETTINGS)
    assert run(tmp_path, *words).startswith("no node of the cluster is in the history of")


def test_a_bill_without_machines_is_refused(project: Path) -> None:
    """There is nothing to set beside it."""
    text = "ChargePeriodStart,ResourceId,BilledCost,ServiceCategory\n2026-03-01T00:00:00Z,a,1,Storage\n"
    (project / "disks.csv").write_text(text)
    with pytest.raises(SettingsError, match="no line of it is the use of a machine"):
        run(project, "--bill", str(project / "disks.csv"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cluster", "--advice"], "one of --cluster and --advice, not both"),
        (["--cluster", "--by", "family"], "--cluster goes by version, day, workflow, not by family"),
        (["--predictions", "3"], "--predictions goes with --cluster"),
        (["--nodes", "3"], "--nodes goes with --estimate; --cluster shows"),
    ],
)
def test_options_that_do_not_go_together(project: Path, words: list[str], message: str) -> None:
    """They are refused."""
    with pytest.raises(click.UsageError, match=message):
        run(project, *words)
