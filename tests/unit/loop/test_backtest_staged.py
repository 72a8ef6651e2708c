"""A rollout in simulated time, judged by what two versions said to the same rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.records import ColumnProfile, Outcome
from raywf.core.serving_settings import RolloutSettings
from raywf.loop.backtest.staged import Live, Made, Staged
from raywf.models.bundle import Predictor
from raywf.monitor.reference import Reference
from raywf.testing import make_decision, make_version

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CLASSES, _ROWS = ("no", "yes"), 20
SETTINGS = RolloutSettings(
    mode="canary",
    steps=(0.1, 0.5),
    bake=10 * HOUR,
    watch=200 * HOUR,
    min_rows=20,
    min_labelled=50,
    margin=0.1,
)


def live(number: str) -> Live:
    """A version of which nothing but its name and its classes is asked."""
    reference = Reference(version=number, task="binary", classes=CLASSES)
    return Live(make_version(number), cast("Predictor", None), (), START, reference)


def staged(mode: str, settings: RolloutSettings = SETTINGS) -> Staged:
    decision = make_decision("d", time=START, effort="refit")
    return Staged(
        mode,  # type: ignore[arg-type]  # of its words
        settings,
        number=1,
        champion=live("1"),
        challenger=live("2"),
        profile=(ColumnProfile(name="lane", kind="category", values=("north", "south")),),
        now=START,
        made=Made(decision=decision, reason="", cpu_s=1.0, cost_usd=0.0),
    )


def play(
    one: Staged, *, right: tuple[float, float], south: float | None = None, most: int = 600
) -> list[str]:
    """Send a row an hour, known at once, and look each 20 rows; return the stages and shares on the way.

    `right` are the chances with which champion and challenger are right; where the lane is south, `south` is
    the challenger's.
    """
    draw, told = np.random.default_rng(0), [f"{one.step.stage} {one.step.share:g}"]
    for first in range(0, most, _ROWS):
        ids = [str(i) for i in range(first, first + _ROWS)]
        times = [START + i * HOUR for i in range(first, first + _ROWS)]
        labels, is_south = draw.integers(0, 2, _ROWS), draw.random(_ROWS) < 0.5
        theirs = np.where(is_south & (south is not None), south or 0.0, right[1])
        scores = (_scores(draw, labels, right[0]), _scores(draw, labels, theirs))
        table = pa.table({"lane": np.where(is_south, "south", "north")})
        one.see(ids, times, table, theirs=one.lanes(ids, table), scores=scores)
        now = times[-1] + HOUR
        one.learn([Outcome(id=i, time=now, label=CLASSES[n]) for i, n in zip(ids, labels, strict=True)])
        move = one.judge(now)
        if f"{move.stage} {move.share:g}" != told[-1]:
            told.append(f"{move.stage} {move.share:g}")
        if move.stage != one.step.stage:
            break
    return told


def _scores(draw: np.random.Generator, labels: Any, right: Any) -> Any:
    yes = np.where((draw.random(_ROWS) < right) == (labels == 1), 0.9, 0.1)
    return np.column_stack([1 - yes, yes])


def test_a_better_version_gets_its_shares() -> None:
    """One after the other, and then all."""
    assert play(staged("canary"), right=(0.6, 0.9)) == ["canary 0.1", "canary 0.5", "promoted 1"]


@pytest.mark.parametrize("mode", ["canary", "shadow", "watch"])
def test_a_worse_version_goes_back(mode: str) -> None:
    """However it was brought."""
    assert play(staged(mode), right=(0.9, 0.5))[-1] == "rolled_back 0"


def test_a_version_that_is_worse_on_a_slice_goes_back() -> None:
    """Though it is better on the whole."""
    one = staged("shadow", RolloutSettings(mode="shadow", min_labelled=2000, patience=2000 * HOUR))
    assert play(one, right=(0.7, 0.99), south=0.45, most=2000)[-1] == "rolled_back 0"


def test_a_watch_without_harm_ends() -> None:
    """The new champion is kept."""
    assert play(staged("watch"), right=(0.7, 0.7))[-1] == "kept 0"


def test_lanes_follow_from_the_key() -> None:
    """Rows of one value have one lane; about a tenth are the challenger's."""
    one = staged("canary", RolloutSettings(mode="canary", steps=(0.1,), key="who"))
    table = pa.table({"who": [str(i // 5) for i in range(10_000)]})
    lanes = one.lanes([str(i) for i in range(10_000)], table).reshape(-1, 5)
    assert (lanes.all(axis=1) == lanes.any(axis=1)).all()
    assert 0.08 < lanes.mean() < 0.12


def test_looks_are_as_far_apart_as_the_time_between_chances_allows() -> None:
    """But none is missed when a step's time is over."""
    one = staged("canary")
    end = START + 24 * 24 * HOUR
    assert one.next_look(START, start=START, end=end) == START + 10 * HOUR
    assert one.next_look(START + 10 * HOUR, start=START, end=end) == START + 34 * HOUR
    assert one.next_look(end - HOUR, start=START, end=end) == end
