"""kill -9 of the monitor, of a replica and of the retraining job's driver, each beneath traffic."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from raywf.core.records import Outcome, Prediction
from raywf.outcomes.reader import LogReader
from raywf.serving.environment import free_ports

sys.path.insert(0, str(Path(__file__).resolve().parent))

from command_line import Project, cluster_processes, command_of, until
from late_traffic import Traffic, write_orders

pytestmark = pytest.mark.timeout(280)
SETTINGS = """\
name: orders
task: binary
spine:
  path: orders.csv
  label: late
  positive: "yes"
  keys: [order]
  event_time: asked_at
  label_time: known_at
search: {{budget_s: 30, trials: 2, folds: 2, families: [lightgbm, linear]}}
serving: {{port: {port}, alias_poll_s: 1}}
monitor: {{clock: log, window: 1d, min_labelled: 50, poll_s: 0.25}}
retrain: {{tolerance: 0.02, cooldown: 365d}}
alerts: {{command: [tee, {folder}/alert.json], kinds: [promoted, rejected, failed]}}
"""


class Running:
    """The system under traffic, and its processes."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        write_orders(folder / "orders.csv", days=90)
        (folder / "workflow.yaml").write_text(SETTINGS.format(port=free_ports(1)[0], folder=folder))
        first = self.project.raywf("run", "--as-of", "2024-01-31T00:00:00Z")
        assert first["status"] == "promoted", first["verdict"]
        self.traffic = Traffic(self.project.raywf("serve", "up")["url"])
        self.traffic.start()

    def status(self) -> dict[str, Any]:
        """Return `raywf serve status`."""
        found: dict[str, Any] = self.project.raywf("serve", "status")
        return found

    def replicas(self) -> dict[int, str]:
        """Return the version that each replica serves, by process id."""
        return {int(r["replica"].rsplit(":", 1)[1]): r["version"] for r in self.status()["replicas"]}

    def find(self, *words: str) -> list[psutil.Process]:
        """Return the cluster's processes whose command line holds all the words."""
        return [p for p in cluster_processes(self.project.folder) if all(w in command_of(p) for w in words)]

    def answered(self, more: int) -> None:
        """Wait until so many more orders have been answered."""
        wanted = len(self.traffic.predicted) + more
        until(lambda: len(self.traffic.predicted) >= wanted, f"{more} more answers")

    def decisions(self) -> list[dict[str, Any]]:
        """Return `raywf decisions`, the ones of the running system."""
        found = self.project.raywf("decisions")
        return [d for d in found if d["decision"]["reasons"] != ["raywf run"]]

    def stages(self) -> list[str]:
        """Return the stages of the request's decision."""
        asked = [d for d in self.decisions() if d["decision"]["cause"] == "request"]
        return [entry["stage"] for d in asked for entry in d["stages"]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A model of the first month, in service, with orders coming in whose rule has turned over."""
    folder = tmp_path_factory.mktemp("orders")
    try:
        made = Running(folder)
        yield made
        made.traffic.end()
    finally:
        Project(folder).try_raywf("serve", "down")


def test_killed_monitor_folds_the_log_again(running: Running) -> None:
    """A new process takes its place and counts at least what was acknowledged before."""
    running.answered(100)
    (before,) = running.find("ray::MonitorActor")
    acknowledged = len(running.traffic.labelled)
    before.kill()
    running.answered(50)
    counts = running.status()["monitor"]
    assert counts["labelled"] >= acknowledged
    assert counts["corrupt_lines"] == 0
    (after,) = running.find("ray::MonitorActor")
    assert after.pid != before.pid


def test_killed_replica_is_replaced(running: Running) -> None:
    """Answers go on without a long wait, and there are again as many replicas of the same version."""
    before = running.replicas()
    killed = next(iter(before))
    psutil.Process(killed).kill()
    running.answered(100)
    until(lambda: _is_whole(running.replicas(), killed, before), "all replicas", seconds=150)
    assert running.traffic.slowest_s < 15


def _is_whole(now: dict[int, str], killed: int, before: dict[int, str]) -> bool:
    return killed not in now and sorted(now.values()) == sorted(before.values())


def test_killed_controller_comes_back(running: Running) -> None:
    """Another process takes its place; the next test asks it for a retraining."""
    (before,) = running.find("ray::Controller")
    before.kill()
    until(lambda: [p.pid for p in running.find("ray::Controller")] not in ([], [before.pid]), "a controller")


def test_killed_retraining_is_done_once(running: Running) -> None:
    """The job is seen as lost, submitted again, and ends with one result and one model version."""
    running.project.raywf("retrain", "--reason", "a test")
    until(lambda: "snapshot" in running.stages(), "the job's snapshot", seconds=90)
    drivers = running.find("-m jobs.retrain")
    gave_way = max(driver.nice() for driver in drivers)
    for driver in drivers:
        driver.kill()
    assert max(psutil.Process(pid).nice() for pid in running.replicas()) < gave_way
    until(lambda: {"promoted", "rejected", "failed"} & set(running.stages()), "the end", seconds=120)
    stages = running.stages()
    assert sorted(s for s in stages if s.startswith(("lost", "submitted"))) == [
        "lost-1",
        "submitted-1",
        "submitted-2",
    ]
    assert sum(s in {"promoted", "rejected", "failed"} for s in stages) == 1
    assert "failed" not in stages


def test_the_end_was_told(running: Running) -> None:
    """By the alert's channel, with the evidence; nothing was told of the first version."""
    told = running.project.folder / "alert.json"
    until(told.exists, "an alert", seconds=30)
    alert = json.loads(told.read_text())
    assert alert["kind"] in {"promoted", "rejected"}
    assert alert["figures"]["cause"] == "request"
    assert alert["windows"]


def test_each_decision_has_one_version(running: Running) -> None:
    """No decision is in the journal twice, and none has two model versions."""
    decisions = [d["decision"]["id"] for d in running.project.raywf("decisions")]
    made = [v["decision_id"] for v in running.project.raywf("models", "list")]
    assert len(decisions) == len(set(decisions)) >= 2
    assert sorted(made) == sorted(decisions)


def test_everything_acknowledged_is_in_the_log(running: Running) -> None:
    """Every prediction and every outcome that was answered, and no request was refused."""
    running.answered(50)
    running.traffic.end()
    entries, _ = LogReader(str(running.project.folder / ".raywf"), "orders").read()
    predicted = {e.id for e in entries if isinstance(e, Prediction)}
    labelled = {e.id: e.label for e in entries if isinstance(e, Outcome)}
    assert set(running.traffic.predicted) <= predicted
    assert running.traffic.labelled.items() <= labelled.items()
    assert running.traffic.refused == []


def test_monitor_agrees_with_the_log(running: Running) -> None:
    """Once the traffic has ended, it counts each distinct prediction and each label of the log."""
    running.traffic.end()
    entries, _ = LogReader(str(running.project.folder / ".raywf"), "orders").read()
    predicted = {e.id for e in entries if isinstance(e, Prediction)}
    labelled = {e.id for e in entries if isinstance(e, Outcome)}

    def agrees() -> bool:
        counts = running.status()["monitor"]
        return (counts["predictions"], counts["labelled"]) == (len(predicted), len(predicted & labelled))

    until(agrees, "the same counts", seconds=30)


def test_down_leaves_nothing(running: Running) -> None:
    """After `raywf serve down` none of the cluster's processes is alive."""
    running.traffic.end()
    family = cluster_processes(running.project.folder)
    assert len(family) > 5
    assert running.project.raywf("serve", "down") == {"was_up": True}
    _gone, alive = psutil.wait_procs(family, timeout=10)
    assert [command_of(p) for p in alive] == []
