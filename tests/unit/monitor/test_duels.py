"""Pairs of a rollout from the log: each row once, whatever the order, by slice."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pytest

from raywf.core.records import ColumnProfile, Outcome, Prediction
from raywf.core.rollout import Part, RolloutStep, ShadowAnswer, Tally
from raywf.monitor.duels import DuelFold
from raywf.monitor.reference import KnownReferences, Reference
from raywf.outcomes.lines import Entry, from_line, to_line

START = datetime(2026, 1, 1, tzinfo=UTC)
BAKE = timedelta(minutes=8)
LATER = START + timedelta(days=2)
PROFILE = (ColumnProfile(name="region", kind="category", values=("north", "south"), counts=(50, 50)),)
REFERENCES = KnownReferences(
    {v: Reference(version=v, task="binary", classes=("no", "yes"), profile=PROFILE) for v in ("1", "2")}
)
STEP = RolloutStep(
    rollout="000001",
    number=2,
    since=2,
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
    (found,) = fold(log(), outcomes(300)).duels(STEP, BAKE, LATER)
    assert found.labelled == 300
    assert (found.champion.live, found.challenger.live, found.challenger.rows) == (200, 200, 400)
    assert found.challenger.took_us == (300.0, 300.0)
    assert (found.champion.value_mean, found.challenger.value_mean) == (1.0, 2.0)
    assert len(found.pairs) == 5  # windows of a minute
    means = {
        s.value: sum(t.loss_sum for t in s.pairs) / sum(t.labelled for t in s.pairs) for s in found.slices
    }
    assert means["south"] < 0.5 < means["north"]


def test_answers_earn_what_the_workflow_says_where_outcomes_do_not() -> None:
    """By the class that was answered and the one that it was; an outcome's own value counts before."""
    told = outcomes()
    told |= {i: dataclasses.replace(one, value=None) for i, one in told.items() if int(i[1:]) % 4 < 2}
    made = DuelFold(REFERENCES, told.get, values={"yes": {"no": -8.0}, "no": {"no": 2.0}})
    made.update(log())
    (found,) = made.duels(STEP, BAKE, LATER)
    (plain,) = fold(log(), told).duels(STEP, BAKE, LATER)
    assert (plain.champion.value_mean, plain.challenger.value_mean) == (1.0, 2.0)
    by_version = {"1": [], "2": []}
    for said in log():
        if isinstance(said, Prediction):
            own = told[said.id].value
            by_matrix = -8.0 if said.scores[0] >= 0.5 else 2.0  # the labels of these are all "no"
            by_version[said.version].append(by_matrix if own is None else own)
    assert found.champion.value_mean == pytest.approx(np.mean(by_version["1"]))
    assert found.challenger.value_mean == pytest.approx(np.mean(by_version["2"]))


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
    assert made.duels(STEP, BAKE, LATER) == fold(log(), outcomes()).duels(STEP, BAKE, LATER)


@pytest.mark.parametrize("most", [100, 20_000])
def test_going_on_is_as_if_it_had_never_ended(most: int) -> None:
    """What is kept goes through JSON in the midst of the rows, thinned out or not."""
    first, second = (DuelFold(REFERENCES, outcomes().get, most_rows=most) for _ in range(2))
    first.update(log()[:500])
    second.restore(orjson.loads(orjson.dumps(first.data())))
    for one in (first, second):
        one.update(log()[300:])
    assert second.duels(STEP, BAKE, LATER) == first.duels(STEP, BAKE, LATER)
    assert (second.step, sorted(second.ids)) == (first.step, sorted(first.ids))


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
    (found,) = fold(entries, known).duels(STEP, BAKE, LATER)
    assert (found.challenger.failed, found.champion.failed, found.labelled) == (2, 0, 0)
    assert (found.champion.live, found.challenger.rows) == (1, 0)


def test_steps_and_rollouts_are_apart() -> None:
    """Only the newest step's rows are kept, of the newest rollout; other predictions do not count."""
    plain = [Prediction(id="x", time=START, version="1", features={}, scores=(0.5,))]
    made = fold([*log(), *log(100, step="000001:000001"), *plain], outcomes())
    assert made.duels(STEP, BAKE, LATER)[0].labelled == 400
    made.update(log(10, step="000002:000001"))
    assert made.duels(STEP, BAKE, LATER)[0].labelled == 0


def test_young_rows_do_not_count() -> None:
    """A label that came at once says little of rows whose labels take a day."""
    slow = KnownReferences(
        {v: dataclasses.replace(r, maturity_s=86_400.0) for v, r in REFERENCES.by_version.items()}
    )
    made = DuelFold(slow, outcomes().get)
    made.update(log())
    at = START + timedelta(days=1, seconds=99)
    assert made.duels(STEP, BAKE, at)[0].labelled == 100


def tally_of_numbers(references: list[Reference], said: tuple[float, float], labels: list[float]) -> Tally:
    """Fold the rows of two models of a number that each say one thing throughout."""
    part, entries = Part(STEP.tag), list[Entry]()
    for i in range(len(labels)):
        entries += [
            Prediction(id=f"r{i}", time=START, version="1", features={}, scores=said[:1], part=part),
            ShadowAnswer(id=f"r{i}", time=START, version="2", scores=said[1:], part=part),
        ]
    known = {f"r{i}": Outcome(id=f"r{i}", time=START, label=label) for i, label in enumerate(labels)}
    made = DuelFold(KnownReferences({r.version: r for r in references}), known.get)
    made.update(entries)
    (tally,) = made.duels(STEP, BAKE, LATER)[0].pairs
    return tally


def test_a_quantile_is_judged_as_one() -> None:
    """What nine of ten rows lie below is better than their middle, whose absolute error is less."""
    known = [Reference(version=v, task="regression", loss_scale=10.0, quantile=0.9) for v in ("1", "2")]
    assert tally_of_numbers(known, (5.0, 9.0), [i / 10 for i in range(100)]).loss_sum < 50.0


def test_one_scale_for_both() -> None:
    """Two equal models of a number whose training rows spread differently are equal."""
    scales = (("1", 10.0), ("2", 1000.0))
    known = [Reference(version=v, task="regression", loss_scale=s) for v, s in scales]
    assert tally_of_numbers(known, (5.0, 5.0), [9.0] * 50).loss_sum == 25.0


@pytest.mark.parametrize("seed", range(3))
def test_many_rows_are_thinned_out(seed: int) -> None:
    """At most so many are kept, by their ids alone: the same ones in any order."""
    entries = log(2000)
    made = [DuelFold(REFERENCES, outcomes(2000).get, most_rows=300) for _ in range(2)]
    made[0].update(entries)
    made[1].update([entries[i] for i in np.random.default_rng(seed).permutation(len(entries))])
    first, second = (fold.duels(STEP, BAKE, LATER)[0] for fold in made)
    assert first == second
    assert 75 < first.labelled <= 300
    assert first.challenger.one_in == 8


def test_slices_by_name() -> None:
    """Versions whose training had a column's values in other orders speak of the same values."""
    turned = (dataclasses.replace(PROFILE[0], values=("south", "north")),)
    other = dataclasses.replace(REFERENCES.by_version["2"], profile=turned)
    made = DuelFold(KnownReferences({**REFERENCES.by_version, "2": other}), outcomes().get)
    made.update(log())
    assert made.duels(STEP, BAKE, LATER) == fold(log(), outcomes()).duels(STEP, BAKE, LATER)


def test_an_unknown_version_waits() -> None:
    """While the registry does not know a version there are no pairs, and no error."""
    made = DuelFold(KnownReferences({"1": REFERENCES.by_version["1"]}), outcomes().get)
    made.update(log())
    (found,) = made.duels(STEP, BAKE, LATER)
    assert (found.labelled, found.challenger.live) == (0, 200)
