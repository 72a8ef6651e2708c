"""A new champion's watch: when it begins, and a rollback that is done once, whatever interrupts it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raywf.core.errors import ServingError
from raywf.core.journal import Journal
from raywf.core.records import ModelVersion
from raywf.core.rollout import Duel, Rollouts, RolloutStep, Side
from raywf.core.serving_settings import RolloutSettings
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.local import endpoint_file, shares_local
from raywf.loop.watch import begin_watch, end_watch, refuse_abort, settle_watch, take_back, timed_alike
from raywf.serving.rollouts import LaneStatus
from raywf.testing import make_decision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HARM = {"reasons": ("worse",), "figures": {"lower": 0.1}, "now": NOW}


class MemoryRegistry:
    """Versions and aliases in memory, with the registry's rules."""

    def __init__(self, *versions: str) -> None:
        self.known = {name: version(name) for name in versions}
        self.aliases: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def find(self, alias: str) -> ModelVersion | None:
        return self.known.get(self.aliases.get(alias, ""))

    def version(self, name: str) -> ModelVersion:
        return self.known[name]

    def promote(self, name: str) -> ModelVersion:
        former = self.aliases.get("champion")
        if former not in {None, name}:
            self.aliases["previous"] = str(former)
            self.mark(str(former), "retired")
        self.aliases["champion"] = name
        self.mark(name, "champion")
        return self.known[name]

    def mark(self, name: str, status: str, *, reason: str = "") -> None:
        self.known[name] = replace(self.known[name], status=status)
        self.reasons[name] = reason or self.reasons.get(name, "")

    def forget_previous(self) -> None:
        self.aliases.pop("previous", None)


def version(name: str) -> ModelVersion:
    return ModelVersion(
        workflow="w", version=name, uri="", digest="", run_id="", status="registered", snapshot_id="",
        sweep_id="", code_version="", parent=None, decision_id="", metrics={}, loss=None, loss_rows=0,
        cost_usd=0.0, created=NOW,
    )  # fmt: skip


class Site:
    """A workflow whose version 2 has just become champion after version 1."""

    def __init__(self, root: Path, **rollout: Any) -> None:
        self.workflow = Workflow(
            name="w",
            task="binary",
            spine=SpineSettings(path="x.csv", label="y"),
            rollout=RolloutSettings(**rollout),
            stores=StoreSettings(root=str(root)),
        )
        self.journal, self.rollouts = Journal(str(root), "w"), Rollouts(str(root), "w")
        self.registry: Any = MemoryRegistry("1", "2", "3")
        self.promote("1", kind="promote")
        self.promote("2", kind="retrain")

    def promote(self, name: str, *, kind: Any) -> None:
        self.registry.promote(name)
        made = make_decision(f"d{name}", kind=kind, time=NOW)
        self.journal.decide(made)
        self.journal.record(made, "promoted", figures={"version": name})

    def begin(self) -> RolloutStep:
        step = begin_watch(self.workflow, self.registry, now=NOW)
        assert step is not None
        return step

    def rollbacks(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the rollbacks with the stages that each reached."""
        made = [d for d in self.journal.decisions() if d.kind == "rollback"]
        return [(d.cause, tuple(self.journal.stages(d.id))) for d in made]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """See `Site`."""
    return Site(tmp_path)


def test_a_new_champion_is_watched_once(site: Site) -> None:
    """Beside the former one; not again when that is over."""
    step = site.begin()
    assert (step.mode, step.champion, step.serves, step.share) == ("watch", "1", "2", 1.0)
    end_watch(site.workflow, site.registry, step, reasons=("no harm",))
    assert begin_watch(site.workflow, site.registry, now=NOW) is None
    assert site.rollbacks() == []


def test_what_is_not_watched(tmp_path: Path) -> None:
    """Where the settings say so, there is nothing to go back to, or that was taken back itself."""
    off = Site(tmp_path / "off", watch=timedelta(0))
    assert begin_watch(off.workflow, off.registry, now=NOW) is None
    bad = Site(tmp_path / "bad")
    bad.registry.mark("1", "rolled_back")
    assert begin_watch(bad.workflow, bad.registry, now=NOW) is None
    bad.registry.forget_previous()
    assert begin_watch(bad.workflow, bad.registry, now=NOW) is None
    bad.promote("3", kind="rollback")
    assert begin_watch(bad.workflow, bad.registry, now=NOW) is None


def test_a_champion_that_harms_is_taken_back(site: Site) -> None:
    """Alias, step, journal and the failed version's reason; it is not what a later rollback brings back."""
    take_back(site.workflow, site.registry, site.begin(), **HARM)
    assert site.registry.aliases == {"champion": "1"}
    assert (site.registry.known["2"].status, site.registry.reasons["2"]) == ("rolled_back", "worse")
    assert site.rollouts.latest().stage == "rolled_back"  # type: ignore[union-attr]
    assert site.rollbacks() == [("watch", ("promoted",))]


def test_an_interrupted_rollback_is_finished(site: Site) -> None:
    """Killed between the last step and the alias: whoever looks next does the rest, once."""
    step = site.begin()
    registry, promote = site.registry, site.registry.promote

    def killed(name: str) -> None:
        raise KeyboardInterrupt

    registry.promote = killed
    with pytest.raises(KeyboardInterrupt):
        take_back(site.workflow, registry, step, **HARM)
    assert (registry.aliases["champion"], site.rollbacks()) == ("2", [("watch", ())])
    registry.promote = promote
    for _ in range(2):
        settle_watch(site.workflow, registry, site.rollouts.latest())  # type: ignore[arg-type]
    assert registry.aliases == {"champion": "1"}
    assert site.rollbacks() == [("watch", ("promoted",))]


def test_a_newer_champion_is_not_overwritten(site: Site) -> None:
    """Another hand was faster: nothing is taken back, and the decision ends with the watch."""
    step = site.begin()
    site.promote("3", kind="promote")
    with pytest.raises(ServingError, match="version 2 is not the champion"):
        take_back(site.workflow, site.registry, step, **HARM)
    assert site.registry.aliases == {"champion": "3", "previous": "2"}
    end_watch(site.workflow, site.registry, step, reasons=("overtaken",))
    assert site.rollbacks() == [("watch", ("failed",))]


def test_a_watch_cannot_be_aborted(site: Site) -> None:
    """Its version has all of the traffic; the message names what can be done."""
    with pytest.raises(ServingError, match="raywf models rollback brings version 1 back"):
        refuse_abort(site.begin())


def test_times_are_those_of_the_same_rows() -> None:
    """The replicas' medians of both, whatever the live answers took; without them nothing is judged."""
    side = Side(version="1", rows=500, live=500, took_us=(1.0, 1.0))
    duel = Duel(champion=side, challenger=side)
    lanes = [LaneStatus(replica=str(i), ok=True, row_us=(100.0 * i, 300.0 * i)) for i in (1, 2, 3)]
    timed = timed_alike(duel, lanes)
    assert (timed.champion.took_us, timed.challenger.took_us) == ((200.0, 200.0), (600.0, 600.0))
    assert timed_alike(duel, [LaneStatus(replica="a", ok=True)]).champion.took_us is None


def test_others_on_the_local_cluster_keep_it_up(site: Site) -> None:
    """As long as they are up, and not the workflow itself."""
    folder = Path(site.workflow.stores.root) / "endpoints"
    folder.mkdir()
    (Path(site.workflow.stores.root) / endpoint_file(site.workflow)).write_text("{}")
    assert not shares_local(site.workflow)
    (folder / "other.json").write_text("{}")
    assert shares_local(site.workflow)
