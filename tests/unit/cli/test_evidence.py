"""`raywf evidence` on a log of its own, whose later windows have no labels; no Ray, no registry."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from raywf.cli.evidence import describe, describe_slices
from raywf.cli.main import cli
from raywf.core.errors import SettingsError
from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.service import Service
from raywf.core.settings import MonitorSettings, OwnMetricSettings, SpineSettings, StoreSettings, Workflow
from raywf.loop import evidence as module
from raywf.loop.evidence import Windows, fold_log, read_windows
from raywf.monitor.actor import PatientReferences
from raywf.monitor.drift import bin_values
from raywf.monitor.expectations import fit_expectations
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.writer import LogWriter
from raywf.testing import make_version

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, ROWS, LABELLED = 6, 300, 4
PROFILE = ColumnProfile(name="x", kind="number", edges=(0.25, 0.5, 0.75), counts=(25, 25, 25, 25))


def workflow(root: Path) -> Workflow:
    return Workflow(
        name="churn",
        task="binary",
        spine=SpineSettings(path="x.csv", label="y"),
        monitor=MonitorSettings(min_labelled=50),
        stores=StoreSettings(root=str(root)),
    )


def reference() -> Reference:
    draw = np.random.default_rng(0)
    x = draw.random(3000)
    labels = (draw.random(3000) < x).astype(float)
    bins = bin_values(x.tolist(), PROFILE)[:, None]
    expected = fit_expectations(
        "roc_auc", labels, x[:, None], bins, profile=(PROFILE,), threshold=0.5, scale=None
    )
    return Reference(
        version="1", task="binary", classes=("no", "yes"), profile=(PROFILE,), expectations=expected
    )


def write_log(root: Path) -> None:
    """Days of predictions, the first ones with labels; on the last labelled day high x says nothing."""
    draw = np.random.default_rng(1)
    with LogWriter(str(root), "churn") as log:
        for day in range(DAYS):
            for i, x in enumerate(draw.random(ROWS).tolist()):
                time, identity = START + timedelta(days=day, minutes=i), f"{day}-{i}"
                said = Prediction(id=identity, time=time, version="1", features={"x": x}, scores=(x,))
                odd = day == LABELLED - 1 and x > 0.75
                label = "yes" if draw.random() < (0.1 if odd else x) else "no"
                came = Outcome(id=identity, time=time + timedelta(hours=1), label=label)
                log.append([said, came] if day < LABELLED else [said])
            log.append([served(day)] if day else [])


def served(day: int) -> Service:
    return Service(
        id=f"r{day}",
        time=START + timedelta(days=day),
        length_s=86_400.0,
        version="1",
        answered=ROWS,
        refused=day,
        failed=0,
        cpu_s=7.2,
        times={-80: ROWS},
    )


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Windows:
    """The windows of the log."""
    write_log(tmp_path)
    monkeypatch.setattr(module, "find_version", lambda *_: make_version("1"))
    monkeypatch.setattr(module, "open_registry", lambda _workflow: None)
    monkeypatch.setattr(module, "RegistryReferences", lambda *_: KnownReferences({"1": reference()}))
    return read_windows(workflow(tmp_path), "champion")


def test_windows_without_labels_are_estimated(found: Windows) -> None:
    """As far off as estimates were in those with labels."""
    assert [w.labelled for w in found.windows] == [ROWS] * LABELLED + [0] * (DAYS - LABELLED)
    assert [s is None for s in found.settled] == [True] * LABELLED + [False] * (DAYS - LABELLED)
    assert found.judged is not None
    assert found.judged.windows == LABELLED
    assert found.judged.bias > 0  # the fall came without a sign
    last = found.settled[-1]
    assert last is not None
    assert last.value < found.windows[-1].estimate


def test_the_fall_is_told(found: Windows) -> None:
    """In words; the windows as a table."""
    lines = describe(found, last=3)
    text = "\n".join(lines)
    assert lines[0] == "version 1: 6 windows, the last 3"
    assert "~" in text
    assert "where x is above 0.75 it rose from" in text
    assert len([line for line in lines if line.startswith("2026-")]) == 6
    assert describe(replace(found, windows=(), settled=()), last=3) == ["version 1: no window in the log yet"]


def test_how_it_was_served_is_told(found: Windows) -> None:
    """Requests, their times, and what the replicas cost by the workflow's price; of one day nothing."""
    lines = describe(found, last=DAYS)
    at = next(i for i, line in enumerate(lines) if line.startswith("requests from"))
    assert lines[at].split() == ["requests", "from", "answered", "refused", "failed", "median", "99%", "USD"]
    told = [line.split() for line in lines[at + 1 : at + DAYS]]
    assert [one[:4] for one in told[:1]] == [["2026-01-02T00:00:00Z", str(ROWS), "1", "0"]]
    assert [one[4:8] for one in told] == [["0.977", "ms", "0.977", "ms"]] * (DAYS - 1)
    assert (found.usd[0], found.usd[1]) == (None, pytest.approx(7.2 / 3600 * 0.0504))
    bare = replace(found, windows=found.windows[:1], usd=(None,), settled=found.settled[:1])
    assert not any("requests from" in line for line in describe(bare, last=DAYS))


def test_slices_of_a_column(found: Windows, tmp_path: Path) -> None:
    """Each value of a column has its rows, its figures with intervals and what was promised."""
    windows = read_windows(workflow(tmp_path), "champion", by="x", last=4)
    assert windows.windows == found.windows
    assert {one.value for one in windows.slices} == {
        "at most 0.25",
        "above 0.25, at most 0.5",
        "above 0.5, at most 0.75",
        "above 0.75",
    }
    assert sum(one.rows for one in windows.slices) == 4 * ROWS
    high = next(one for one in windows.slices if one.value == "above 0.75")
    assert high.labelled < high.rows  # the newest two of four windows have no labels
    assert high.loss is not None
    assert high.loss_low is not None
    assert high.promised is not None
    assert high.loss_low > high.promised  # there the last labelled day is another world
    lines = describe_slices(windows, "x")
    assert lines[1].split() == ["x", "rows", "labelled", "roc_auc", "loss", "at", "promotion"]
    assert len(lines) == 2 + len(windows.slices)
    whole = read_windows(workflow(tmp_path), "champion", by="x", last=100).slices
    assert sum(one.rows for one in whole) == DAYS * ROWS


def test_a_metric_of_the_user_s_own_is_realised(found: Windows, tmp_path: Path) -> None:
    """Each labelled window has its value with an interval, and so has each slice."""
    (tmp_path / "mine.py").write_text(
        "def profit(labels, scores):\n    return float((labels * (scores > 0.5)).mean())\n"
    )
    own = OwnMetricSettings(code=f"{tmp_path}/mine.py:profit", greater_is_better=True, trust=True)
    theirs = replace(workflow(tmp_path), metric="profit", metrics={"profit": own})
    windows = read_windows(theirs, "champion", by="x", last=DAYS)
    assert [w.metric is None for w in windows.windows] == [False] * LABELLED + [True] * (DAYS - LABELLED)
    assert [w.loss_sum for w in windows.windows] == [w.loss_sum for w in found.windows]
    first = windows.windows[0]
    assert first.metric is not None
    assert first.metric_low is not None
    assert first.metric_low < first.metric < 0.5
    assert all(one.metric is not None for one in windows.slices)
    assert windows.settled == (None,) * DAYS


def test_windows_beside_the_one_before(found: Windows, tmp_path: Path) -> None:
    """The day after the one on which high x said nothing, labels moved back; the first has none before."""
    windows = read_windows(workflow(tmp_path), "champion", since=True)
    assert windows.windows == found.windows
    first, *rest = windows.moved
    assert first is None
    assert len(rest) == DAYS - 1
    for moved in rest:
        assert moved is not None
        assert [d.column for d in moved.drift] == ["x"]
        assert moved.drift[0].psi < 0.1  # days are alike
        assert moved.answers is not None
        assert moved.answers.psi < 0.2
    told = [moved.labels and moved.labels.psi for moved in rest if moved is not None]
    assert told[LABELLED - 1 :] == [None] * (DAYS - LABELLED)  # no label yet
    assert told[LABELLED - 2] > max(told[: LABELLED - 2])  # the odd day
    lines = describe(windows, last=3)
    assert lines[2].endswith("moved since")
    assert len(lines[4:7]) == 3


def test_slices_of_few_labels_have_no_figures(found: Windows, tmp_path: Path) -> None:
    """The newest windows have no label; a column that is not the model's is named."""
    assert found.slices == ()
    unlabelled = read_windows(workflow(tmp_path), "champion", by="x", last=DAYS - LABELLED).slices
    assert {(one.labelled, one.metric, one.loss) for one in unlabelled} == {(0, None, None)}
    with pytest.raises(SettingsError, match="version 1 has no column 'y'"):
        read_windows(workflow(tmp_path), "champion", by="y")
    assert describe_slices(found, "x")[1] == "by x: no row's window is within monitor.horizon"
    assert describe_slices(replace(found, windows=()), "x")[1] == "by x: no row yet"


def test_what_is_read_at_once_or_from_a_checkpoint_is_the_same(found: Windows, tmp_path: Path) -> None:
    """Nothing but the log is needed."""
    chosen = workflow(tmp_path)
    again = fold_log(chosen, PatientReferences(KnownReferences({"1": reference()})))
    assert again.evidence("1") == found.windows


def test_no_such_version(tmp_path: Path) -> None:
    """One line says so."""
    (tmp_path / "workflow.yaml").write_text("name: churn\ntask: binary\nspine: {path: x.csv, label: y}\n")
    ran = CliRunner().invoke(cli, ["evidence", "-f", str(tmp_path / "workflow.yaml")])
    assert ran.exit_code != 0
    assert "has no version 'champion'" in str(ran.exception or ran.output)
