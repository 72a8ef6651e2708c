"""What refuses a snapshot and what only warns."""

from __future__ import annotations

import dataclasses
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.codec import DecodeError, decode
from raywf.core.errors import ValidationError
from raywf.core.records import Column
from raywf.core.settings import MonitorSettings, SpineSettings, ValidateSettings, Workflow
from raywf.snapshots.checks import Content, check_content, check_rows
from raywf.snapshots.labels import LabelCounts, check_values, find_classes

N = 400


def workflow(task="binary", **validate):
    """Settings of a spine with one key and times."""
    spine = SpineSettings(path="s.csv", label="y", keys=("id",), event_time="at", label_time="known")
    return Workflow(name="w", task=task, spine=spine, validate=ValidateSettings(**validate))


def counts(classes, *, early=0, low=0.0, high=1.0):
    """Label counts."""
    rows = sum(classes.values()) or N
    return LabelCounts(rows, Counter(classes), low, high, early)


def content(values=None, *, kind="number", keys=None, labels=None):
    """A sound table with the one feature given."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, N).astype(float)
    keys = np.arange(N) if keys is None else keys
    table = pa.table(
        {
            "x": pa.array(rng.normal(size=N) if values is None else values),
            "__label": label,
            "__key": keys,
            "__key:id": [f"k{key}" for key in keys],
            "__time": [datetime(2020, 1, 1, tzinfo=UTC)] * N,
        }
    )
    labels = labels or counts({"no": 200, "yes": 200})
    classes = tuple(sorted(labels.classes))
    return Content(table, table.slice(0, 0), keys, labels, classes, (Column(name="x", kind=kind),))


def test_sound_data_passes_without_warning():
    """Nothing to say."""
    assert check_content(content(), workflow()) == ()


def test_too_few_rows_are_refused():
    """The message says how many there are."""
    with pytest.raises(ValidationError, match="only 99 rows have a known label"):
        check_rows(99, workflow())


def test_a_rare_class_is_refused():
    """Named, with its share."""
    labels = counts({"no": 9999, "yes": 1})
    with pytest.raises(ValidationError, match=r"class 'yes' of label 'y' has 1 of 10000 rows"):
        check_content(content(labels=labels), workflow())


def test_a_constant_target_is_refused():
    """A regression needs a label that varies."""
    labels = counts({}, low=2.0, high=2.0)
    with pytest.raises(ValidationError, match="label 'y' is 2 in every row"):
        check_content(content(labels=labels), workflow("regression"))


def test_repeated_keys_are_refused_with_an_example():
    """The example can be looked up."""
    keys = np.arange(N)
    keys[7] = keys[3]
    with pytest.raises(ValidationError, match=r"1 rows .* such as id = 'k3', at = 2020-01-01"):
        check_content(content(keys=keys), workflow())


def test_labels_before_their_event_are_refused_when_many():
    """More than one in a hundred."""
    labels = counts({"no": 200, "yes": 200}, early=5)
    with pytest.raises(ValidationError, match="5 of 400 rows have 'known' before 'at'"):
        check_content(content(labels=labels), workflow())


def test_labels_before_their_event_are_warned_of_when_few():
    """A handful of wrong clocks."""
    labels = counts({"no": 200, "yes": 200}, early=2)
    assert "2 of 400 rows" in check_content(content(labels=labels), workflow())[0]


@pytest.mark.parametrize(
    ("values", "kind", "warning"),
    [
        (pa.nulls(N, pa.float64()), "number", "missing in every row"),
        ([1.0] * N, "number", "same value in every row"),
        ([f"id{i}" for i in range(N)], "category", "looks like an identifier"),
    ],
)
def test_odd_columns_are_warned_of(values, kind, warning):
    """They stay in the snapshot."""
    (text,) = check_content(content(values, kind=kind), workflow())
    assert warning in text


def test_many_categories_are_warned_of():
    """Those that models do not tell apart, with the share of rows that have them."""
    names = [f"n{i}" for i in range(500)] * 3 + [f"rare{i}" for i in range(100)]
    given = content(["a"] * N, kind="category")
    sample = given.sample.take(pa.array(np.arange(len(names)) % N)).set_column(0, "x", [names])
    (text,) = check_content(dataclasses.replace(given, sample=sample), workflow())
    assert "has 600 values; models read the commonest 500 and the others, in 6.2% of the rows" in text


def test_a_mostly_missing_column_is_warned_of():
    """Above `max_missing`, with the share."""
    values = pa.array([None] * 380 + list(np.random.default_rng(1).normal(size=20)))
    assert check_content(content(values), workflow(max_missing=0.9)) == (
        "column 'x' is missing in 95.0% of the rows",
    )


def test_a_leak_is_refused_with_what_to_do():
    """The message names the column and the two ways out."""
    label = content().sample.column("__label").to_numpy()
    with pytest.raises(ValidationError, match=r"column 'x'.*features.exclude: \[x\].*on_leak: warn"):
        check_content(content(label * 2.0), workflow())


def test_a_leak_is_warned_of_where_asked():
    """The build goes on."""
    label = content().sample.column("__label").to_numpy()
    assert "AUC" in check_content(content(label * 2.0), workflow(on_leak="warn"))[0]


def test_the_positive_class_comes_last():
    """Index 1 is what probabilities speak of."""
    spine = SpineSettings(path="s", label="y", positive="no")
    named = Workflow(name="w", task="binary", spine=spine)
    assert find_classes(counts({"no": 1, "yes": 1}), named) == ("yes", "no")


def test_an_unknown_positive_class_is_refused():
    """With the nearest class."""
    spine = SpineSettings(path="s", label="y", positive="yess")
    named = Workflow(name="w", task="binary", spine=spine)
    with pytest.raises(ValidationError, match="did you mean 'yes'"):
        find_classes(counts({"no": 1, "yes": 1}), named)


def test_three_classes_are_not_binary():
    """The classes are shown."""
    with pytest.raises(ValidationError, match=r"has 3 classes \('a', 'b', 'c'\)"):
        find_classes(counts({"a": 1, "b": 1, "c": 1}), workflow())


def test_values_name_classes():
    """Of two a wrong name is refused, of several it may be one to come."""
    worth = MonitorSettings(values={"yes": {"nope": 1.0}})
    with pytest.raises(ValidationError, match=r"monitor.values: 'nope' is no class of the label 'y'"):
        check_values(("no", "yes"), dataclasses.replace(workflow(), monitor=worth))
    several = dataclasses.replace(workflow(), monitor=worth, task="multiclass", metric="log_loss")
    assert "'nope' is no class" in check_values(("no", "yes", "maybe"), several)[0]
    assert check_values(("no", "yes"), workflow()) == ()
    flags = decode(MonitorSettings, {"values": {True: {False: 1.0, 1: 2.0}}})
    assert flags.values == {"true": {"false": 1.0, "1": 2.0}}
    with pytest.raises(ValidationError, match="quote them"):
        check_values(("no", "yes"), dataclasses.replace(workflow(), monitor=flags))
    with pytest.raises(DecodeError, match="without 'values' for a regression"):
        dataclasses.replace(workflow(), monitor=worth, task="regression", metric="rmse")
