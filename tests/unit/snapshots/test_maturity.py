"""When labels that come soon are no fair sample, and how long is waited then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.codec import DecodeError
from raywf.core.errors import ValidationError
from raywf.core.settings import SpineSettings, Workflow
from raywf.snapshots.maturity import Maturity, check_maturity, find_maturity

DAY = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
N = 4000
rng = np.random.default_rng(0)


def workflow(task: str = "binary", **spine: object) -> Workflow:
    """Settings of a spine with times of events and labels."""
    return Workflow(
        name="w",
        task=task,
        spine=SpineSettings(path="s.csv", label="y", event_time="at", label_time="known", **spine),
    )


def sample(labels: np.ndarray, waited: np.ndarray, *, times: np.ndarray | None = None) -> pa.Table:
    """Rows at the given days, or spread evenly over 400, and how many days each label took."""
    days = np.linspace(0, 400, len(labels)) if times is None else times
    stamps = [(d * DAY).astype(np.int64) for d in (days, days + waited)]
    at, known = (pa.array(s, pa.timestamp("us", "UTC")) for s in stamps)
    return pa.table({"__label": labels.astype(float), "__time": at, "__label_time": known})


def find(table: pa.Table, flow: Workflow | None = None, *, day: float = 400) -> Maturity:
    """What is found as of a day."""
    return find_maturity(table, flow or workflow(), as_of=EPOCH + timedelta(days=day))


def flips(share: float = 0.5, rows: int = N) -> np.ndarray:
    """Labels 1 at random."""
    return rng.random(rows) < share


def test_labels_that_come_alike_are_not_waited_for() -> None:
    """The delay says nothing of the label."""
    for task in ("binary", "regression"):
        assert find(sample(flips(), rng.uniform(0, 30, N)), workflow(task)) == Maturity()


def test_a_fixed_delay_is_not_waited_for_twice() -> None:
    """All labels come after a week."""
    assert find(sample(flips(), np.full(N, 7.0))) == Maturity()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_one_class_that_comes_sooner_is_waited_for(task: str) -> None:
    """Until nineteen of twenty labels of old rows have come."""
    labels = flips()
    waited = np.where(labels, rng.uniform(0, 5, N), rng.uniform(0, 40, N))
    found = find(sample(labels, waited), workflow(task))
    assert timedelta(days=33) < found.age == found.wanted < timedelta(days=39)


def test_a_rare_class_counts_like_others() -> None:
    """Five conversions in a thousand, known soon."""
    labels = flips(0.005, 40_000)
    waited = np.where(labels, rng.uniform(0, 10, 40_000), rng.uniform(0, 40, 40_000))
    assert find(sample(labels, waited)).age > timedelta(days=35)


def test_delays_of_another_spread_are_waited_for() -> None:
    """One class is known in the middle of the other's delays."""
    labels = flips(0.4)
    waited = np.where(labels, rng.uniform(14, 16, N), rng.uniform(0, 30, N))
    assert find(sample(labels, waited)).age > timedelta(days=25)


def test_values_that_go_with_the_delay_are_waited_for() -> None:
    """A regression's labels, too; also where the least and the greatest come late."""
    waited = rng.uniform(0, 10, N)
    for labels in (waited**2, (waited - 5) * rng.choice([-1, 1], N)):
        assert find(sample(labels, waited), workflow("regression")).age > timedelta(days=9)


def test_a_short_history_is_not_spent_on_waiting() -> None:
    """At most a third of the rows are left out; a stray old row changes nothing."""
    labels = flips()
    waited = np.where(labels, 0, 50)
    short = find(sample(labels, waited, times=np.linspace(0, 90, N)), day=90)
    assert timedelta(days=29) < short.age < timedelta(days=31)
    assert short.wanted == timedelta(days=50)
    growing = find(sample(labels, waited, times=700 - rng.exponential(60, N)), day=700)
    assert timedelta(days=22) < growing.age < timedelta(days=27)
    stray = np.linspace(0, 90, N)
    stray[0] = -10_000
    assert find(sample(labels, waited, times=stray), day=90).age == short.age


def test_ages_count_from_the_newest_label() -> None:
    """An extract that ends months before as_of has its young rows left out all the same."""
    labels = flips()
    waited = np.where(labels, rng.uniform(0, 5, N), rng.uniform(0, 40, N))
    extract = sample(labels, waited).filter(pa.array(np.linspace(0, 400, N) + waited <= 400))
    now, later = find(extract), find(extract, day=500)
    assert later.until_us == now.until_us == pytest.approx((400 - now.age / timedelta(days=1)) * DAY, abs=DAY)


def test_many_equal_values_are_a_group() -> None:
    """Claims: most are nothing and known late."""
    paid = flips(0.2)
    waited = np.where(paid, rng.uniform(0, 5, N), rng.uniform(20, 40, N))
    for sign in (1, -1):
        found = find(sample(sign * paid * rng.uniform(1, 9, N), waited), workflow("regression"))
        assert found.age > timedelta(days=35)


def test_a_given_age_is_taken() -> None:
    """Also none at all; without a warning."""
    labels = flips()
    selective = sample(labels, np.where(labels, 0, 50))
    for age in (timedelta(0), timedelta(days=9)):
        found = find(selective, workflow(maturity=age))
        assert found.age == age
        assert check_maturity(found, workflow(), rows=1000, left_out=500) == ()


def test_rows_without_a_label_time_are_as_they_are() -> None:
    """There is nothing to wait for; nor where there are none."""
    labels = flips()
    known = sample(labels, np.where(labels, 0, 50))
    assert find(known.drop_columns(["__label_time"])) == Maturity()
    assert find(known.slice(0, 0)) == Maturity()


def test_an_age_needs_the_time_of_the_label() -> None:
    """Otherwise the setting would say nothing."""
    with pytest.raises(DecodeError, match="maturity"):
        SpineSettings(path="s.csv", label="y", maturity=timedelta(days=1))


def test_a_share_left_out_is_told() -> None:
    """In one line with the age, and with the one that were enough; a few rows are not worth one."""
    hours, days = timedelta(hours=36), timedelta(days=42, hours=3)
    assert check_maturity(Maturity(age=hours, wanted=hours), workflow(), rows=1000, left_out=5) == ()
    (said,) = check_maturity(Maturity(age=hours, wanted=days), workflow(), rows=1000, left_out=100)
    assert "100 labelled rows, younger than 36h at as_of, of 42d that" in said


def test_too_few_old_rows_are_refused() -> None:
    """The message says that there are younger ones."""
    age = timedelta(days=30)
    with pytest.raises(ValidationError, match=r"only 3 labelled rows are as old as 30d.*900 are younger"):
        check_maturity(Maturity(age=age, wanted=age, given=True), workflow(), rows=3, left_out=900)
