"""Two tables compared from files: however they are cut, the same comes of it."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from raywf.cli.main import cli
from raywf.core.errors import SettingsError, SourceError
from raywf.core.records import Column, Snapshot
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.drift import DriftOptions, compare_tables, find_side
from raywf.loop.slabs import cut_slabs, find_columns, sketch_slab
from raywf.snapshots.catalog import commit_snapshot, snapshot_path
from raywf.snapshots.sources import open_table

WORKFLOW = """
name: shop
task: binary
spine: {path: a.csv, label: y}
stores: {root: store}
"""


def made(seed: int, *, rows: int = 4_000, shift: float = 0.0) -> pa.Table:
    """Return a table of all kinds; `shift` moves `price` alone."""
    rng = np.random.default_rng(seed)
    days = np.datetime64("2026-01-01") + rng.integers(0, 90, rows)
    return pa.table(
        {
            "price": rng.normal(shift, 1, rows).round(3),
            "count": pa.array(rng.integers(0, 9, rows), mask=rng.random(rows) < 0.1),
            "shop.name": pa.array(rng.choice(list("abc"), rows)).dictionary_encode(),
            "open": rng.random(rows) < 0.3,
            "day": days,
        }
    )


def no_workflow() -> Workflow:
    raise SettingsError("no file 'workflow.yaml'")


def written(folder: Path, name: str, table: pa.Table, group: int = 500) -> str:
    pq.write_table(table, folder / name, row_group_size=group)
    return str(folder / name)


@pytest.mark.parametrize("size", [1, 9_000, 10**9])
def test_any_cut_gives_the_same(tmp_path: Path, size: int) -> None:
    """Slabs of one column, of some and of whole files hold each value once."""
    table = open_table(written(tmp_path, "a.parquet", made(0)), name="t")
    columns, left_out = find_columns(table)
    slabs = cut_slabs(table, columns, size=size)
    sketches = [s for slab in slabs for s in sketch_slab(table.source.path, slab, {})]
    assert left_out == ()
    assert {c.name: c.kind for c in columns} == {
        "price": "number",
        "count": "number",
        "shop.name": "category",
        "open": "category",
        "day": "time",
    }
    for column in columns:
        assert sum(s.rows for s in sketches if s.name == column.name) == 4_000


def test_what_moved_is_named(tmp_path: Path) -> None:
    """One column of five moved; files of another cut, in a folder, are read alike."""
    before = find_side(written(tmp_path, "a.parquet", made(1)), no_workflow)
    (tmp_path / "b").mkdir()
    for i in range(2):
        written(tmp_path / "b", f"{i}.parquet", made(2 + i, rows=1_500, shift=0.7), 10_000)
    found = compare_tables(before, find_side(str(tmp_path / "b"), no_workflow), DriftOptions(cpus=2))
    assert found.drifted == ("price",)
    assert (found.reference_rows, found.rows) == (4_000, 3_000)
    price = found.columns[0]
    assert price.distance == pytest.approx(0.7, abs=0.1)


def test_csv_is_read_as_parquet_is(tmp_path: Path) -> None:
    """Text of numbers, flags and days is what it says: nothing differs from the same table in Parquet."""
    table = made(3)
    pa.csv.write_csv(
        table.set_column(2, "shop.name", table["shop.name"].cast(pa.string())), tmp_path / "a.csv"
    )
    sides = [find_side(str(tmp_path / "a.csv"), no_workflow)]
    sides.append(find_side(written(tmp_path, "a.parquet", table), no_workflow))
    assert [c.kind for c in sides[0].columns] == [c.kind for c in sides[1].columns]
    found = compare_tables(*sides)
    assert [c.effect for c in found.columns] == [0.0] * 5


def test_columns_of_one_side_are_named(tmp_path: Path) -> None:
    """A column that is gone, one that is new, and a list."""
    before = pa.table({"a": [1.0, 2.0], "gone": [1, 2], "list": [[1], [2]]})
    after = pa.table({"a": [1.0, 2.0], "new": ["x", "y"], "list": [[1], [2]]})
    sides = [
        find_side(written(tmp_path, f"{n}.parquet", t), no_workflow) for n, t in (("a", before), ("b", after))
    ]
    found = compare_tables(*sides)
    assert (found.gone, found.new, found.left_out) == (("gone",), ("new",), ("list",))


def test_a_file_that_lacks_a_column(tmp_path: Path) -> None:
    """Its rows lack the value."""
    (tmp_path / "t").mkdir()
    written(tmp_path / "t", "0.parquet", pa.table({"a": [1.0], "b": [1.0]}))
    written(tmp_path / "t", "1.parquet", pa.table({"a": [1.0]}))
    side = find_side(str(tmp_path / "t"), no_workflow)
    found = compare_tables(side, side)
    assert {c.column: c.missing for c in found.columns} == {"a": 0.0, "b": 0.5}


def test_tables_without_anything_in_common(tmp_path: Path) -> None:
    """Are refused in one line."""
    sides = [
        find_side(written(tmp_path, f"{n}.parquet", pa.table({n: [1]})), no_workflow) for n in ("a", "b")
    ]
    with pytest.raises(SourceError, match="no column in common"):
        compare_tables(*sides)
    empty = find_side(written(tmp_path, "c.parquet", pa.table({"a": pa.array([], pa.int64())})), no_workflow)
    with pytest.raises(SourceError, match=r"c\.parquet has no rows"):
        compare_tables(sides[0], empty)


def snapshot_of(folder: Path, name: str, table: pa.Table) -> Snapshot:
    """Write a snapshot with its columns and a reserved one."""
    store = Store(str(folder / "store"))
    uri = store.uri(snapshot_path("shop", name))
    columns = tuple(Column(name=n, kind="number") for n in table.column_names)
    snapshot = Snapshot(
        id=name,
        workflow="shop",
        uri=uri,
        rows=table.num_rows,
        columns=columns,
        task="binary",
        classes=("a", "b"),
        label="y",
        has_time=False,
        window=None,
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        digest="",
        profile=(),
        sources=(),
    )
    Path(uri).mkdir(parents=True)
    pq.write_table(table.append_column("__key", [[1] * table.num_rows]), Path(uri) / "part-000000.parquet")
    commit_snapshot(store, snapshot)
    return snapshot


def test_snapshots_by_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their features are compared, not what is reserved; the greatest effect comes first."""
    monkeypatch.chdir(tmp_path)
    Path("workflow.yaml").write_text(WORKFLOW)
    snapshot_of(tmp_path, "one", pa.table({"a": np.arange(300.0), "b": np.arange(300.0)}))
    snapshot_of(tmp_path, "two", pa.table({"a": np.arange(300.0), "b": np.arange(300.0) + 150}))
    shown = CliRunner().invoke(cli, ["drift", "one", "two", "--json"], env={"RAY_ADDRESS": None})
    found = json.loads(shown.output)
    assert [c["column"] for c in found["columns"]] == ["b", "a"]
    assert found["drifted"] == ["b"]
    assert found["new"] == []
    plain = CliRunner().invoke(cli, ["drift", "one", "two", "--top", "1"], env={"RAY_ADDRESS": None})
    lines = plain.output.splitlines()
    assert lines[0] == "snapshot two (300 rows) beside snapshot one (300 rows)"
    assert lines[1].startswith("1 of 2 columns drifted: effect 0.1 or more")
    assert lines[4].split()[:3] == ["b", "number", "drifted"]
    assert lines[5] == "1 more column moved less; --top shows more"


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is wrong, an id without a workflow, and an id that the workflow has not."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"nothing at 'no/file\.csv'"):
        find_side("no/file.csv", no_workflow)
    with pytest.raises(SourceError, match=r"nothing at 'abc': give a CSV .*no file"):
        find_side("abc", no_workflow)
    shown = CliRunner().invoke(cli, ["drift", "abc", "def"])
    assert isinstance(shown.exception, SourceError)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    """Is said at once."""
    side = find_side(written(tmp_path, "a.parquet", made(0, rows=10)), no_workflow)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"the Ray cluster at '{address}' cannot be reached"):
            compare_tables(side, side, DriftOptions(address=address))
