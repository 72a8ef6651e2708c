"""The user's own Python: read, checked without running it, run once and only by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from raywf.core.errors import SettingsError
from raywf.core.loader import load_workflow
from raywf.core.own import read_code, workflow_metric

METRIC = "import numpy as np\n\ndef profit(labels, scores):\n    return float(np.mean(labels * scores))\n"
WORKFLOW = """\
name: w
task: binary
spine: {path: a.csv, label: y}
metric: profit
metrics: {profit: {code: own.py:profit, greater_is_better: true, trust: true}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a workflow and the file that it names."""
    (tmp_path / "own.py").write_text(METRIC)
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    return tmp_path


def test_a_metric_of_the_user_s_own(folder: Path) -> None:
    """It scores vectors of one score column, in another process too, and goes the way that it was told."""
    metric = workflow_metric(load_workflow(folder / "workflow.yaml", environ={}))
    metric = pickle.loads(pickle.dumps(metric))
    labels, scores = np.array([0.0, 1.0]), np.array([[0.3], [0.8]])
    assert metric.score(labels, scores) == pytest.approx(0.4)
    assert metric.best_loss(labels, scores) == pytest.approx(-0.4)


def test_reading_runs_nothing(tmp_path: Path) -> None:
    """Only using it does."""
    (tmp_path / "own.py").write_text("raise RuntimeError('was run')\ndef f(): ...\n")
    code = read_code(f"{tmp_path}/own.py:f")
    with pytest.raises(SettingsError, match=r"own.py cannot be run: RuntimeError: was run"):
        code.load()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("own.py:profit", "own.py:profti"), "defines no 'profti' at its top; did you mean 'profit'"),
        (("own.py:profit", "away.py:profit"), "cannot read .*away.py"),
        (("own.py:profit", "profit"), "code is given as file.py:Name"),
        ((", trust: true", ""), "line 5: .*trust must be true: the file's Python is run as it is"),
        (("metrics: {profit", "metrics: {roc_auc"), "named otherwise than raywf's metrics"),
        (("metric: profit", "metric: gain"), "metric must be one of"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, change: tuple[str, str], expected: str) -> None:
    """Before anything starts."""
    (folder / "workflow.yaml").write_text(WORKFLOW.replace(*change))
    with pytest.raises(SettingsError, match=expected):
        load_workflow(folder / "workflow.yaml", environ={})


def test_bad_python_is_refused_with_its_line(folder: Path) -> None:
    """As Python says it."""
    (folder / "own.py").write_text("x = 1\ndef profit(:\n")
    with pytest.raises(SettingsError, match=r"own.py line 2: "):
        load_workflow(folder / "workflow.yaml", environ={})
