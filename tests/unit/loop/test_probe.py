"""What a look compares: rows that neither model has seen, in classes that may have grown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.records import Bundle, Column, Snapshot
from raywf.core.settings import SearchSettings, SpineSettings, Workflow
from raywf.loop.probe import probe, quick_answers, split, spread
from raywf.models.bundle import Predictor, load_bundle
from raywf.testing import small_bundle, small_table

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000


def history(rows: int, *, delay_h: int = 0, maturity_s: float = 0.0) -> tuple[Snapshot, pa.Table]:
    """A row an hour, its label known so many hours later."""
    table = small_table(rows, np.random.default_rng(0))
    table = table.append_column("__label", pa.array((table["distance"].to_numpy() > 1500).astype(float)))
    times = int(START.timestamp() * 1e6) + HOUR_US * np.arange(rows)
    for name, values in (("__time", times), ("__label_time", times + HOUR_US * delay_h)):
        table = table.append_column(name, pa.array(values, pa.timestamp("us", "UTC")))
    kinds = {"double": "number", "string": "category"}
    columns = tuple(
        Column(name=f.name, kind=kinds.get(str(f.type), "time"))
        for f in table.schema
        if not f.name.startswith("__")
    )
    snapshot = Snapshot(
        id="s",
        workflow="w",
        uri="",
        rows=rows,
        columns=columns,
        task="binary",
        classes=("no", "late"),
        label="late",
        has_time=True,
        window=None,
        as_of=START + timedelta(hours=rows + delay_h),
        digest="",
        profile=(),
        sources=(),
        maturity_s=maturity_s,
    )
    return snapshot, table


class Knowing(Predictor):
    """A champion that no quick model is a match for: it knows the labels of the rows that it is asked for."""

    def __init__(self, bundle: Bundle, labels: np.ndarray) -> None:
        self.bundle, self._labels = bundle, labels

    def predict_table(self, table: pa.Table) -> np.ndarray:
        """Answer the rows in order; they are as many as the labels."""
        assert table.num_rows == len(self._labels)
        return np.where(self._labels[:, None] == 1, 0.9, 0.1)


@pytest.mark.parametrize(
    ("class_weight", "weighed", "is_even"),
    [("none", False, False), ("balanced", False, True), ("none", True, True)],
)
def test_rows_count_as_in_a_search(class_weight: str, weighed: bool, is_even: bool):
    """A champion of balanced classes would lose beside one that knows how rare one is, for ever."""
    snapshot, table = history(4000)
    rare = np.random.default_rng(1).random(4000) < 0.05
    table = table.set_column(table.column_names.index("__label"), "__label", pa.array(rare.astype(float)))
    spine = SpineSettings(path="rows.parquet", label="late", event_time="at")
    workflow = Workflow(
        name="w", task="binary", spine=spine, search=SearchSettings(class_weight=class_weight)
    )
    weights = np.where(rare, 19.0, 1.0) if weighed else None
    some = np.arange(4000)
    found = quick_answers(workflow, snapshot, table, fitted=some, scored=some, weights=weights)
    assert (found.mean() > 0.2) == is_even  # one of twenty is of the rare class


@pytest.mark.parametrize(("delay_h", "maturity_h", "then"), [(0, 0, 101), (24, 0, 77), (24, 48, 53)])
def test_rows_are_parted_by_what_was_known(delay_h, maturity_h, then):
    """Those whose label had come, and that were as old as labels need."""
    snapshot, table = history(200, delay_h=delay_h, maturity_s=maturity_h * 3600.0)
    rows = split(snapshot, table, since=START + timedelta(hours=100))
    assert rows.then.tolist() == list(range(then))
    assert rows.new.tolist() == list(range(then, 200))


def test_of_many_rows_half_are_the_newest_and_the_others_drawn():
    """20,000 are fitted on, 4,000 scored."""
    snapshot, table = history(60_000)
    rows = split(snapshot, table, since=START + timedelta(hours=50_000))
    assert len(rows.then) == len(set(rows.then.tolist())) == 20_000
    assert (np.diff(rows.then) > 0).all()
    assert (rows.then > 40_000).sum() == 10_000
    assert rows.new.tolist() == list(range(56_000, 60_000))


def test_a_stale_champion_is_regretted(tmp_path: Path):
    """One that learned noise, beside a quick one; where the labels are what it says, it is not."""
    workflow = Workflow(
        name="w", task="binary", spine=SpineSettings(path="x.csv", label="late", event_time="at")
    )
    snapshot, table = history(3000)
    since = START + timedelta(hours=2000)
    champion = load_bundle(small_bundle(tmp_path / "b").uri)
    bad = probe(workflow, snapshot, table, champion, version="1", since=since)
    said = (champion.predict_table(table)[:, 0] > 0.5).astype(float)
    agreed = table.set_column(table.column_names.index("__label"), "__label", pa.array(said))
    good = probe(workflow, snapshot, agreed, champion, version="1", since=since)
    assert good.rows == bad.rows == 999
    assert bad.regret > 0.3 > 0 > good.regret
    assert 0 < bad.error < 0.1
    assert bad.since == since
    assert bad.time == snapshot.as_of


def test_few_rows_tell_nothing(tmp_path: Path):
    """Neither of fewer than thirty new ones."""
    workflow = Workflow(
        name="w", task="binary", spine=SpineSettings(path="x.csv", label="late", event_time="at")
    )
    snapshot, table = history(300)
    champion = load_bundle(small_bundle(tmp_path / "b").uri)
    found = probe(workflow, snapshot, table, champion, version="1", since=START + timedelta(hours=280))
    assert (found.rows, found.regret) == (0, 0.0)


def test_scores_of_other_classes():
    """A class that the model does not know has none; two stay one column."""
    scores = np.array([[0.1, 0.9]])
    assert spread(scores, ("b", "a"), ("a", "b", "c")).tolist() == [[0.9, 0.1, 0.0]]
    assert spread(np.array([[0.3]]), ("a", "b"), ("a", "b")).tolist() == [[0.3]]


def test_newer_rows_count_where_the_quick_model_is_no_match(tmp_path: Path):
    """The world turns after what the champion saw: newer rows are of use, however good it is itself."""
    workflow = Workflow(
        name="w", task="binary", spine=SpineSettings(path="x.csv", label="late", event_time="at")
    )
    snapshot, table = history(4000)
    labels = table["__label"].to_numpy().copy()
    labels[1500:] = 1 - labels[1500:]
    table = table.set_column(table.column_names.index("__label"), "__label", pa.array(labels))
    model = load_bundle(small_bundle(tmp_path / "b").uri)
    seen = replace(model.bundle, fitted_until=START + timedelta(hours=1500))
    until = START + timedelta(hours=3000)
    champion = Knowing(seen, labels[3001:])
    found = probe(workflow, snapshot, table, champion, version="1", since=until)
    assert found.regret < 0
    assert found.newer > 1
    assert found.growth == pytest.approx(4000 / 1501)
    windowed = replace(workflow, validate=replace(workflow.validate, window=timedelta(days=300)))
    assert probe(windowed, snapshot, table, champion, version="1", since=until).growth is None


def test_without_newer_rows_there_is_no_gain(tmp_path: Path):
    """Both quick models are one."""
    workflow = Workflow(
        name="w", task="binary", spine=SpineSettings(path="x.csv", label="late", event_time="at")
    )
    snapshot, table = history(2000)
    labels = np.random.default_rng(0).integers(0, 2, 2000).astype(float)
    table = table.set_column(table.column_names.index("__label"), "__label", pa.array(labels))
    model = load_bundle(small_bundle(tmp_path / "b").uri)
    since = START + timedelta(hours=1000)
    told = Knowing(replace(model.bundle, fitted_until=since), labels[1001:])
    found = probe(workflow, snapshot, table, told, version="1", since=since)
    assert (found.former, found.newer) == (found.quick, 0.0)
    assert found.regret < 0
