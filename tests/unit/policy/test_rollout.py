"""What follows a rollout's step: tables of cases, and how often chance misleads it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.rollout import Duel, RolloutStep, Side, SlicePairs, Tally
from raywf.core.serving_settings import RolloutSettings
from raywf.policy.rollout import fails_too_often, judge_rollout, measure_harm

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(hours=1)
CANARY = RolloutSettings(mode="canary", steps=(0.1, 0.5))


def step(share: float = 0.5, **changes: Any) -> RolloutStep:
    made = RolloutStep(
        rollout="r",
        number=1,
        mode="canary",
        stage="canary",
        champion="1",
        challengers=("2",),
        share=share,
        time=START,
        wall_time=START,
    )
    return dataclasses.replace(made, **changes)


def tallies(differences: np.ndarray, windows: int = 20) -> tuple[Tally, ...]:
    """Sum up differences of losses in [-1, 1] by windows."""
    figures = 0.5 + differences / 2
    return tuple(
        Tally(labelled=len(part), loss_sum=float(part.sum()), loss_squares=float((part**2).sum()))
        for part in np.array_split(figures, windows)
    )


def differences(mean: float, rows: int = 20_000, *, seed: int = 0, sd: float = 0.1) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(mean, sd, rows), -1, 1)


def duel(mean: float = 0.0, rows: int = 20_000, **changes: Any) -> Duel:
    side = Side(version="1", rows=rows, live=rows, took_us=(200.0, 400.0))
    challenger = dataclasses.replace(side, **({"version": "2"} | changes.pop("challenger", {})))
    made = Duel(champion=side, challenger=challenger, pairs=tallies(differences(mean, rows)) if rows else ())
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("share", "shown", "now", "stage", "next_share", "reason"),
    [
        (0.1, duel(), LATER, "canary", 0.5, "no harm at 10%"),
        (0.1, duel(), START, "canary", 0.1, "baking"),
        (0.1, duel(rows=0), LATER, "canary", 0.1, "0 of 500 rows answered"),
        (0.1, duel(challenger={"live": 40}), LATER, "canary", 0.1, "40 of 500 rows answered"),
        (0.1, duel(challenger={"live": 40, "one_in": 16}), LATER, "canary", 0.5, "no harm"),
        (0.5, duel(), LATER, "promoted", 1.0, "not worse by more than 0.01"),
        (0.5, duel(-0.02), LATER, "promoted", 1.0, "shown to be better"),
        (0.5, duel(0.02), START, "rolled_back", 0.0, "the loss is higher by at least"),
        (0.1, duel(0.02), START, "rolled_back", 0.0, "the loss is higher by at least"),
        (0.5, duel(rows=600), LATER, "canary", 0.5, "wanted is at most 0.01"),
        (0.5, duel(rows=300), START + timedelta(days=15), "aborted", 0.0, "nothing was decided within"),
        (0.1, duel(challenger={"failed": 200}), START, "rolled_back", 0.0, "answers failed"),
        (0.1, duel(challenger={"failed": 20}), LATER, "canary", 0.5, "no harm"),
        (0.1, duel(challenger={"took_us": (900.0, 9e3)}), START, "rolled_back", 0.0, "9.0 ms at the 95th"),
        (0.1, duel(challenger={"took_us": (250.0, 1300.0)}), LATER, "canary", 0.5, "no harm"),
    ],
)
def test_moves(share: float, shown: Duel, now: datetime, stage: str, next_share: float, reason: str) -> None:
    """Each case has its move and says why."""
    move = judge_rollout(step(share), [shown], CANARY, now=now)
    assert (move.stage, move.share) == (stage, next_share), move
    assert reason in "; ".join(move.reasons)


@pytest.mark.parametrize(
    ("shown", "now", "stage", "reason"),
    [
        (duel(), LATER - timedelta(minutes=1), "watch", "watched for 1:00:00"),
        (duel(), LATER, "kept", "no harm within 1:00:00"),
        (duel(rows=0), LATER, "kept", "no harm within"),
        (duel(0.02), START, "rolled_back", "the loss is higher by at least"),
        (duel(challenger={"failed": 200}), START, "rolled_back", "answers failed"),
        (duel(challenger={"took_us": (900.0, 9e3)}), START, "rolled_back", "9.0 ms at the 95th"),
    ],
)
def test_a_watch(shown: Duel, now: datetime, stage: str, reason: str) -> None:
    """A new champion is kept unless it does harm; the former one need not have answered live."""
    former = dataclasses.replace(shown, champion=dataclasses.replace(shown.champion, live=0))
    move = judge_rollout(step(1.0, mode="watch", stage="watch"), [former], CANARY, now=now)
    assert move.stage == stage, move
    assert reason in "; ".join(move.reasons)


def test_memory() -> None:
    """Growth beyond the limit ends it, at any step."""
    assert judge_rollout(step(0.1), [duel()], CANARY, now=START, growth_mb=501).stage == "rolled_back"
    assert judge_rollout(step(0.1), [duel()], CANARY, now=LATER, growth_mb=499).share == 0.5


def test_worse_on_a_slice_only() -> None:
    """Equal overall and worse on one value of a column: back, with the slice's name."""
    slices = tuple(
        SlicePairs(column="region", value=value, pairs=tallies(differences(mean, 4000, seed=i)))
        for i, (value, mean) in enumerate([("north", 0.0), ("south", 0.05), ("west", -0.01)])
    )
    move = judge_rollout(step(0.1), [duel(slices=slices)], CANARY, now=START)
    assert (move.stage, "worse where region is south" in move.reasons[0]) == ("rolled_back", True)


def test_better_is_wanted() -> None:
    """With `require: better` an equal challenger is not made champion, however long it runs."""
    settings = dataclasses.replace(CANARY, require="better")
    assert judge_rollout(step(), [duel()], settings, now=LATER).stage == "canary"
    assert judge_rollout(step(), [duel(-0.02)], settings, now=LATER).stage == "promoted"


def test_paused_and_ab_stay() -> None:
    """A paused step does nothing; a fixed split ends only for harm."""
    assert judge_rollout(step(paused=True), [duel(0.1)], CANARY, now=LATER).reasons == ("paused",)
    fixed = step(mode="ab", stage="ab")
    later = START + timedelta(days=100)
    assert judge_rollout(fixed, [duel(-0.02)], CANARY, now=later).stage == "ab"
    assert judge_rollout(fixed, [duel(0.05)], CANARY, now=later).stage == "rolled_back"


def test_the_best_of_several_shadows() -> None:
    """One that is worse does not end the others' trial; the best is made champion."""
    shadow = step(0.0, mode="shadow", stage="shadow", challengers=("2", "3", "4"))
    shown = [duel(mean, challenger={"version": v}) for v, mean in (("2", 0.05), ("3", 0.0), ("4", -0.02))]
    move = judge_rollout(shadow, shown, CANARY, now=LATER)
    assert (move.stage, move.version) == ("promoted", "4")
    assert judge_rollout(shadow, shown[:1] * 3, CANARY, now=LATER).stage == "rolled_back"
    held = judge_rollout(shadow, [shown[0], duel(rows=0, challenger={"version": "3"})], CANARY, now=LATER)
    assert held.stage == "shadow"


def test_equal_models_are_seldom_told_apart() -> None:
    """A hundred challengers that are the champion: looked at after each window, hardly one is sent back."""
    back = 0
    for seed in range(100):
        pairs = tallies(differences(0.0, 4000, seed=seed), windows=40)
        looks = [duel(pairs=pairs[: i + 1]) for i in range(40)]
        back += any(judge_rollout(step(), [look], CANARY, now=START).stage == "rolled_back" for look in looks)
    assert back <= 5


def test_failures_within_the_limit_are_seldom_too_many() -> None:
    """At the limit itself, looked at after each of 2,000 answers."""
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        failed = np.cumsum(draw.random(2000) < 0.01)
        wrong += any(fails_too_often(int(failed[i]), i + 1, 0.01, alpha=0.05) for i in range(0, 2000, 10))
    assert wrong <= 5


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(1e-4, 0.5))
def test_failures_are_monotone(rows: int, share: float, limit: float) -> None:
    """More failures of as many answers never look better."""
    failed = int(share * rows)
    found = [fails_too_often(k, rows, limit, alpha=0.05) for k in (0, failed, rows)]
    assert found == sorted(found)


def test_bounds_hold_the_mean() -> None:
    """Both bounds are about the difference itself, and shrink with rows."""
    few, many = (measure_harm(tallies(differences(0.03, rows)), alpha=0.05) for rows in (1000, 50_000))
    assert few.lower < many.lower < 0.03 < many.upper < few.upper
    assert many.upper - many.lower < 0.01
