"""A small search on a real Ray cluster, and what it tells about itself afterwards, in words and as a page."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from raywf.cli.main import cli
from raywf.core.codec import decode
from raywf.core.errors import NoVersionError, SearchError
from raywf.core.explanation import Explanation
from raywf.core.loader import load_workflow
from raywf.core.settings import Workflow
from raywf.loop.explain import Wanted, explain
from raywf.loop.pipeline import Retraining, retrain, search_only
from raywf.testing import make_decision

SETTINGS = """
name: orders
task: binary
spine: {path: table.csv, label: late}
search: {budget_s: 40, trials: 2, folds: 2, families: [lightgbm, linear]}
stores: {root: root}
"""


def write_table(path: Path) -> None:
    """Write rows of which one lane's are all but random, and one column repeats another."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lane", "km", "miles", "noise", "late"])
        for _ in range(1200):
            lane, km = draw.choice(["air", "sea", "wild"]), round(draw.uniform(1, 900), 1)
            share = 0.5 if lane == "wild" else 0.02 + 0.96 * (km > 450)
            writer.writerow([lane, km, km / 1.609, draw.random(), int(draw.random() < share)])


@pytest.fixture(scope="module")
def workflow(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """A workflow that was searched, without a gate."""
    folder = tmp_path_factory.mktemp("orders")
    write_table(folder / "table.csv")
    (folder / "workflow.yaml").write_text(SETTINGS)
    made = load_workflow(folder / "workflow.yaml")
    search_only(made)
    return made


@pytest.fixture(scope="module")
def searched(workflow: Workflow) -> Explanation:
    """The search without a gate, explained."""
    return explain(workflow, wanted=Wanted(rows=300, learning_curve=True))


@pytest.fixture(scope="module")
def registered(searched: Explanation, workflow: Workflow) -> Retraining:
    """A version that was made after it."""
    decision = make_decision(
        "d1", workflow=workflow.name, cause="a test", window="w", reasons=("a test",), time=datetime.now(UTC)
    )
    return retrain(workflow, decision)


@pytest.fixture
def command(registered: Retraining, workflow: Workflow) -> Callable[..., Result]:
    """The command line, beside the workflow's file."""
    file = Path(workflow.stores.root).parent / "workflow.yaml"
    return lambda *words: CliRunner().invoke(cli, ["explain", "-f", str(file), *words])


def test_search_is_explained_out_of_fold(searched: Explanation) -> None:
    """All parts, none left out; importance by the folds' own models."""
    assert searched.notes == ()
    assert searched.version is None
    assert {s.status for s in searched.standings} == {"done"}
    assert searched.slices is not None
    assert searched.slices.rows == 1200
    assert searched.slices.score == pytest.approx(searched.sweep.score, abs=0.01)
    assert searched.importance is not None
    assert searched.importance.source == "folds"
    assert searched.progress[-1].trials == 2
    assert [p.rows for p in searched.learning] == sorted(p.rows for p in searched.learning)


def test_planted_slice_is_the_worst(searched: Explanation) -> None:
    """The lane whose labels are random."""
    assert searched.slices is not None
    worst = searched.slices.slices[0]
    assert (worst.column, worst.value) == ("lane", "wild")
    assert worst.q < 0.001


def test_columns_that_matter_matter(searched: Explanation) -> None:
    """Not the noise; the two lengths together more than each."""
    assert searched.importance is not None
    drops = {i.columns[0]: i.drop for i in searched.importance.columns}
    (group,) = searched.importance.groups
    assert set(group.columns) == {"km", "miles"}
    assert group.drop > max(drops["km"], drops["miles"]) > drops["noise"] - 0.005


def test_same_explanation_again(searched: Explanation, workflow: Workflow) -> None:
    """By its sweep's id, whatever came after it."""
    again = explain(workflow, searched.sweep.id, wanted=Wanted(rows=300))
    assert again.slices == searched.slices
    assert again.importance == searched.importance
    assert again.progress == searched.progress


def test_version_is_explained_on_the_gate_s_rows(registered: Retraining, workflow: Workflow) -> None:
    """By number, by alias, and as the newest sweep; other settings since then change nothing."""
    by_number = explain(workflow, "1", wanted=Wanted(rows=100))
    assert by_number.version == "1"
    assert by_number.sweep == registered.sweep
    assert by_number.importance is not None
    assert (by_number.importance.source, by_number.importance.rows) == ("gate", 100)
    assert by_number.slices is not None
    assert by_number.slices.rows == 1200 - registered.verdict.rows
    file = Path(workflow.stores.root).parent / "workflow.yaml"
    other = load_workflow(file, overrides=("gate.newest=0.3", "search.folds=5"))
    assert explain(other, "champion", wanted=Wanted(rows=100)) == by_number
    assert explain(workflow, wanted=Wanted(rows=100)) == by_number


def test_command_in_words(command: Callable[..., Result], tmp_path: Path) -> None:
    """Each part has its lines, and the page is written."""
    page = tmp_path / "page.html"
    done = command("1", "--rows", "100", "--report", str(page))
    assert done.exit_code == 0, done.output
    for text in ("version 1, of sweep", "lane: wild", "rows of the gate", "km + miles", f"report: {page}"):
        assert text in done.stdout
    assert "importance: " in done.stderr
    assert page.read_text().count("<svg") == 4
    assert "lane: wild" in page.read_text()


def test_command_in_json(command: Callable[..., Result]) -> None:
    """The record, and nothing beside it."""
    done = command("champion", "--rows", "100", "--json")
    assert decode(Explanation, json.loads(done.stdout)).version == "1"


def test_wrong_words(command: Callable[..., Result], workflow: Workflow) -> None:
    """What is not there is named, with what is."""
    with pytest.raises(NoVersionError, match=r"no version and no finished sweep '9'; known: .*\b1,"):
        explain(workflow, "9")
    with pytest.raises(NoVersionError, match="'orders' has no previous"):
        explain(workflow, "previous")
    assert "there is no folder '/nowhere'" in command("--report", "/nowhere/x.html").stderr
    assert "49 is not in the range" in command("--rows", "49").stderr


def test_nothing_to_explain(tmp_path: Path) -> None:
    """One line says what comes first, and no store is made."""
    (tmp_path / "workflow.yaml").write_text(SETTINGS)
    with pytest.raises(SearchError, match="'orders' has no finished search; next: raywf search"):
        explain(load_workflow(tmp_path / "workflow.yaml"))
    assert not (tmp_path / "root").exists()


def test_what_is_gone_is_a_note(registered: Retraining, workflow: Workflow) -> None:
    """Without its rows a sweep still has its leaderboard."""
    shutil.rmtree(Path(workflow.stores.root) / "snapshots")
    made = explain(workflow, "1")
    assert len(made.standings) == 2
    assert (made.slices, made.importance) == (None, None)
    assert "has no snapshot" in made.notes[0]
