"""New data: tables' versions beside the snapshot's, listed once a minute, believed once they stand still."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raywf.core.records import ModelVersion, Snapshot
from raywf.core.retrain_settings import RetrainSettings
from raywf.core.settings import FeatureSettings, SpineSettings, StoreSettings, ViewSettings, Workflow
from raywf.core.store import Store
from raywf.loop.landed import TableWatch
from raywf.snapshots.catalog import commit_snapshot
from raywf.snapshots.sources import find_source
from raywf.testing import make_version


class Seconds:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """Two tables, a champion whose snapshot was built from them, and the watch."""

    def __init__(self, folder: Path, *, on_data: bool = True) -> None:
        self.spine, self.view = folder / "spine.csv", folder / "prices"
        self.view.mkdir()
        self.spine.write_text("x,y\n1,2\n")
        (self.view / "1.csv").write_text("k,p\n1,2\n")
        self.workflow = Workflow(
            name="w",
            task="binary",
            spine=SpineSettings(path=str(self.spine), label="y", event_time="t"),
            features=FeatureSettings(views={"prices": ViewSettings(path=str(self.view), keys=("k",))}),
            retrain=RetrainSettings(on_data=on_data),
            stores=StoreSettings(root=str(folder / "root")),
        )
        self.build("s1")
        self.clock = Seconds()
        self.watch = TableWatch(self.workflow, clock=self.clock)

    def build(self, name: str) -> None:
        """Commit a snapshot of the tables as they are."""
        paths = {"spine": self.spine, "prices": self.view}
        snapshot = Snapshot(
            id=name,
            workflow="w",
            uri="",
            rows=1,
            columns=(),
            task="binary",
            classes=(),
            label="y",
            has_time=True,
            window=None,
            as_of=None,
            digest="",
            profile=(),
            sources=tuple(find_source(str(path), name=n) for n, path in paths.items()),
        )
        commit_snapshot(Store(self.workflow.stores.root), snapshot)

    def tables(self, *, after_s: float = 60.0, snapshot: str = "s1") -> tuple[str, ...] | None:
        """Return which tables have landed, so many seconds later."""
        self.clock.now += after_s
        found = self.watch.landed(champion(snapshot))
        return None if found is None else found.tables


def champion(snapshot: str) -> ModelVersion:
    return make_version("1", snapshot_id=snapshot, created=datetime(2024, 1, 1, tzinfo=UTC))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_tables_as_they_were_are_no_news(scene: Scene) -> None:
    """However often they are listed."""
    assert [scene.tables() for _ in range(3)] == [None, None, None]


def test_what_landed_is_named_once_it_stands_still(scene: Scene) -> None:
    """A table that changes between two listings may be half written."""
    scene.tables()
    (scene.view / "2.csv").write_text("k,p\n2,3\n")
    assert scene.tables() is None
    (scene.view / "3.csv").write_text("k,p\n2,3\n")
    assert scene.tables() is None
    assert scene.tables() == ("prices",)


def test_tables_are_listed_once_a_minute(scene: Scene) -> None:
    """Between it is answered from memory."""
    scene.spine.write_text("x,y\n1,2\n3,4\n")
    assert (scene.tables(), scene.tables()) == (None, ("spine",))
    (scene.view / "2.csv").write_text("k,p\n2,3\n")
    assert scene.tables(after_s=59) == ("spine",)


def test_the_id_is_that_of_the_versions(scene: Scene) -> None:
    """Another watch comes to the same one; other data has another."""
    scene.spine.write_text("x,y\n1,2\n3,4\n")
    ids = []
    for watch in (
        TableWatch(scene.workflow, clock=scene.clock),
        TableWatch(scene.workflow, clock=scene.clock),
    ):
        scene.watch = watch
        scene.tables()
        scene.tables()
        found = watch.landed(champion("s1"))
        assert found is not None
        ids.append(found.id)
    os.utime(scene.spine, (1, 1))
    scene.tables()
    scene.tables()
    found = scene.watch.landed(champion("s1"))
    assert found is not None
    assert (len(set(ids)), found.id in ids) == (1, False)


def test_a_new_champion_has_learned_of_it(scene: Scene) -> None:
    """Its snapshot was built from the tables as they are."""
    scene.spine.write_text("x,y\n1,2\n3,4\n")
    scene.build("s2")
    scene.tables()
    assert (scene.tables(), scene.tables(snapshot="s2")) == (("spine",), None)


def test_a_table_that_cannot_be_read_is_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """It is no trigger; once it is there again it is looked at as ever."""
    caplog.set_level(logging.WARNING)
    scene.spine.unlink()
    assert [scene.tables() for _ in range(3)] == [None, None, None]
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "it cannot be told whether new data landed"
    ]
    scene.spine.write_text("x,y\n1,2\n3,4\n")
    assert [scene.tables() for _ in range(2)] == [None, ("spine",)]


def test_a_snapshot_that_is_gone_is_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is known of what the champion learned from."""
    caplog.set_level(logging.WARNING)
    assert [scene.tables(snapshot="gone") for _ in range(4)] == [None] * 4
    assert len(caplog.records) == 1


def test_nothing_is_listed_unless_it_is_set(tmp_path: Path) -> None:
    """Not even a table that is not there."""
    scene = Scene(tmp_path, on_data=False)
    scene.spine.unlink()
    assert scene.tables() is None
