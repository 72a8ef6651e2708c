"""A history of a turning world, played back: as it was known then, each training once."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raywf.core.clock import to_microseconds
from raywf.core.codec import decode, encode
from raywf.core.errors import SettingsError
from raywf.core.records import Outcome, Prediction
from raywf.core.settings import (
    MonitorSettings,
    RetrainSettings,
    RolloutSettings,
    SearchSettings,
    SpineSettings,
    StoreSettings,
    Workflow,
)
from raywf.loop.backtest.course import Course
from raywf.loop.backtest.past import Past, read_past
from raywf.loop.backtest.run import Backtest, backtest_folder, compare, plan_chances
from raywf.loop.backtest.served import served_workflow
from raywf.monitor.reference import Reference
from raywf.outcomes.writer import LogWriter
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)
END = START + timedelta(days=101)
DAYS, TURN = 100, 50
POLICIES = ("never", "every 14d", "raywf", "oracle")


def write_table(path: Path) -> None:
    """Hourly rows whose label is known up to four days later; at the turn, what x means is reversed."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["at", "known", "x", "z", "late"])
        for i in range(DAYS * 24):
            at, x = START + timedelta(hours=i), draw.uniform(0, 1)
            upper = (x > 0.5) != (i >= TURN * 24)
            late = int(draw.random() < 0.1 + 0.7 * upper)
            known = at + timedelta(hours=draw.randint(1, 96))
            writer.writerow([at.isoformat(), known.isoformat(), x, draw.random(), late])


@pytest.fixture(scope="module")
def past(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """The table as a workflow's past."""
    folder = tmp_path_factory.mktemp("turning")
    write_table(folder / "table.csv")
    workflow = Workflow(
        name="turning",
        task="binary",
        metric="log_loss",
        spine=SpineSettings(
            path=str(folder / "table.csv"), label="late", event_time="at", label_time="known"
        ),
        search=SearchSettings(budget_s=20, trials=1, families=("lightgbm",)),
        monitor=MonitorSettings(window=timedelta(days=2)),
        retrain=RetrainSettings(look=timedelta(days=14), cooldown=timedelta(days=14)),
        stores=StoreSettings(root=str(folder / "root")),
    )
    return read_past(workflow, until=END)


@pytest.fixture(scope="module")
def found(past: Past) -> Backtest:
    """Four policies in steps of two weeks from the thirtieth day on."""
    return compare(past, POLICIES, chances(past))


def chances(past: Past) -> list[datetime]:
    return plan_chances(past, start=START + timedelta(days=30), step=timedelta(days=14))


@pytest.mark.parametrize("day", [12, 40, 77])
def test_the_past_is_what_a_snapshot_would_have_been(past: Past, day: int) -> None:
    """Row by row, and as mature."""
    instant = START + timedelta(days=day)
    built = build_snapshot(past.workflow, as_of=instant)
    snapshot, table = past.as_of(instant)
    there = read_snapshot(built).select(table.column_names)
    assert table.equals(there.cast(table.schema))
    assert (snapshot.rows, snapshot.window, snapshot.classes) == (built.rows, built.window, built.classes)
    assert snapshot.maturity_s == built.maturity_s


@pytest.mark.parametrize(
    ("start", "step", "told"),
    [
        (END + timedelta(days=9), timedelta(days=1), "there are no two steps of 1d; begin earlier"),
        (
            START + timedelta(days=3),
            timedelta(microseconds=1),
            r"steps of .*, more than 100,000; take longer ones",
        ),
        (None, timedelta(days=900), "there are no two steps of 900d"),
    ],
)
def test_chances_that_cannot_be_played_are_refused(
    past: Past, start: datetime | None, step: timedelta, told: str
) -> None:
    """After the end, far too many, or none."""
    with pytest.raises(SettingsError, match=told):
        plan_chances(past, start=start, step=step)


def test_a_digest_is_of_what_was_known(past: Past) -> None:
    """Rows and labels that came later do not change it, others do."""
    day = START + timedelta(days=40)
    shorter = read_past(past.workflow, until=day + timedelta(days=7))
    assert len(shorter.times) < len(past.times)
    assert shorter.digest(day) == past.digest(day)
    assert past.digest(day) != past.digest(day + timedelta(days=7))


def test_what_was_served_is_a_past_as_the_table_is(past: Past, tmp_path: Path) -> None:
    """Rows that were asked for one by one, and labels that came when they came, are the same history."""
    names = ["x", "z"]
    rows = past.table.select([*names, "__label"]).to_pylist()
    times = [EPOCH + timedelta(microseconds=int(at)) for at in past.times]
    known = [EPOCH + timedelta(microseconds=int(at)) for at in past.known]
    workflow = replace(past.workflow, stores=StoreSettings(root=str(tmp_path)))
    with LogWriter(str(tmp_path), "turning") as log:
        for i, (row, at, came) in enumerate(zip(rows, times, known, strict=True)):
            features = {name: row[name] for name in names}
            log.append([Prediction(id=f"{i}", time=at, version="1", features=features, scores=(0.5,))])
            label = past.snapshot.classes[int(row["__label"])]
            log.append([Outcome(id=f"{i}", time=came, label=label)])
    profile = tuple(p for p in past.snapshot.profile if p.name in names)
    reference = Reference(version="1", task="binary", classes=past.snapshot.classes, profile=profile)
    found = read_past(served_workflow(workflow, reference), until=END)
    columns = [*names, "__label", "__time", "__label_time"]
    assert found.table.select(columns).equals(past.table.select(columns))
    assert (found.times.tolist(), found.known.tolist()) == (past.times.tolist(), past.known.tolist())


def test_the_turn_is_noticed(found: Backtest) -> None:
    """The policy looks each two weeks, retrains after the turn and gains by it."""
    course = found.course("raywf")
    assert course is not None
    looks = [e.time for e in course.events if e.kind == "probe"]
    assert min(looks) == START + timedelta(days=44)
    after = [e for e in course.events if e.kind == "retrain" and e.time > START + timedelta(days=TURN)]
    assert after[0].time <= START + timedelta(days=72)  # on day 58 a look has rows of the old world alone
    assert {e.cause for e in after} <= {"regret", "loss"}
    assert any(e.helped for e in after)
    never = found.course("never")
    assert never is not None
    assert course.loss < never.loss - 0.1
    assert [s.version for s in never.steps] == ["1"] * 5


def test_shares_of_the_gain(found: Backtest) -> None:
    """From none to all of it."""
    gains = [found.gain(course) for course in found.courses]
    assert gains[0] == 0
    assert max(g for g in gains if g is not None) == 1
    assert found.courses[-1].policy.startswith("oracle (")


def test_done_again_nothing_is_trained(past: Past, found: Backtest) -> None:
    """And the same comes out."""
    told: list[str] = []
    again = compare(past, POLICIES, chances(past), say=told.append)
    assert told == [f"policy: {policy}" for policy in POLICIES]
    assert [c.steps for c in again.courses] == [c.steps for c in found.courses]
    assert len(list((backtest_folder(past.workflow) / "trainings").iterdir())) <= 9


def test_a_backtest_survives_json(found: Backtest) -> None:
    """As the command prints it."""
    assert decode(Backtest, json.loads(json.dumps(encode(found)))) == found


def test_other_settings_are_other_trainings(past: Past) -> None:
    """What was trained with one budget is not taken for another."""
    other = replace(past.workflow, search=replace(past.workflow.search, budget_s=21))
    told: list[str] = []
    few = chances(past)[:2]
    compare(replace(past, workflow=other), ["never"], few, say=told.append)
    assert sum(text.startswith("trained") for text in told) == 1


def rolled_out(
    past: Past, settings: RolloutSettings, *, until: datetime = END, policy: str = "raywf"
) -> Course:
    """Play the policy back with a rollout; its trainings are there already, or are made."""
    other = replace(past, workflow=replace(past.workflow, rollout=settings))
    (course,) = compare(other, [policy], [c for c in chances(past) if c <= until]).courses
    return course


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_rollout_takes_its_time(past: Past, found: Backtest, mode: str) -> None:
    """The better version becomes champion days after its retraining was decided, by paired losses."""
    day = timedelta(days=1)
    settings = RolloutSettings(
        mode=mode,  # type: ignore[arg-type]  # of two of its words
        steps=(0.5,),
        bake=day,
        min_rows=48,
        min_labelled=24,
        watch=timedelta(0),
        margin=0.1,
    )
    course = rolled_out(past, settings)
    brought = [e for e in course.events if e.stage == "promoted"]
    assert brought
    assert all(e.settled >= e.time + day for e in brought)
    assert any("paired" in e.reason for e in brought)
    never = found.course("never")
    assert never is not None
    assert course.loss < never.loss


def test_an_undecided_rollout_ends(past: Past) -> None:
    """With more proof asked for than the traffic gives, the champion stays and the retraining is rejected."""
    settings = RolloutSettings(mode="canary", require="better", patience=timedelta(days=3), min_labelled=9999)
    course = rolled_out(past, settings)
    ended = [e for e in course.events if e.kind == "retrain"]
    assert {e.stage for e in ended} <= {"rejected", "rollout"}
    assert any("nothing was decided within" in e.reason for e in ended)
    assert {s.version for s in course.steps} == {"1"}


def test_a_retraining_that_nothing_came_before_is_rolled_out_once(past: Past) -> None:
    """No look and no other decision is noted when the first rollout begins."""
    settings = RolloutSettings(mode="canary", patience=timedelta(days=3), min_labelled=9999)
    course = rolled_out(past, settings, policy="raywf look=null every=14d effort=refit")
    ended = [e for e in course.events if e.kind == "retrain"]
    assert ended
    assert len({e.time for e in ended}) == len(ended)


def test_a_harmful_champion_is_taken_back(past: Past, found: Backtest) -> None:
    """The world turns back just after the last swap, without noise: the watch brings the former one back."""
    course = found.course("raywf")
    assert course is not None
    swap = max(e.settled for e in course.events if e.stage == "promoted")
    late, x = (past.table.column(name).to_numpy() for name in ("__label", "x"))
    turned = np.where(past.times >= to_microseconds(swap), x > 0.5, late)
    place = past.table.column_names.index("__label")
    other = replace(
        past,
        snapshot=replace(past.snapshot, digest="turned back"),
        table=past.table.set_column(place, "__label", pa.array(turned)),
    )
    watch = timedelta(days=14)
    again = rolled_out(other, RolloutSettings(watch=watch, alpha=0.2), until=swap + watch)
    rollback = next(e for e in again.events if e.kind == "rollback")
    assert swap < rollback.settled <= swap + watch
    assert "worse" in rollback.reason
    brought = [e.version for e in again.events if e.kind == "retrain" and e.stage == "promoted"]
    assert rollback.version == ["1", *brought][-2]


def test_a_test_that_waits_for_a_person_is_refused(past: Past) -> None:
    """In one line that says what to set."""
    with pytest.raises(SettingsError, match=r"rollout\.mode=canary"):
        rolled_out(past, RolloutSettings(mode="ab"))


def test_at_once_as_one_by_one(past: Past, found: Backtest) -> None:
    """Three policies at a time come to the same."""
    again = compare(past, POLICIES, chances(past), at_once=3)
    assert [c.steps for c in again.courses] == [c.steps for c in found.courses]


def kept(past: Past) -> set[str]:
    """Return the names of all trainings that were ever kept."""
    return {path.name for path in Path(past.workflow.stores.root).rglob("trainings/*.json")}


def test_what_several_ask_for_is_trained_once(past: Past) -> None:
    """Policies that start at once share even the first model."""
    other = replace(past, snapshot=replace(past.snapshot, digest="anew"))
    told: list[str] = []
    instants = plan_chances(past, start=START + timedelta(days=40), step=timedelta(days=40))
    before = kept(other)
    made = compare(other, ["never", "every 40d", "raywf look=null"], instants, say=told.append, at_once=3)
    assert len(made.courses) == 3
    trained = [line for line in told if line.startswith("trained")]
    assert len(trained) == len(kept(other) - before) >= 2
