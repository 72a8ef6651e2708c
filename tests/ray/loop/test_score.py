"""Scoring on a real Ray cluster: each row once, by the registered bundle, whatever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest

from raywf.core.errors import RegistryError, SettingsError, SourceError
from raywf.core.records import Snapshot
from raywf.core.store import Store
from raywf.loop.score import Asked, Progress, Scored, score
from raywf.loop.scores import MANIFEST, read_scores
from raywf.models.bundle import load_bundle
from raywf.snapshots.catalog import commit_snapshot, snapshot_path
from raywf.testing import SMALL_COLUMNS, FolderSource, small_bundle, small_table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from score_driver import workflow  # noqa: E402 the folder is not a package

FILES, ROWS = 40, 50  # a part a file
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry with two versions, the first being champion, and a table of many files with ids."""
    source = FolderSource(str(tmp_path / "registry"))
    for i in (1, 2):
        source.add(small_bundle(tmp_path / f"bundle-{i}", seed=i, rounds=5), version=str(i))
    source.move("champion", "1")
    (tmp_path / "input").mkdir()
    table = small_table(FILES * ROWS, np.random.default_rng(0))
    ids = pa.array([f"f{i:05}" for i in range(len(table))])
    table = table.append_column("id", ids)
    for i in range(FILES):
        pq.write_table(table.slice(i * ROWS, ROWS), tmp_path / "input" / f"{i:03}.parquet")
    return tmp_path


def expected(folder: Path, table: pa.Table, version: str = "1") -> pa.Table:
    """Return the answers of the bundle in this process."""
    scores = load_bundle(folder / f"registry/versions/{version}/bundle").predict_table(table)[:, 0]
    return pa.table(
        {
            "prediction": np.where(scores >= 0.5, "late", "no").tolist(),
            "probability_no": 1 - scores,
            "probability_late": scores,
            "model_version": [version] * len(scores),
        }
    )


def run(folder: Path, tell: Callable[[Progress], None] = lambda _: None, **asked: str) -> Scored:
    wanted = Asked(**{"input": str(folder / "input"), "output": str(folder / "out"), **asked})  # type: ignore[arg-type]
    return score(workflow(folder), wanted, source=FolderSource(str(folder / "registry")), tell=tell)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return each part's inode and time: both change when it is written again."""
    found = [(path.name, path.stat()) for path in (folder / "out").glob("part-*.parquet")]
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found}


def test_a_killed_run_goes_on(folder: Path) -> None:
    """Killed in the middle and begun again: no row lost or doubled, no finished part written again."""
    command = [sys.executable, str(HERE / "score_driver.py"), str(folder), "5"]
    killed = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    before = files(folder)
    assert 5 <= len(before) < FILES
    assert not (folder / "out" / MANIFEST).exists()
    done = run(folder)
    table = pq.read_table(folder / "input")
    assert read_scores(str(folder / "out")) == pa.table(
        {"id": table["id"], **_columns(expected(folder, table))}
    )
    assert {name: files(folder)[name] for name in before} == before
    assert done.kept_parts >= len(before)
    _assert_finished_is_left_alone(folder)


def _assert_finished_is_left_alone(folder: Path) -> None:
    before = files(folder)
    again = run(folder)
    assert again.was_finished
    assert files(folder) == before
    with pytest.raises(SettingsError, match=r"belongs to another run: its version is '1', not '2'"):
        run(folder, version="2")


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def test_a_killed_worker_costs_no_row(folder: Path) -> None:
    """Its piece is done again by another, which finds what the first has written."""
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        for process in psutil.Process().children(recursive=True) if progress.parts == 5 else ():
            if any("MapBatches(Scorer)" in word for word in process.cmdline()):
                process.kill()
                killed.append(process.pid)

    run(folder, kill)
    assert killed
    assert read_scores(str(folder / "out"))["id"] == pq.read_table(folder / "input")["id"]


def test_an_input_that_changes_meanwhile(folder: Path) -> None:
    """What was read of it is called finished by nobody."""

    def add(progress: Progress) -> None:
        if progress.parts == 1:
            pq.write_table(pq.read_table(folder / "input/000.parquet"), folder / "input/999.parquet")

    with pytest.raises(SourceError, match="changed while it was scored"):
        run(folder, add)
    assert not (folder / "out" / MANIFEST).exists()


def test_a_snapshot_is_scored_as_in_this_process(folder: Path) -> None:
    """By another version than the champion; the rows' keys and times stand beside the answers."""
    snapshot, table = write_snapshot(folder)
    wanted = Asked(output=str(folder / "out"), version="2")  # the newest snapshot
    made = score(workflow(folder), wanted, source=FolderSource(str(folder / "registry")))
    assert made.manifest.run.input == f"snapshot {snapshot.id}"
    keys = {"__key": table["__key"], "__time": table["__time"]}
    assert read_scores(str(folder / "out")) == pa.table({**keys, **_columns(expected(folder, table, "2"))})


def write_snapshot(folder: Path) -> tuple[Snapshot, pa.Table]:
    """Write a snapshot of the model's columns into the store."""
    table = small_table(300, np.random.default_rng(1))
    table = table.append_column("__label", pa.array([0.0] * 300)).append_column("__time", table["departure"])
    table = table.append_column("__key", pa.array(range(300), pa.int64()))
    store = Store(workflow(folder).stores.root)
    snapshot = Snapshot(
        id="abc",
        workflow="flights",
        uri=store.uri(snapshot_path("flights", "abc")),
        rows=300,
        columns=SMALL_COLUMNS,
        task="binary",
        classes=("no", "late"),
        label="late",
        has_time=True,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
    )
    Path(snapshot.uri).mkdir(parents=True)
    pq.write_table(table, Path(snapshot.uri) / "part-000000.parquet")
    commit_snapshot(store, snapshot)
    return snapshot, table


def test_csv_is_scored_as_parquet_is(folder: Path) -> None:
    """The same rows as text, all columns kept: the same answers."""
    table = pq.read_table(folder / "input")
    arrow_csv.write_csv(table, folder / "table.csv")
    run(folder, input=str(folder / "table.csv"), keep="all")
    found = read_scores(str(folder / "out"))
    assert set(table.column_names) < set(found.column_names)
    assert found["id"] == table["id"]
    np.testing.assert_allclose(
        found["probability_late"], expected(folder, table)["probability_late"], rtol=1e-9
    )


def test_a_value_of_the_wrong_type_in_the_middle(folder: Path) -> None:
    """A worker's refusal comes home as one line, and nothing is called finished."""
    table = pq.read_table(folder / "input")
    arrow_csv.write_csv(table, folder / "table.csv")
    text = (folder / "table.csv").read_text().replace('"f01999"', '"f01999",1').splitlines()
    text[-1] = "far" + text[-1][text[-1].index(",") :]
    (folder / "table.csv").write_text("\n".join(text))
    with pytest.raises(SourceError, match=r"table\.csv cannot be read: "):
        run(folder, input=str(folder / "table.csv"))
    assert not (folder / "out" / MANIFEST).exists()


def without(folder: Path, name: str) -> None:
    pq.write_table(pq.read_table(folder / "input").drop_columns([name]), folder / "x.parquet")


@pytest.mark.parametrize(
    ("asked", "error", "reason"),
    [
        ({"version": "9"}, RegistryError, "no version '9'"),
        ({"version": "chalenger"}, RegistryError, "no alias 'chalenger'"),
        ({"input": "{folder}/none.parquet"}, SourceError, "nothing at .*none.parquet"),
        ({"input": "{folder}/x.parquet"}, SourceError, r"x\.parquet lacks column 'carrier', which version 1"),
        ({"input": "{folder}/typed.parquet"}, SourceError, r"field 'distance': must be numbers, got string"),
        ({"output": "{folder}/input/out"}, SettingsError, "lies in the input"),
        ({"output": "{folder}/x.parquet/out"}, SettingsError, "cannot be written"),
        ({"snapshot": "abc"}, SettingsError, "not both at once"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_any_work(
    folder: Path, asked: dict[str, str], error: type[Exception], reason: str
) -> None:
    """In one line that names it."""
    without(folder, "carrier")
    table = pq.read_table(folder / "input")
    table = table.set_column(0, "distance", table["distance"].cast(pa.string()))
    pq.write_table(table, folder / "typed.parquet")
    with pytest.raises(error, match=reason):
        run(folder, **{key: value.format(folder=folder) for key, value in asked.items()})
