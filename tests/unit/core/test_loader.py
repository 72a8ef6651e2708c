"""Settings: file < environment < command line; what is wrong is refused with its place."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from raywf.core.errors import SettingsError
from raywf.core.loader import dump_workflow, load_workflow
from raywf.core.settings import Workflow

GOOD = """\
name: churn
task: binary
spine:
  path: table.csv
  label: left
search: {budget_s: 30}
"""


def load(folder: Path, text: str = GOOD, *overrides: str, **environ: str) -> Workflow:
    (folder / "workflow.yaml").write_text(text)
    return load_workflow(folder / "workflow.yaml", overrides=overrides, environ=environ)


def test_the_file_gives_the_settings(tmp_path: Path) -> None:
    """What the file says is there, and what it leaves out has its default."""
    workflow = load(tmp_path)
    assert (workflow.search.budget_s, workflow.search.folds, workflow.metric) == (30.0, None, "roc_auc")


def test_the_environment_beats_the_file(tmp_path: Path) -> None:
    """``RAYWF_A__B`` names section and key."""
    assert load(tmp_path, GOOD, RAYWF_SEARCH__BUDGET_S="40").search.budget_s == 40


def test_the_command_line_beats_the_environment(tmp_path: Path) -> None:
    """``a.b=value`` has the last word."""
    workflow = load(tmp_path, GOOD, "search.budget_s=50", RAYWF_SEARCH__BUDGET_S="40")
    assert workflow.search.budget_s == 50


def test_an_override_may_open_a_section(tmp_path: Path) -> None:
    """A section that the file lacks is made."""
    assert load(tmp_path, GOOD, "retrain.cooldown=36h").retrain.cooldown == timedelta(hours=36)


def test_an_override_may_be_a_list(tmp_path: Path) -> None:
    """An override's value is YAML."""
    assert load(tmp_path, GOOD, "search.families=[linear, torch]").search.families == ("linear", "torch")


def test_other_variables_are_left_alone(tmp_path: Path) -> None:
    """Only names that begin with RAYWF_ are settings."""
    assert load(tmp_path, GOOD, RAY_ADDRESS="x:1", SEARCH__BUDGET_S="7").search.budget_s == 30


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    """The working directory does not matter; a URI stays as it is."""
    workflow = load(tmp_path, GOOD, "stores.root=s3://bucket/root")
    assert workflow.spine.path == str(tmp_path / "table.csv")
    assert workflow.stores.root == "s3://bucket/root"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "serach: {}\n", r"workflow.yaml line 7: unknown key 'serach'; did you mean 'search'\?"),
        (GOOD + "gate:\n  newset: 0.2\n", r"line 8: unknown key 'newset'; did you mean 'newest'\?"),
        (GOOD + "gate: {min_rows: many}\n", r"line 7: gate.min_rows: expected int, got 'many'"),
        (GOOD + "gate: {min_rows: true}\n", r"line 7: gate.min_rows: expected int, got True"),
        (GOOD + "gate: {alpha: 0.9}\n", r"line 7: gate.alpha: alpha must be in \(0, 0.5\), got 0.9"),
        (GOOD + "monitor: {window: soon}\n", r"line 7: monitor.window: a duration is .* got 'soon'"),
        (GOOD.replace("binary", "binry"), r"line 2: task: 'binry' is not allowed; did you mean 'binary'\?"),
        (
            GOOD + "metric: rmse\n",
            r"line 7: metric: metric must be one of accuracy, .* binary task, got 'rmse'",
        ),
        (GOOD + "task: regression\n", r"line 7: key 'task' is given twice"),
        (GOOD.replace("  label: left\n", ""), r"line 3: missing key 'label'"),
        ("name: [\n", r"workflow.yaml line 2: not valid YAML"),
        ("- a\n", r"workflow.yaml: expected a mapping of settings"),
        (GOOD + "features: {categorical: plan}\n", r"features.categorical: expected a list, got 'plan'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message has the file, the line, the value got and the nearest known key."""
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "search.budgets=3",
            r"option --set search.budgets=3: unknown key 'budgets'; did you mean 'budget_s'\?",
        ),
        ("serch.budget_s=3", r"option --set serch.budget_s=3: unknown key 'serch'; did you mean 'search'\?"),
        ("search.budget_s", r"an override is section.key=value, got 'search.budget_s'"),
        ("name.first=x", r"option --set name.first=x: 'name' is a value, not a section"),
        ("search.folds=0", r"option --set search.folds=0: search.folds: folds must be in \[1, 20\], got 0"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, option: str, message: str) -> None:
    """The message names the option that was given."""
    with pytest.raises(SettingsError, match=message):
        load(tmp_path, GOOD, option)


def test_a_wrong_variable_is_refused(tmp_path: Path) -> None:
    """The message names the environment variable."""
    with pytest.raises(SettingsError, match=r"environment variable RAYWF_GATE__ALPHA: gate.alpha: .* got 2"):
        load(tmp_path, GOOD, RAYWF_GATE__ALPHA="2")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """The next step is in the message."""
    with pytest.raises(SettingsError, match="'raywf init DIR' writes a first one"):
        load_workflow(tmp_path / "none.yaml", environ={})


def test_dumped_settings_load_unchanged(tmp_path: Path) -> None:
    """What travels to a job as a file is what was resolved here."""
    views = "features: {views: {weather: {path: w.csv, keys: [k], event_time: t, max_age: 90m}}}\n"
    workflow = load(tmp_path, GOOD + views, "monitor.window=36h", "cluster.cpus=2")
    (tmp_path / "dumped.json").write_text(dump_workflow(workflow))
    assert load_workflow(tmp_path / "dumped.json", environ={}) == workflow


def test_without_times_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    """With them there is a look once a week, unless it is switched off."""
    timed = GOOD.replace("label: left", "label: left\n  event_time: at")
    assert load(tmp_path).retrain.look is None
    assert load(tmp_path, timed).retrain.look == timedelta(days=7)
    assert load(tmp_path, timed, "retrain.look=null").retrain.look is None
