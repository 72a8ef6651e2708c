"""When labels that come soon are no fair sample, and how long is waited then."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from raywf.core.codec import DecodeError
from raywf.core.settings import SpineSettings, Workflow
from raywf.snapshots.maturity import Delays, find_maturity, tell_maturity

DAY = 86_400_000_000
N = 2000


def workflow(task: str = "binary", **spine: object) -> Workflow:
    """Settings of a spine with times of events and labels."""
    return Workflow(
        name="w",
        task=task,
        spine=SpineSettings(path="s.csv", label="y", event_time="at", label_time="known", **spine),
    )


def delays(labels: np.ndarray, waited: np.ndarray, *, days: float = 400) -> Delays:
    """Rows spread evenly over so many days, and how many days each label took."""
    times = np.linspace(0, days * DAY, len(labels)).astype(np.int64)
    return Delays(labels=labels, times=times, waited=(waited * DAY).astype(np.int64))


def draws() -> tuple[np.ndarray, np.random.Generator]:
    """Half of the labels 1, at random."""
    rng = np.random.default_rng(0)
    return (rng.random(N) < 0.5).astype(float), rng


def test_labels_that_come_alike_are_not_waited_for() -> None:
    """The delay says nothing of the label."""
    labels, rng = draws()
    assert find_maturity([delays(labels, rng.uniform(0, 30, N))], workflow()) == timedelta(0)


def test_a_fixed_delay_is_not_waited_for_twice() -> None:
    """All labels come after a week."""
    labels, _ = draws()
    assert find_maturity([delays(labels, np.full(N, 7.0))], workflow()) == timedelta(0)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_one_class_that_comes_sooner_is_waited_for(task: str) -> None:
    """Until nineteen of twenty labels of old rows have come, whatever the parts."""
    labels, rng = draws()
    found = delays(labels, np.where(labels == 1, rng.uniform(0, 5, N), rng.uniform(0, 40, N)))
    parts = [
        Delays(labels=found.labels[part], times=found.times[part], waited=found.waited[part])
        for part in np.array_split(np.arange(N), 3)
    ]
    wait = find_maturity(parts, workflow(task))
    assert timedelta(days=33) < wait < timedelta(days=39)


def test_values_that_grow_with_the_delay_are_waited_for() -> None:
    """A regression's labels, too."""
    waited = np.random.default_rng(0).uniform(0, 10, N)
    assert find_maturity([delays(waited**2, waited)], workflow("regression")) > timedelta(days=8)


def test_a_short_history_is_not_spent_on_waiting() -> None:
    """At most a sixth of the span."""
    labels, _ = draws()
    found = find_maturity([delays(labels, np.where(labels == 1, 0, 50), days=90)], workflow())
    assert found == timedelta(days=15)


def test_a_given_age_is_taken() -> None:
    """Also none at all."""
    labels, _ = draws()
    selective = delays(labels, np.where(labels == 1, 0, 50))
    assert find_maturity([selective], workflow(maturity=timedelta(0))) == timedelta(0)
    assert find_maturity([selective], workflow(maturity=timedelta(days=9))) == timedelta(days=9)


def test_rows_without_a_label_time_are_as_they_are() -> None:
    """There is nothing to wait for."""
    none = Delays(labels=np.empty(0), times=np.empty(0, np.int64), waited=np.empty(0, np.int64))
    assert find_maturity([none], workflow()) == timedelta(0)


def test_an_age_needs_the_time_of_the_label() -> None:
    """Otherwise the setting would say nothing."""
    with pytest.raises(DecodeError, match="maturity"):
        SpineSettings(path="s.csv", label="y", maturity=timedelta(days=1))


def test_a_share_left_out_is_told() -> None:
    """In one line with the age; a few rows are not worth one."""
    assert tell_maturity(timedelta(hours=8), rows=1000, left_out=5) == ()
    (said,) = tell_maturity(timedelta(days=42), rows=1000, left_out=100)
    assert "100 labelled rows, younger than 42d" in said
