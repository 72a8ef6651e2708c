"""A replica during a rollout: who answers, what the log has, what shadows see, and when it refuses."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Client, make_workflow

from raywf.core.errors import BundleError, ServingError
from raywf.core.records import ModelVersion, Prediction
from raywf.core.rollout import Mode, Rollouts, RolloutStep, ShadowAnswer
from raywf.core.serving_settings import RolloutSettings
from raywf.outcomes import LogReader
from raywf.serving.app import Endpoint
from raywf.serving.lanes import lane_of
from raywf.serving.requests import Row
from raywf.serving.shadow import Copies, ShadowQueue, ShadowWorker
from raywf.testing import SMALL_ROW, FolderSource

ROW = dict(SMALL_ROW)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Replica:
    """An endpoint in this process whose shadows run in a thread, and the rollouts that it follows."""

    def __init__(self, root: Path, source: FolderSource, **rollout: Any) -> None:
        workflow = dataclasses.replace(make_workflow(root, max_rows=1000), rollout=RolloutSettings(**rollout))
        self.root, self.rollouts = str(root), Rollouts(str(root), "w")
        endpoint = Endpoint(workflow, source)
        self.follower = endpoint._rollout
        self.follower._start_worker = lambda versions: ShadowWorker(workflow, source, versions)
        self.client = Client(endpoint)

    def start(self, mode: Mode, share: float, *challengers: str) -> RolloutStep:
        names = challengers or ("2",)
        step = self.rollouts.start(mode, champion="1", challengers=names, share=share, time=NOW)
        assert self.follower.converge().step == step.tag
        return step

    def log(self, count: int) -> list[Any]:
        """Return the log's entries once there are so many."""
        deadline = time.monotonic() + 20
        while len(found := LogReader(self.root, "w").read()[0]) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} entries"
            time.sleep(0.02)
        return list(found)

    def ask(self, rows: int, **more: Any) -> list[str]:
        """Return the version that answered each of so many rows, sent one by one."""
        body = [{"features": ROW, "id": f"r{i}"} for i in range(rows)]
        found = [self.client.post("/v1/predict", json=one, **more) for one in body]
        for answer in found:
            assert answer.json()["predictions"][0]["model_version"] == answer.headers["x-raywf-model-version"]
        return [answer.json()["model_version"] for answer in found]


def summed(explanation: dict[str, Any]) -> float:
    """The base and all contributions, of one class."""
    return sum(part["late"] for part in (explanation["base"], *explanation["contributions"].values()))


@pytest.fixture
def replica(tmp_path: Path, source: FolderSource) -> Iterator[Replica]:
    """A replica that serves version 1."""
    made = Replica(tmp_path / "root", source)
    yield made
    made.follower.close()


def test_lanes_are_even_and_stay() -> None:
    """As many keys as the share says, other ones in another rollout; who is in stays in as it grows."""
    lanes = np.array([lane_of("a", f"k{i}") for i in range(20_000)])
    others = np.array([lane_of("b", f"k{i}") for i in range(20_000)])
    for share in (0.01, 0.25, 0.5):
        assert (lanes < share).mean() == pytest.approx(share, abs=0.01)
        assert ((lanes < share) & (others < share)).mean() == pytest.approx(share * share, abs=0.01)
    assert lane_of("a", "\ud800") < 1


def test_a_canary_answers_its_share(replica: Replica) -> None:
    """The log has every row with its step and time; the other version answered each as a shadow too."""
    step = replica.start("canary", 0.3)
    versions = Counter(replica.ask(200))
    assert 30 <= versions["2"] <= 90
    entries = replica.log(400)
    live = {e.id: e for e in entries if isinstance(e, Prediction)}
    shadows = {e.id: e for e in entries if isinstance(e, ShadowAnswer)}
    assert Counter(e.version for e in live.values()) == versions
    assert {e.part.step for e in entries} == {step.tag}
    assert all(e.part.took_us > 0 for e in entries)
    assert all({live[i].version, shadows[i].version} == {"1", "2"} for i in live)
    assert len({(e.version, e.scores) for e in entries}) == 2  # equal rows: one answer a version
    status = replica.follower.converge()
    assert (status.ok, status.copied, status.dropped) == (True, 200, 0)


def test_many_rows_in_order(replica: Replica) -> None:
    """A request in both lanes is answered in its order, each row by its lane's version."""
    replica.start("canary", 0.5)
    rows = [{"features": ROW | {"distance": 100 + i}, "id": f"r{i}"} for i in range(100)]
    answer = replica.client.post("/v1/predict", json={"rows": rows})
    found = answer.json()["predictions"]
    assert [p["id"] for p in found] == [r["id"] for r in rows]
    assert (answer.json()["model_version"], answer.headers["x-raywf-model-version"]) == ("1", "1")
    live = {e.id: e for e in replica.log(200) if isinstance(e, Prediction)}
    assert [p["model_version"] for p in found] == [live[f"r{i}"].version for i in range(100)]
    assert all(p["probabilities"]["late"] == live[p["id"]].scores[0] for p in found)


def test_a_watched_champion(replica: Replica, source: FolderSource) -> None:
    """The new champion answers all, the former one sees all, and answers what the new one cannot."""
    slots = replica.follower._slots
    slots.prepare(source.version("2"))
    slots.commit("2")
    step = replica.rollouts.start("watch", champion="1", challengers=("2",), share=1.0, time=NOW)
    assert replica.follower.converge().step == step.tag
    assert Counter(replica.ask(20)) == {"2": 20}
    shadows = [e for e in replica.log(40) if isinstance(e, ShadowAnswer)]
    assert [e.version for e in shadows] == ["1"] * 20
    assert replica.follower.lanes is not None
    assert replica.follower.lanes.champion is slots.previous
    object.__setattr__(slots.active, "predictor", Breaking(slots.active.predictor))
    assert replica.ask(1) == ["1"]
    failed = [
        e for e in replica.log(41) if isinstance(e, Prediction) and e.part is not None and e.part.failed
    ]
    assert [e.version for e in failed] == ["1"]
    status = replica.follower.converge()
    assert (status.ok, status.reason) == (False, "the reference rows are answered otherwise")


def test_both_versions_of_a_watch_are_timed_alike(replica: Replica, source: FolderSource) -> None:
    """On the same rows, in turns, once the watch is taken up."""
    slots = replica.follower._slots
    slots.prepare(source.version("2"))
    slots.commit("2")
    replica.rollouts.start("watch", champion="1", challengers=("2",), share=1.0, time=NOW)
    replica.follower.converge()
    former, champion = replica.follower.converge().row_us or (0.0, 0.0)
    assert 0.1 < former / champion < 10


def test_a_table_in_a_watch_is_answered_whole(replica: Replica, source: FolderSource) -> None:
    """In one line of the log with the watch's part; the former champion sees a hundred of its rows."""
    slots = replica.follower._slots
    slots.prepare(source.version("2"))
    slots.commit("2")
    step = replica.rollouts.start("watch", champion="1", challengers=("2",), share=1.0, time=NOW)
    replica.follower.converge()
    columns = {name: [value] * 300 for name, value in ROW.items()}
    answer = replica.client.post("/v1/predict", json={"columns": columns})
    assert answer.json()["model_version"] == "2"
    entries = replica.log(400)
    live = [e for e in entries if isinstance(e, Prediction)]
    assert (len(live), {e.part and e.part.step for e in live}) == (300, {step.tag})
    shadows = [e for e in entries if isinstance(e, ShadowAnswer)]
    assert ({e.version for e in shadows}, len({e.id for e in shadows})) == ({"1"}, 100)
    object.__setattr__(slots.active, "predictor", Breaking(slots.active.predictor))
    again = replica.client.post("/v1/predict", json={"columns": columns})
    assert set(again.json()["columns"]["model_version"]) == {"1"}


def test_a_table_in_a_canary_of_all_traffic_is_the_challenger_s(replica: Replica) -> None:
    """A last step may be the whole of the traffic, before the alias moves."""
    replica.start("canary", 1.0)
    columns = {name: [value] * 3 for name, value in ROW.items()}
    answer = replica.client.post("/v1/predict", json={"columns": columns})
    assert answer.json()["model_version"] == "2"


def test_a_watch_whose_former_champion_is_gone_says_so(replica: Replica, source: FolderSource) -> None:
    """The new one answers alone, and it is not looked for again and again."""
    slots = replica.follower._slots
    slots.prepare(source.version("2"))
    slots.commit("2")
    slots.previous = None
    shutil.rmtree(slots._cache._bundle_folder(source.version("1")))
    (Path(source.version("1").uri) / "encoder.json").write_text("{}")
    replica.rollouts.start("watch", champion="1", challengers=("2",), share=1.0, time=NOW)
    status = [replica.follower.converge() for _ in range(2)][-1]
    assert (status.ok, status.step, "cannot be had" in status.reason) == (True, "", True)
    assert replica.client.post("/v1/predict", json={"features": ROW}).json()["model_version"] == "2"


class Breaking:
    """A predictor that has come to answer nothing."""

    def __init__(self, former: Any) -> None:
        self.bundle, self.encoder = former.bundle, former.encoder

    def predict_row(self, features: Any) -> Any:
        raise ValueError("broken")

    def check_reference(self) -> None:
        raise BundleError("the reference rows are answered otherwise")


def test_a_caller_keeps_its_version(replica: Replica) -> None:
    """The header's key decides, whatever the rows; as the share grows nobody goes back."""
    step = replica.start("canary", 0.2)
    before = {k: set(replica.ask(4, headers={"x-raywf-key": f"user {k}"})) for k in range(40)}
    assert all(len(versions) == 1 for versions in before.values())
    assert replica.rollouts.follow(step, share=0.6) is not None
    replica.follower.converge()
    after = {k: set(replica.ask(4, headers={"x-raywf-key": f"user {k}"})) for k in range(40)}
    assert {k for k in before if before[k] == {"2"}} < {k for k in after if after[k] == {"2"}}


def test_a_feature_as_the_key(tmp_path: Path, source: FolderSource) -> None:
    """Rows of the same value go to the same version."""
    replica = Replica(tmp_path / "root", source, key="distance")
    replica.start("ab", 0.5)
    rows = [{"features": ROW | {"distance": 100 + i % 10}} for i in range(100)]
    found = replica.client.post("/v1/predict", json={"rows": rows}).json()["predictions"]
    versions = [{p["model_version"] for p in found[i::10]} for i in range(10)]
    assert all(len(one) == 1 for one in versions)
    assert len(set.union(*versions)) == 2
    replica.follower.close()


class Broken:
    """Answers as its model does, but for rows of some distance."""

    def __init__(self, predictor: Any, outcome: float | None) -> None:
        self._predictor, self._outcome = predictor, outcome
        self.bundle = predictor.bundle

    def predict_row(self, features: Any) -> tuple[float, ...]:
        return tuple(self.predict_rows([features])[0].tolist())

    def predict_rows(self, rows: Sequence[Any]) -> Any:
        found = self._predictor.predict_rows(rows)
        for i, row in enumerate(rows):
            if row["distance"] == 777:
                if self._outcome is None:
                    raise MemoryError("no more")
                found[i] = self._outcome
        return found


@pytest.mark.parametrize("outcome", [None, float("nan"), float("inf")])
def test_a_challenger_that_fails(replica: Replica, outcome: float | None) -> None:
    """No request fails: the champion answers the rows that the challenger cannot, and the log says so."""
    replica.start("canary", 1.0)
    lanes = replica.follower.lanes
    assert lanes is not None
    assert lanes.challenger is not None
    broken: Any = Broken(lanes.challenger.predictor, outcome)
    challenger = dataclasses.replace(lanes.challenger, predictor=broken)
    replica.follower.lanes = dataclasses.replace(lanes, challenger=challenger)
    rows = [
        {"features": ROW | {"distance": 777 if i % 3 == 0 else 100 + i}, "id": f"r{i}"} for i in range(30)
    ]
    many = replica.client.post("/v1/predict", json={"rows": rows}).json()["predictions"]
    single = [replica.client.post("/v1/predict", json=row).json()["predictions"][0] for row in rows]
    assert [p["model_version"] for p in many] == ["1" if i % 3 == 0 else "2" for i in range(30)]
    assert [p["model_version"] for p in single] == [p["model_version"] for p in many]
    live = [e for e in replica.log(100) if isinstance(e, Prediction)]
    assert Counter((e.version, e.part.failed) for e in live if e.part) == {("2", False): 40, ("1", True): 20}
    told = [(s.version, s.answered, s.failed) for s in replica.client.endpoint._tallies.tell()]
    assert sorted(told) == [("1", 11, 0), ("2", 21, 11)]  # a request of many rows is one


def test_several_shadows(tmp_path: Path, source: FolderSource, bundles: dict[str, Any]) -> None:
    """The champion answers all; each shadow sees all."""
    source.add(bundles["two"], version="3")
    replica = Replica(tmp_path / "root", source)
    replica.start("shadow", 0.0, "2", "3")
    assert set(replica.ask(20)) == {"1"}
    entries = replica.log(60)
    assert Counter((type(e).__name__, e.version) for e in entries) == {
        ("Prediction", "1"): 20,
        ("ShadowAnswer", "2"): 20,
        ("ShadowAnswer", "3"): 20,
    }
    replica.follower.close()


def test_the_end(replica: Replica) -> None:
    """With the last step, or another champion, the champion answers alone, without parts in the log."""
    step = replica.start("canary", 1.0)
    assert set(replica.ask(3)) == {"2"}
    replica.rollouts.follow(step, stage="rolled_back", share=0.0)
    assert replica.follower.converge().step == ""
    answer = replica.client.post("/v1/predict", json={"features": ROW, "id": "last"})
    assert answer.json()["model_version"] == "1"
    assert "model_version" not in answer.json()["predictions"][0]
    (last,) = (e for e in replica.log(7) if e.id == "last")
    assert last.part is None


def test_a_new_champion_ends_the_lanes_at_once(replica: Replica, source: FolderSource) -> None:
    """A swap during a rollout: the new champion answers alone, before the replica has looked."""
    replica.start("canary", 0.5)
    slots = replica.client.endpoint._slots
    slots.prepare(source.version("2"))
    slots.commit("2")
    answers = [replica.client.post("/v1/predict", json={"features": ROW}).json() for _ in range(10)]
    assert {a["model_version"] for a in answers} == {"2"}
    assert replica.follower.converge().step == ""


def test_a_challenger_that_cannot_be_served(tmp_path: Path, source: FolderSource) -> None:
    """Broken files, or columns that requests do not have: refused with the reason, and not tried again."""
    replica = Replica(tmp_path / "root", source)
    (Path(source.version("2").uri) / "reference.json").write_text("{}")
    replica.rollouts.start("canary", champion="1", challengers=("2",), share=0.5, time=NOW)
    for _ in range(2):
        status = replica.follower.converge()
        assert (status.ok, status.step) == (False, "")
        assert "changed" in status.reason
    assert replica.client.post("/v1/predict", json={"features": ROW}).json()["model_version"] == "1"


def test_one_rollout_at_a_time(tmp_path: Path) -> None:
    """A second one is refused, a decision's is started once, a step is written once."""
    rollouts = Rollouts(str(tmp_path), "w")
    given: Any = {"champion": "1", "challengers": ("2",), "share": 0.1, "time": NOW}
    step = rollouts.start("canary", decision_id="d", **given)
    assert rollouts.start("canary", decision_id="d", **given) == step
    with pytest.raises(ServingError, match="is under way"):
        rollouts.start("canary", decision_id="e", **given)
    second = rollouts.follow(step, share=0.5)
    assert second is not None
    assert rollouts.follow(step, stage="aborted") is None
    assert rollouts.latest() == second
    rollouts.follow(second, stage="aborted", share=0.0)
    assert rollouts.start("canary", decision_id="e", **given).number == 1
    assert len(rollouts.steps()) == 4
    assert [s.share for s in rollouts.steps(step.rollout)] == [0.1, 0.5, 0.0]


class Slow:
    """A worker that waits until it may go on."""

    def __init__(self) -> None:
        self.may, self.seen = threading.Event(), 0

    def answer(self, step: str, copies: Sequence[Copies]) -> None:
        self.may.wait(20)
        self.seen += sum(len(one.rows) for one in copies)

    def close(self) -> None:
        self.may.set()


def test_a_slow_shadow_is_not_felt() -> None:
    """What does not fit into the queue is dropped and counted, at once; the rest is answered."""
    worker = Slow()
    shadows = ShadowQueue(lambda: worker, most_waiting=100)
    copies = Copies([Row(f"c{i}", NOW, {}) for i in range(10)], ("2",))
    start = time.monotonic()
    for _ in range(200):
        shadows.offer("s", copies)
    assert time.monotonic() - start < 1
    assert shadows.dropped >= 2000 - 100 - 2 * 256
    worker.may.set()
    shadows.close(timeout_s=20)
    assert worker.seen + shadows.dropped == 2000
    assert worker.seen == shadows.copied


def test_a_worker_that_is_gone() -> None:
    """It is ended, what comes for a while is dropped, and the reason is told."""
    started: list[Slow] = []

    class Gone(Slow):
        def answer(self, step: str, copies: Sequence[Copies]) -> None:
            raise OSError("out of memory")

    def start() -> Slow:
        started.append(Gone())
        return started[-1]

    shadows = ShadowQueue(start)
    for i in range(20):
        shadows.offer("s", Copies([Row(f"c{i}", NOW, {})], ("2",)))
        time.sleep(0.01)
    shadows.close(timeout_s=20)
    assert (shadows.dropped, shadows.copied, len(started)) == (20, 0, 1)
    assert "out of memory" in shadows.problem
    assert started[0].may.is_set()


def test_a_key_that_is_no_feature(tmp_path: Path, source: FolderSource) -> None:
    """A rollout by a feature that requests do not have is refused, lest one version has all."""
    replica = Replica(tmp_path / "root", source, key="customer")
    replica.rollouts.start("canary", champion="1", challengers=("2",), share=0.5, time=NOW)
    status = replica.follower.converge()
    assert (status.ok, "'customer' is not a feature" in status.reason) == (False, True)


def test_a_key_that_is_missing(tmp_path: Path, source: FolderSource) -> None:
    """Rows without the key are spread by their ids."""
    replica = Replica(tmp_path / "root", source, key="distance")
    replica.start("ab", 0.5)
    rows = [{"features": ROW | {"distance": None}, "id": f"r{i}"} for i in range(60)]
    found = replica.client.post("/v1/predict", json={"rows": rows}).json()["predictions"]
    assert {p["model_version"] for p in found} == {"1", "2"}
    replica.follower.close()


def test_a_row_that_a_shadow_cannot_take(tmp_path: Path, source: FolderSource) -> None:
    """Its answer is empty; the others of its batch have theirs."""
    workflow = make_workflow(tmp_path / "root")
    versions: list[ModelVersion] = [source.version("2")]
    worker = ShadowWorker(workflow, source, versions)
    good, bad = dict(ROW), dict(ROW) | {"distance": "far"}
    rows = [Row(name, NOW, features) for name, features in (("a", good), ("b", bad), ("c", good))]
    worker.answer("r:1", [Copies(rows, ("2",))])
    found = {e.id: e.scores for e in LogReader(str(tmp_path / "root"), "w").read()[0]}
    assert found["b"] == ()
    assert found["a"] == found["c"] != ()


def test_each_lane_is_explained_by_its_own_model(replica: Replica) -> None:
    """Rows and columns alike; each row is logged once and copied for the other version."""
    replica.start("canary", 0.5)
    rows = [{"features": ROW, "id": f"r{i}"} for i in range(30)]
    answer = replica.client.post("/v1/predict", json={"rows": rows, "explain": True}).json()
    found = answer["predictions"]
    assert len({one["model_version"] for one in found}) == 2
    for one in found:
        assert summed(one["explanation"]) == pytest.approx(one["probabilities"]["late"], abs=1e-6)
    columns = {name: [value] * 30 for name, value in ROW.items()}
    body = {"columns": columns, "ids": [one["id"] for one in found], "explain": True}
    told = replica.client.post("/v1/predict", json=body).json()["columns"]
    assert told["explanation"] == [one["explanation"] for one in found]
    assert Counter(type(entry) for entry in replica.log(120)) == {Prediction: 60, ShadowAnswer: 60}


def test_a_looked_up_prediction_has_its_shadow(replica: Replica) -> None:
    """What the version that did not answer would have said stands beside."""
    replica.start("shadow", 0.0)
    replica.ask(1)
    replica.log(2)
    found = replica.client.get("/v1/predictions/r0").json()
    assert found["model_version"] == "1"
    assert [one["model_version"] for one in found["shadows"]] == ["2"]
    assert set(found["shadows"][0]["probabilities"]) == {"no", "late"}
