"""Rollouts of the whole system under traffic: a better version in, a worse one out, acts by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raywf.core.codec import encode
from raywf.core.rollout import Rollouts
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
validate: {{window: 8d}}
search: {{budget_s: 20, trials: 1, folds: 2, families: [lightgbm]}}
serving: {{port: {port}, alias_poll_s: 1}}
rollout:
  {{mode: canary, steps: [0.2, 0.5], bake: 12h, min_rows: 40, min_labelled: 40, patience: 90d, watch: 60d}}
monitor: {{clock: log, window: 1d, min_labelled: 50, poll_s: 0.25}}
retrain: {{cooldown: 365d}}
"""


class Rolling:
    """The system under traffic whose rule has turned over; version 1 is of before."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.rollouts = Rollouts(str(folder / ".raywf"), "orders")
        write_orders(folder / "orders.csv", days=90)
        (folder / "workflow.yaml").write_text(SETTINGS.format(port=free_ports(1)[0]))
        first = self.project.raywf("run", "--as-of", "2024-01-31T00:00:00Z")
        assert first["status"] == "promoted", first["verdict"]
        self.traffic = Traffic(self.project.raywf("serve", "up")["url"])
        self.traffic.start()

    def steps(self) -> list[dict[str, Any]]:
        """Return the steps of the newest rollout."""
        found = self.project.raywf("rollout", "status")
        return list(found["steps"]) if found else []

    def canary(self) -> list[dict[str, Any]]:
        """Return the steps of the newest rollout if it is a canary."""
        return [step for step in self.steps() if step["mode"] == "canary"]

    def stage(self) -> str:
        """Return how the newest rollout stands."""
        return str(self.steps()[-1]["stage"])

    def version(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.project.raywf("models", "show", name)
        return found

    def end_of_request(self) -> dict[str, Any] | None:
        """Return the last stage of the retraining that was asked for, once there is one."""
        return self.decision("request")

    def decision(self, cause: str) -> dict[str, Any] | None:
        """Return the last stage of the first decision of a cause, once there is one."""
        asked = [d for d in self.project.raywf("decisions") if d["decision"]["cause"] == cause]
        stages: list[dict[str, Any]] = asked[0]["stages"] if asked else []
        return stages[-1] if stages and stages[-1]["stage"] in {"promoted", "rejected", "failed"} else None


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rolling]:
    """A model of the first month, in service."""
    folder = tmp_path_factory.mktemp("orders")
    try:
        made = Rolling(folder)
        yield made
        made.traffic.end()
    finally:
        Project(folder).try_raywf("serve", "down")


def test_a_better_version_by_a_canary(rolling: Rolling) -> None:
    """A retraining's version meets a fifth, then half of the traffic, and is champion; no request fails.

    The controller is killed on the way: another one goes on from the step that was reached.
    """
    until(lambda: len(rolling.traffic.predicted) > 600, "six days of traffic")
    rolling.project.raywf("retrain", "--reason", "the rule has turned over")
    until(lambda: rolling.canary() != [], "a rollout", seconds=120)
    for process in cluster_processes(rolling.project.folder):
        if "ray::Controller" in command_of(process):
            process.kill()
    until(lambda: rolling.end_of_request() is not None, "the end of the rollout", seconds=120)
    end = rolling.end_of_request()
    assert end is not None
    assert (end["stage"], end["figures"]["version"]) == ("promoted", "2"), end
    steps = [encode(step) for step in rolling.rollouts.steps("000001")]
    assert [(s["stage"], s["share"]) for s in steps] == [("canary", 0.2), ("canary", 0.5), ("promoted", 1.0)]
    assert "shown to be better" in steps[-1]["reasons"][0]
    assert steps[-1]["figures"]["upper"] < 0 < steps[-1]["figures"]["labelled"]
    assert rolling.version("2")["aliases"] == ["challenger", "champion"]
    assert rolling.traffic.refused == []


def test_a_worse_version_goes_back(rolling: Rolling) -> None:
    """The former champion as a canary: sent back for its loss, and its version says why."""
    rolling.project.raywf("rollout", "start", "1")
    until(lambda: rolling.stage() == "rolled_back", "the end of the rollout", seconds=90)
    assert "worse: the loss is higher" in rolling.steps()[-1]["reasons"][0]
    assert rolling.version("1")["status"] == "rolled_back"
    assert "champion" in rolling.version("2")["aliases"]
    assert rolling.traffic.refused == []


def test_by_hand(rolling: Rolling) -> None:
    """Paused it stays, whatever the log shows; aborted it is over; each act is kept."""
    rollouts = rolling.rollouts
    now = datetime(2024, 6, 1, tzinfo=UTC)
    step = rollouts.start("canary", champion="2", challengers=("1",), share=0.2, time=now)
    rollouts.pause(step, paused=True, now=now, reason="paused before it is found out")
    wanted = len(rolling.traffic.predicted) + 300
    until(lambda: len(rolling.traffic.predicted) >= wanted, "more answers")
    assert rolling.steps()[-1]["paused"]
    refused = rolling.project.try_raywf("rollout", "start", "2")
    assert refused.returncode == 1
    assert rolling.project.raywf("rollout", "abort", "--reason", "a test")["stage"] == "aborted"
    acts = [act["what"] for act in rolling.project.raywf("audit")]
    assert acts[-2:] == ["rollout start 1", "rollout abort"]
    assert rolling.traffic.refused == []


def test_a_champion_that_harms_is_taken_back(rolling: Rolling) -> None:
    """The worse version promoted by hand: the former champion serves again, without a request lost."""
    rolling.project.raywf("models", "promote", "1")
    until(lambda: rolling.steps()[-1]["mode"] == "watch", "a watch", seconds=60)
    until(lambda: rolling.stage() == "rolled_back", "its end", seconds=90)
    last = rolling.steps()[-1]
    assert (last["mode"], last["challengers"], "worse" in last["reasons"][0]) == ("watch", ["1"], True), last
    until(lambda: "champion" in rolling.version("2")["aliases"], "the former champion")
    until(lambda: rolling.decision("watch") is not None, "its decision")
    assert rolling.version("1")["status"] == "rolled_back"
    refused = rolling.project.try_raywf("models", "rollback")
    assert (refused.returncode, "no previous champion" in refused.stderr) == (1, True), refused.stderr
    assert rolling.traffic.refused == []
