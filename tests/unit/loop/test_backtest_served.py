"""The outcome log as a history: each row as it was asked for, with the label that counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raywf.core.errors import SettingsError
from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.settings import FeatureSettings, SpineSettings, StoreSettings, ViewSettings, Workflow
from raywf.loop.backtest.served import ID, KNOWN_AT, SERVED_AT, served_workflow
from raywf.monitor.reference import Reference
from raywf.outcomes.writer import LogWriter

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PROFILE = (
    ColumnProfile(name="x", kind="number", edges=(0.0,), counts=(1, 1)),
    ColumnProfile(name="s", kind="category", values=("a",), counts=(1, 0)),
    ColumnProfile(name="t", kind="time", edges=(0.0,), counts=(1, 1)),
)


def workflow(root: Path, task: str = "binary") -> Workflow:
    views = {"w": ViewSettings(path="w.csv", keys=("k",))}
    return Workflow(
        name="churn",
        task=task,  # type: ignore[arg-type]
        spine=SpineSettings(path="x.csv", label="y", keys=("k",), weight="importance", group="home"),
        features=FeatureSettings(exclude=("k",), views=views),
        stores=StoreSettings(root=str(root)),
    )


def reference(classes: tuple[str, ...] = ("no", "yes")) -> Reference:
    return Reference(version="2", task="binary", classes=classes, profile=PROFILE)


def said(identity: str, day: int, version: str = "1", **features: object) -> Prediction:
    return Prediction(id=identity, time=START + day * DAY, version=version, features=features, scores=(0.5,))


def came(identity: str, day: int, label: str | float) -> Outcome:
    return Outcome(id=identity, time=START + day * DAY, label=label)


def test_each_labelled_row_is_there_once(tmp_path: Path) -> None:
    """The earliest prediction of an id with its latest label, since that was said first; of any version."""
    with LogWriter(str(tmp_path), "churn") as log:
        log.append([said("b", 2, x=2, s=True, old=5), said("a", 1, x=1.5, s="a", t="2025-12-31T00:00:00Z")])
        log.append([said("a", 3, x=9), said("c", 4, "2", x=3), came("a", 2, "no"), came("d", 2, "yes")])
        log.append([came("b", 9, "no"), came("b", 12, "no"), came("a", 8, "yes"), came("c", 9, "perhaps")])
    found = served_workflow(workflow(tmp_path), reference())
    table = pq.read_table(found.spine.path).to_pylist()
    known = [{name: value for name, value in row.items() if name != ID} for row in table]
    assert known == [
        {
            SERVED_AT: START + DAY,
            KNOWN_AT: START + 8 * DAY,
            "y": "yes",
            "x": 1.5,
            "s": "a",
            "t": datetime(2025, 12, 31, tzinfo=UTC),
        },
        {
            SERVED_AT: START + 2 * DAY,
            KNOWN_AT: START + 9 * DAY,
            "y": "no",
            "x": 2.0,
            "s": "true",
            "t": None,
        },
    ]
    assert len({row[ID] for row in table}) == 2


def test_the_workflow_is_of_that_table(tmp_path: Path) -> None:
    """With times and keys of its own, and nothing to be joined again."""
    with LogWriter(str(tmp_path), "churn") as log:
        log.append([said("a", 1, x=1), came("a", 2, 3)])
    found = served_workflow(workflow(tmp_path, "regression"), reference(classes=()))
    spine, features = found.spine, found.features
    assert found.name == "churn-served"
    assert (spine.keys, spine.event_time, spine.label_time) == ((ID,), SERVED_AT, KNOWN_AT)
    assert (spine.weight, spine.group, features.views, features.categorical) == (None, None, {}, ("s",))
    assert pq.read_table(spine.path).column("y").to_pylist() == [3.0]


def test_a_log_without_labels_is_no_history(tmp_path: Path) -> None:
    """Nor is one without a row."""
    for rows in ([], [said("a", 1, x=1)], [came("b", 2, "no")]):
        with LogWriter(str(tmp_path), "churn") as log:
            log.append(rows)
        with pytest.raises(SettingsError, match="no prediction with a label yet"):
            served_workflow(workflow(tmp_path), reference())


def test_a_feature_may_have_the_label_s_name(tmp_path: Path) -> None:
    """As a column of a view may: the label has another one then."""
    profile = (ColumnProfile(name="y", kind="number", edges=(0.0,), counts=(1, 1)),)
    with LogWriter(str(tmp_path), "churn") as log:
        log.append([said("a", 1, y=7), came("a", 2, "yes")])
    found = served_workflow(workflow(tmp_path), replace(reference(), profile=profile))
    table = pq.read_table(found.spine.path)
    assert table.select(["y", found.spine.label]).to_pylist() == [{"y": 7.0, "raywf_label": "yes"}]


def test_a_metric_of_groups_has_no_meaning(tmp_path: Path) -> None:
    """The log does not say which rows belong together."""
    grouped = replace(workflow(tmp_path, "regression"), metric="ndcg")
    with pytest.raises(SettingsError, match=r"spine\.group.*the outcome log has none"):
        served_workflow(grouped, reference())
