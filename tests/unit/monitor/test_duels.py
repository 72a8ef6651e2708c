"""Pairs of a rollout from the log: each row once, whatever the order, by slice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.rollout import Part, RolloutStep, ShadowAnswer
from raywf.monitor.duels import DuelFold
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.lines import Entry, from_line, to_line

START = datetime(2026, 1, 1, tzinfo=UTC)
BAKE = timedelta(minutes=8)
PROFILE = (ColumnProfile(name="region", kind="category", values=("north", "south"), counts=(50, 50)),)
REFERENCES = KnownReferences(
    {v: Reference(version=v, task="binary", classes=("no", "yes"), profile=PROFILE) for v in ("1", "2")}
)
STEP = RolloutStep(
    rollout="20260101T000000-a",
    number=2,
    mode="canary",
    stage="canary",
    champion="1",
    challengers=("2",),
    share=0.5,
    time=START,
    wall_time=START,
)


def log(rows: int = 400, *, step: str = STEP.tag) -> list[Entry]:
    """Half of the rows are the challenger's, which is right in the south and wrong in the north."""
    made: list[Entry] = []
    for i in range(rows):
        time, region = START + timedelta(seconds=i), ("north", "south")[i // 2 % 2]
        good, bad = ((0.9,), (0.1,)) if region == "south" else ((0.1,), (0.9,))
        scores = {"1": (0.5,), "2": good if region == "south" else bad}
        live = "12"[i % 2]
        features = {"region": region}
        part = Part(step, 200.0 if live == "1" else 300.0)
        made.append(
            Prediction(id=f"r{i}", time=time, version=live, features=features, scores=scores[live], part=part)
        )
        other = "21"[i % 2]
        made.append(ShadowAnswer(id=f"r{i}", time=time, version=other, scores=scores[other], part=Part(step)))
    return made


def outcomes(rows: int = 400) -> dict[str, Outcome]:
    found = {}
    for i in range(rows):
        label = "yes" if i // 2 % 2 else "no"
        found[f"r{i}"] = Outcome(id=f"r{i}", time=START + timedelta(days=1), label=label, value=1.0 + i % 2)
    return found


def fold(entries: list[Entry], known: dict[str, Outcome]) -> DuelFold:
    made = DuelFold(REFERENCES, known.get)
    made.update(entries)
    return made


def test_pairs_and_sides() -> None:
    """Every labelled row is a pair, whoever answered it live."""
    (found,) = fold(log(), outcomes(300)).duels(STEP, BAKE)
    assert found.labelled == 300
    assert (found.champion.live, found.challenger.live, found.challenger.rows) == (200, 200, 400)
    assert found.challenger.took_us == (300.0, 300.0)
    assert (found.champion.value_mean, found.challenger.value_mean) == (1.0, 2.0)
    assert len(found.pairs) == 5  # windows of a minute
    means = {
        s.value: sum(t.loss_sum for t in s.pairs) / sum(t.labelled for t in s.pairs) for s in found.slices
    }
    assert means["south"] < 0.5 < means["north"]


@pytest.mark.parametrize("seed", range(5))
def test_order_and_repetition_change_nothing(seed: int) -> None:
    """Shuffled, in parts, some twice, through the log's lines: the same."""
    entries = [from_line(to_line(entry)) for entry in log()]
    draw = np.random.default_rng(seed)
    mixed = [entries[i] for i in draw.integers(0, len(entries), 500)] + [
        entries[i] for i in draw.permutation(len(entries))
    ]
    made = DuelFold(REFERENCES, outcomes().get)
    for start in range(0, len(mixed), 97):
        made.update(mixed[start : start + 97])
    assert made.duels(STEP, BAKE) == fold(log(), outcomes()).duels(STEP, BAKE)


def test_failures() -> None:
    """Where the challenger could not answer, live or as a shadow, it failed, and the row is no pair."""
    time, part = START, Part(STEP.tag, 100.0, failed=True)
    entries: list[Entry] = [
        Prediction(id="a", time=time, version="1", features={"region": "north"}, scores=(0.5,), part=part),
        Prediction(
            id="b", time=time, version="1", features={"region": "north"}, scores=(0.5,), part=Part(STEP.tag)
        ),
        ShadowAnswer(id="b", time=time, version="2", scores=(), part=Part(STEP.tag)),
    ]
    known = {i: Outcome(id=i, time=START, label="no") for i in "ab"}
    (found,) = fold(entries, known).duels(STEP, BAKE)
    assert (found.challenger.failed, found.champion.failed, found.labelled) == (2, 0, 0)
    assert (found.champion.live, found.challenger.rows) == (1, 0)


def test_steps_and_rollouts_are_apart() -> None:
    """Each step has its own rows; a newer rollout ends the former one's; other predictions do not count."""
    plain = [Prediction(id="x", time=START, version="1", features={}, scores=(0.5,))]
    made = fold([*log(), *log(100, step=f"{STEP.rollout}:3"), *plain], outcomes())
    assert made.duels(STEP, BAKE)[0].labelled == 400
    made.update(log(10, step="20260102T000000-b:1"))
    assert made.duels(STEP, BAKE)[0].labelled == 0


def test_an_unknown_version_waits() -> None:
    """While the registry does not know a version there are no pairs, and no error."""
    made = DuelFold(KnownReferences({"1": REFERENCES.by_version["1"]}), outcomes().get)
    made.update(log())
    (found,) = made.duels(STEP, BAKE)
    assert (found.labelled, found.challenger.live) == (0, 200)
