"""The controller carries a decision to its end: a real journal, jobs that are held in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.errors import RegistryError
from raywf.core.journal import BY_HAND, Journal
from raywf.core.records import Attempt, Decision, ModelVersion
from raywf.core.settings import MonitorSettings, RetrainSettings, SpineSettings, StoreSettings, Workflow
from raywf.core.skips import Skips
from raywf.loop import controller as controller_module
from raywf.loop.controller import Controller
from raywf.loop.decided import history_of, past_decisions
from raywf.loop.landed import Landed
from raywf.search.ledger import Ledger
from raywf.testing import make_decision, make_version

CHAMPION = make_version("1", loss=0.1, loss_rows=1000, created=datetime(2024, 1, 1, tzinfo=UTC))


class MemoryJobs:
    """A cluster's table of jobs; their states are set by the test."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def submit(self, kind: str, job_id: str, *arguments: str) -> bool:
        """Take a job of a new id."""
        if job_id in self.states:
            return False
        self.states[job_id] = "PENDING"
        return True

    def status(self, job_id: str) -> str:
        """Return the state."""
        return self.states.get(job_id, "UNKNOWN")

    def logs(self, job_id: str) -> str:
        """Return what it printed."""
        return f"the log of {job_id}"


class EmptyRegistry:
    """A registry without a version; `away` until told otherwise."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away

    def find(self, alias: str) -> ModelVersion | None:
        """Return none."""
        if self.away:
            raise RegistryError("the store is away")
        return None


def decision(name: str = "d1", *, kind: str = "retrain", cause: str = "loss") -> Decision:
    return make_decision(
        name, kind=kind, cause=cause, window="x", reasons=("it fell",), time=datetime(2024, 1, 1, tzinfo=UTC)
    )


def make(root: Path, *, jobs: MemoryJobs, away: bool = False, poll_s: float = 3600) -> Controller:
    """Return a controller that ticks when the test says so."""
    workflow = Workflow(
        name="w",
        task="binary",
        spine=SpineSettings(path="x.csv", label="y"),
        monitor=MonitorSettings(poll_s=poll_s),
        retrain=RetrainSettings(max_attempts=2),
        stores=StoreSettings(root=str(root)),
    )
    made = Controller(workflow, EmptyRegistry(away=away), None)  # type: ignore[arg-type]
    made._jobs = jobs  # type: ignore[assignment]
    return made


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal with one decision to retrain."""
    made = Journal(str(tmp_path), "w")
    made.decide(decision())
    return made


@pytest.fixture
def jobs() -> MemoryJobs:
    """No jobs yet."""
    return MemoryJobs()


def test_submits_a_decision_once(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """Under the decision's id, and looks on while the job runs."""
    controller = make(tmp_path, jobs=jobs)
    for state in ("PENDING", "RUNNING", "RUNNING"):
        controller.tick()
        jobs.states["w-d1"] = state
    assert list(jobs.states) == ["w-d1"]
    assert journal.stages("d1")["submitted-1"].figures["job"] == "w-d1"


def test_why_nothing_is_done_is_kept(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """Each change of it once, over a restart too."""
    controller = make(tmp_path, jobs=jobs)
    controller.tick()
    controller.tick()
    journal.record(decision(), "failed")
    for made in (controller, make(tmp_path, jobs=jobs)):
        made.tick()
    entries = Skips(str(tmp_path), "w").read()
    assert [e.stage for e in entries] == ["running", "champion"]
    assert entries[0].reasons == ("a retrain is under way (d1); one at a time",)
    assert [d.id for d in journal.decisions()] == ["d1"]


def test_crash_between_submission_and_journal(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """The job that is there is taken for what it is."""
    jobs.submit("retrain", "w-d1")
    make(tmp_path, jobs=jobs).tick()
    assert list(jobs.states) == ["w-d1"]
    assert "was submitted before" in journal.stages("d1")["submitted-1"].reasons


def test_another_controller_goes_on(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """Killed and started again, it submits nothing twice."""
    make(tmp_path, jobs=jobs).tick()
    make(tmp_path, jobs=jobs).tick()
    assert list(jobs.states) == ["w-d1"]


def test_a_job_that_was_stopped_by_hand_stays_stopped(
    tmp_path: Path, journal: Journal, jobs: MemoryJobs
) -> None:
    """The decision has failed, and nothing is submitted for it again."""
    controller = make(tmp_path, jobs=jobs)
    controller.tick()
    jobs.states["w-d1"] = "STOPPED"
    controller.tick()
    assert list(jobs.states) == ["w-d1"]
    assert "failed" in journal.stages("d1")


@pytest.mark.parametrize("end", ["FAILED", "SUCCEEDED", "UNKNOWN"])
def test_job_without_a_result_is_submitted_again(
    end: str, tmp_path: Path, journal: Journal, jobs: MemoryJobs
) -> None:
    """However it ended; the journal says so, with the tail of its log."""
    controller = make(tmp_path, jobs=jobs)
    controller.tick()
    jobs.states["w-d1"] = end
    controller.tick()
    controller.tick()
    assert list(jobs.states) == ["w-d1", "w-d1-2"]
    assert list(journal.stages("d1")) == ["submitted-1", "lost-1", "submitted-2"]
    assert journal.stages("d1")["lost-1"].figures == {"log": "the log of w-d1", "spent_usd": 0.0}


def test_gives_up_after_the_last_attempt(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """The decision has failed, and no further job is submitted."""
    controller = make(tmp_path, jobs=jobs)
    for _ in range(5):
        controller.tick()
        jobs.states = dict.fromkeys(jobs.states, "FAILED")
    assert list(jobs.states) == ["w-d1", "w-d1-2"]
    assert list(journal.stages("d1"))[-2:] == ["lost-2", "failed"]


@pytest.mark.parametrize("result", ["promoted", "rejected"])
def test_result_ends_a_decision(result: str, tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """A job that has failed after its result is not done again."""
    controller = make(tmp_path, jobs=jobs)
    controller.tick()
    journal.record(decision(), result)
    jobs.states["w-d1"] = "FAILED"
    controller.tick()
    assert list(journal.stages("d1")) == ["submitted-1", result]


def test_one_at_a_time(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """A second decision waits for the first one's end."""
    journal.decide(decision("d2"))
    controller = make(tmp_path, jobs=jobs)
    controller.tick()
    assert list(jobs.states) == ["w-d1"]
    journal.record(decision(), "rejected")
    controller.tick()
    assert list(jobs.states) == ["w-d1", "w-d2"]


def test_it_says_what_it_waits_for(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """Not what it waited for before the retraining began."""
    controller = make(tmp_path, jobs=jobs)
    told = []
    for result in ("", "rejected"):
        if result:
            journal.record(decision(), result)
        controller.tick()
        skip = controller.last_skip()
        assert skip is not None
        told.append((skip.cause, skip.reasons[0]))
    assert told == [
        ("running", "a retrain is under way (d1); one at a time"),
        ("champion", "no champion serves yet"),
    ]


def test_a_retraining_that_was_taken_back_was_in_vain(journal: Journal) -> None:
    """So that the next one does more than a refit."""
    for one, figures in (("d1", {"version": "2"}), ("back", {"version": "1", "failed": "2"})):
        made = decision(one, kind="retrain" if one == "d1" else "rollback")
        journal.decide(made)
        journal.record(made, "promoted", figures=figures)
    past = {p.decision.id: p.stage for p in past_decisions(journal.decisions(), journal.entries())}
    assert past == {"d1": "rejected", "back": "promoted"}


def test_the_policy_is_told_what_searches_cost(journal: Journal) -> None:
    """By what the journal has of each; of one that came to no end what its lost jobs took."""
    for one in ("d1", "d2", "d3", "d4"):
        journal.decide(decision(one, kind="retrain"))
    stages = [
        ("d1", "lost-1", {"spent_usd": 0.5}),
        ("d1", "searched", {"cost_usd": 1.5, "spent_usd": 2.0}),
        ("d3", "lost-1", {"spent_usd": 0.5, "log": ""}),
        ("d3", "failed", {"spent_usd": 0.75}),
        ("d4", "lost-1", {"spent_usd": 0.5}),
        ("d4", "searched", {"cost_usd": 1.5}),  # the whole is not known
    ]
    for one, stage, figures in stages:
        journal.record(decision(one, kind="retrain"), stage, figures=figures)
    past = past_decisions(journal.decisions(), journal.entries())
    assert {p.decision.id: p.usd for p in past} == {"d1": 2.0, "d2": 0.0, "d3": 0.75, "d4": 1.5}


def test_a_lost_job_is_noted_with_what_it_took(tmp_path: Path, journal: Journal, jobs: MemoryJobs) -> None:
    """The attempts of all searches that were made for the decision; what cannot be read stops nothing."""
    controller = make(tmp_path, jobs=jobs)
    controller.tick()
    for i, name in enumerate(("d1", "d1", "d2", "")):
        started = datetime.now(UTC) - timedelta(hours=i)
        spent = {"wall_s": 60.0, "cpu_s": 120.0, "cost_usd": 0.25, "decision": name}
        Ledger(str(tmp_path), f"sweep{i}").note(Attempt(workflow="w", started=started, **spent))
    jobs.states["w-d1"] = "FAILED"
    controller.tick()
    assert journal.stages("d1")["lost-1"].figures["spent_usd"] == 0.5
    (tmp_path / "sweeps" / "sweep0" / "attempts" / "odd.json").write_text("{}")
    jobs.states["w-d1-2"] = "STOPPED"
    controller.tick()
    assert journal.stages("d1")["failed"].figures == {"spent_usd": 0.25, BY_HAND: True}
    (past,) = past_decisions(journal.decisions(), journal.entries())
    assert past.is_stopped


def test_the_policy_is_told_of_requests_and_data(journal: Journal) -> None:
    """Requests oldest first but for those that were answered; of data its id and tables."""
    asked = [journal.request(text, key=text) for text in ("c", "a", "b")]
    journal.decide(replace(decision("d2", cause="request"), window=asked[1]))
    past = past_decisions(journal.decisions(), journal.entries())
    told = history_of(
        past, journal.entries(), CHAMPION, requests=journal.requests(), landed=Landed("v1", ("spine",))
    )
    assert list(told.requests.items()) == [(asked[0], "c"), (asked[2], "b")]
    assert (told.landed, told.landed_in) == ("v1", ("spine",))
    assert history_of(past, (), CHAMPION, requests={}).landed == ""


def test_what_a_user_does_by_hand_is_left_alone(tmp_path: Path, jobs: MemoryJobs) -> None:
    """The command that wrote the decision carries it out, or has been interrupted."""
    Journal(str(tmp_path), "w").decide(decision(cause=BY_HAND))
    make(tmp_path, jobs=jobs).tick()
    assert jobs.states == {}


def test_a_store_that_is_away_is_asked_again(
    tmp_path: Path, jobs: MemoryJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is told while it lasts, and the thread goes on."""
    monkeypatch.setattr("raywf.loop.controller._TICK_S", 0.01)
    controller = make(tmp_path, jobs=jobs, away=True, poll_s=0.01)
    _wait(lambda: controller.error() == "RegistryError: the store is away")
    controller._registry.away = False  # type: ignore[attr-defined]
    _wait(lambda: controller.error() == "")
    controller._stopped.set()


def _wait(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_two_on_one_store_one_decides(
    tmp_path: Path, journal: Journal, jobs: MemoryJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other waits, says for whom, and goes on once the first is silent; nothing is submitted twice."""
    made = []
    for name in ("one", "two"):
        monkeypatch.setattr(controller_module, "_holder", lambda name=name: name)
        made.append(make(tmp_path, jobs=jobs))
    one, two = made
    two._lease.patience_s = 0.3
    one.tick()
    two.tick()
    assert list(jobs.states) == ["w-d1"]
    skip = two.last_skip()
    assert skip is not None
    assert skip.reasons == ("another controller leads: that of cluster one",)
    theirs = two._jobs = MemoryJobs()  # another cluster's: it knows nothing of the first one's job
    time.sleep(0.4)
    two.tick()
    two.tick()
    assert two.leader() == "two"
    assert list(theirs.states) == []  # the other cluster may be at it still
    monkeypatch.setattr(controller_module, "_ELSEWHERE", -timedelta(hours=1))
    two.tick()
    assert list(theirs.states) == ["w-d1-2"]
    one.tick()
    assert one.leader() == "two"
    assert list(jobs.states) == ["w-d1"]
