"""Snapshots from files, on a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raywf.core.errors import SettingsError, SourceError, ValidationError
from raywf.core.settings import (
    FeatureSettings,
    SpineSettings,
    StoreSettings,
    ValidateSettings,
    ViewSettings,
    Workflow,
)
from raywf.core.store import Store
from raywf.snapshots.assemble import Limits
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import list_snapshots, load_snapshot, read_snapshot
from raywf.snapshots.rows import joined_rows

pytestmark = pytest.mark.usefixtures("ray_session")
START = pd.Timestamp("2020-01-01", tz="UTC")
AS_OF = datetime(2020, 1, 11, tzinfo=UTC)
SHUFFLED = Limits(broadcast_bytes=0, gather_bytes=0)


def hours(count, rng, n):
    """Random instants."""
    return START + pd.to_timedelta(rng.integers(0, count * 60, n), unit="min")


def make_tables(folder: Path, *, rows=300, seed=0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A spine with late labels, and a view with late values and corrections, written as CSV."""
    rng = np.random.default_rng(seed)
    spine = pd.DataFrame({"id": range(rows), "shop": rng.integers(0, 8, rows), "at": hours(240, rng, rows)})
    spine["known"] = spine["at"] + pd.to_timedelta(rng.integers(0, 96, rows), unit="h")
    spine["x"] = rng.normal(size=rows)
    spine["y"] = np.where(rng.random(rows) < 0.5, "yes", "no")
    view = pd.DataFrame({"shop": rng.integers(0, 10, 400), "day": hours(240, rng, 400).floor("6h")})
    view["told"] = view["day"] + pd.to_timedelta(rng.integers(0, 48, 400), unit="h")
    view["stock"] = np.arange(400)
    folder.mkdir(parents=True, exist_ok=True)
    spine.to_csv(folder / "spine.csv", index=False)
    view.to_csv(folder / "view.csv", index=False)
    return spine, view


def make_workflow(folder: Path, **features) -> Workflow:
    """Settings for `make_tables`."""
    view = ViewSettings(
        path=str(folder / "view.csv"),
        keys=("shop",),
        event_time="day",
        known_time="told",
        max_age=timedelta(hours=36),
    )
    return Workflow(
        name="shops",
        task="binary",
        spine=SpineSettings(
            path=str(folder / "spine.csv"), label="y", keys=("id",), event_time="at", label_time="known"
        ),
        features=FeatureSettings(views={"view": view}, **features),
        stores=StoreSettings(root=str(folder / "store")),
    )


def brute_force(row, view):
    """The value that was the latest known one at the row's time, at most 36 hours old."""
    known = view[(view.shop == row.shop) & (view.day <= row["at"]) & (view.told <= row["at"])]
    if known.empty:
        return None
    best = max(known.itertuples(), key=lambda v: (v.day, v.told, v.Index))
    return float(best.stock) if row["at"] - best.day <= timedelta(hours=36) else None


@pytest.mark.parametrize("limits", [Limits(), SHUFFLED], ids=["broadcast", "shuffled"])
def test_every_joined_value_is_the_brute_force_one(tmp_path, limits):
    """And only rows of the past with labels of the past are in it."""
    spine, view = make_tables(tmp_path, seed=5)
    table = read_snapshot(build_snapshot(make_workflow(tmp_path), as_of=AS_OF, limits=limits)).to_pandas()
    spine = spine[(spine["at"] <= AS_OF) & (spine.known <= AS_OF)]
    expected = {row.x: brute_force(row, view) for _, row in spine.iterrows()}
    found = {row.x: None if np.isnan(row.stock) else row.stock for row in table.itertuples()}
    assert found == expected


def test_both_ways_give_the_same_snapshot(tmp_path):
    """The id does not depend on how the view came to the rows, nor on blocks."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    first = build_snapshot(workflow, as_of=AS_OF)
    assert build_snapshot(workflow, as_of=AS_OF, limits=SHUFFLED).id == first.id


def test_building_again_is_a_no_op(tmp_path):
    """The manifest is not written again, and there is one snapshot."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    first = build_snapshot(workflow, as_of=AS_OF)
    manifest = Path(first.uri, "manifest.json")
    before = manifest.stat().st_mtime_ns
    assert build_snapshot(workflow, as_of=AS_OF) == first
    assert manifest.stat().st_mtime_ns == before
    assert list_snapshots(Store(workflow.stores.root), "shops") == (first,)


def test_another_as_of_is_another_snapshot(tmp_path):
    """Later, more labels are known."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    early, late = (build_snapshot(workflow, as_of=AS_OF + timedelta(days=d)) for d in (-3, 9))
    assert early.id != late.id
    assert early.rows < late.rows
    assert list_snapshots(Store(workflow.stores.root), "shops") == (early, late)


def test_a_broken_off_build_is_overwritten(tmp_path):
    """Files without a manifest are no snapshot and do not get into the next one."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    first = build_snapshot(workflow, as_of=AS_OF)
    Path(first.uri, "manifest.json").unlink()
    Path(first.uri, "part-leftover.parquet").write_bytes(b"half")
    assert list_snapshots(Store(workflow.stores.root), "shops") == ()
    assert read_snapshot(build_snapshot(workflow, as_of=AS_OF)).num_rows == first.rows


def test_rows_are_sorted_and_typed(tmp_path):
    """By time; labels as indices, keys as integers."""
    make_tables(tmp_path)
    table = read_snapshot(build_snapshot(make_workflow(tmp_path), as_of=AS_OF))
    times = table.column("__time").to_pylist()
    assert times == sorted(times)
    assert [str(table.schema.field(n).type) for n in ("x", "__label", "__time", "__key")] == [
        "double",
        "double",
        "timestamp[us, tz=UTC]",
        "int64",
    ]


def test_the_window_leaves_old_rows_out(tmp_path):
    """Event times after as_of - window only."""
    make_tables(tmp_path)
    workflow = dataclasses.replace(
        make_workflow(tmp_path), validate=ValidateSettings(min_rows=10, window=timedelta(days=5))
    )
    snapshot = build_snapshot(workflow, as_of=AS_OF)
    assert snapshot.window is not None
    assert snapshot.window[0] > AS_OF - timedelta(days=5)


def test_a_missing_column_names_the_nearest(tmp_path):
    """Before anything is read."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    spine = dataclasses.replace(workflow.spine, label="yy")
    with pytest.raises(SourceError, match=r"spine table .* lacks the label 'yy'; did you mean 'y'"):
        build_snapshot(dataclasses.replace(workflow, spine=spine))


def test_a_missing_file_is_named(tmp_path):
    """One line with the path."""
    with pytest.raises(SourceError, match=r"spine table: nothing at '.*spine.csv'"):
        build_snapshot(make_workflow(tmp_path))


def test_an_empty_table_is_refused(tmp_path):
    """A header alone."""
    make_tables(tmp_path)
    (tmp_path / "view.csv").write_text("shop,day,told,stock\n")
    with pytest.raises(SourceError, match="view table has no rows"):
        build_snapshot(make_workflow(tmp_path))


def test_a_torn_csv_is_refused_in_one_line(tmp_path):
    """Arrow's words, without a trace."""
    make_tables(tmp_path)
    with open(tmp_path / "spine.csv", "a") as file:
        file.write("1,2\n")
    with pytest.raises(
        SourceError, match=r"spine table cannot be read: .*(Expected 6 columns, got 2|spine.csv)"
    ):
        build_snapshot(make_workflow(tmp_path))


def test_exclude_must_name_a_column(tmp_path):
    """A typo there would let a leak through."""
    make_tables(tmp_path)
    with pytest.raises(
        SettingsError, match=r"features.exclude names no column: 'stokc'; did you mean 'stock'"
    ):
        build_snapshot(make_workflow(tmp_path, exclude=("stokc",)))


@pytest.mark.parametrize("limits", [Limits(), SHUFFLED], ids=["broadcast", "shuffled"])
def test_a_repeated_key_of_a_view_without_times_is_refused(tmp_path, limits):
    """The error of a task comes home as it was."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    view = ViewSettings(path=str(tmp_path / "view.csv"), keys=("shop",), columns=("stock",))
    workflow = dataclasses.replace(workflow, features=FeatureSettings(views={"view": view}))
    with pytest.raises(ValidationError, match=r"^view 'view' has no event_time"):
        build_snapshot(workflow, as_of=AS_OF, limits=limits)


def test_types_that_differ_between_files_are_unified(tmp_path):
    """Whole numbers in one file, fractions and blanks in the next; Parquet of two types likewise."""
    rng = np.random.default_rng(0)
    label = np.tile(["a", "b"], 50)
    pd.DataFrame({"x": range(100), "y": label}).to_csv(tmp_path / "1.csv", index=False)
    pd.DataFrame({"x": [None, *rng.normal(size=99)], "y": label}).to_csv(tmp_path / "2.csv", index=False)
    folder = tmp_path / "parquet"
    folder.mkdir()
    pd.DataFrame({"x": range(100), "y": label}).to_parquet(folder / "1.parquet")
    pd.DataFrame({"x": [str(i) for i in range(100)], "y": label}).to_parquet(folder / "2.parquet")
    for path, missing in ((f"{tmp_path}/*.csv", 1), (str(folder), 0)):
        workflow = Workflow(
            name="mixed",
            task="binary",
            spine=SpineSettings(path=path, label="y"),
            stores=StoreSettings(root=str(tmp_path / "store")),
        )
        snapshot = build_snapshot(workflow)
        assert (snapshot.rows, snapshot.columns[0].kind, snapshot.profile[0].missing) == (
            200,
            "number",
            missing,
        )
        assert snapshot.as_of is None


def test_text_that_is_mostly_numbers_is_read_as_numbers_with_a_warning(tmp_path):
    """Two words among a hundred numbers count as missing."""
    values = [str(i * 0.5) for i in range(98)] + ["n.a.!", "dunno"]
    pd.DataFrame({"x": values, "y": np.tile([0, 1], 50)}).to_parquet(tmp_path / "t.parquet")
    spine = SpineSettings(path=str(tmp_path / "t.parquet"), label="y")
    workflow = Workflow(
        name="text", task="binary", spine=spine, stores=StoreSettings(root=str(tmp_path / "store"))
    )
    snapshot = build_snapshot(workflow)
    assert snapshot.classes == ("0", "1")
    assert "column 'x' is text but read as a number: 2 of 100 values" in snapshot.warnings[0]


def test_joined_rows_hold_unlabelled_rows_too(tmp_path):
    """All rows of the spine, with the class as text."""
    spine, _ = make_tables(tmp_path)
    spine.loc[:9, "y"] = None
    spine.to_csv(tmp_path / "spine.csv", index=False)
    table = joined_rows(make_workflow(tmp_path))
    assert table.column_names == ["shop", "x", "stock", "__label", "__time", "__label_time", "__key"]
    assert (table.num_rows, table.column("__label").null_count) == (300, 10)


def test_columns_of_one_name_are_told_apart_by_the_view(tmp_path):
    """The spine keeps the plain name."""
    _, view = make_tables(tmp_path)
    view.rename(columns={"stock": "x"}).to_csv(tmp_path / "view.csv", index=False)
    snapshot = build_snapshot(make_workflow(tmp_path), as_of=AS_OF)
    assert [c.name for c in snapshot.columns] == ["shop", "x", "view_x"]


def test_uris_work_like_folders(tmp_path):
    """Tables and store by URI give the same snapshot."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    plain = build_snapshot(workflow, as_of=AS_OF)
    spine = dataclasses.replace(workflow.spine, path=f"file://{tmp_path}/spi*.csv")
    store = StoreSettings(root=f"file://{tmp_path}/other")
    by_uri = build_snapshot(dataclasses.replace(workflow, spine=spine, stores=store), as_of=AS_OF)
    assert by_uri.id == plain.id
    assert read_snapshot(by_uri).equals(read_snapshot(plain))


def test_an_unknown_id_lists_the_known(tmp_path):
    """Or says that there is none."""
    make_tables(tmp_path)
    workflow = make_workflow(tmp_path)
    store = Store(workflow.stores.root)
    with pytest.raises(SourceError, match="none was built yet"):
        load_snapshot(store, "shops", "abc")
    known = build_snapshot(workflow, as_of=AS_OF)
    assert load_snapshot(store, "shops", known.id) == known
    with pytest.raises(SourceError, match=f"known: {known.id}"):
        load_snapshot(store, "shops", "zzz")


def data_folder() -> Path:
    """Where the real data sets lie."""
    here = Path(__file__).resolve().parents[3]
    return Path(os.environ.get("RAYWFTEST_DATA", here.parent / "shared" / "data"))


def test_hotel_bookings_as_of_a_day(tmp_path):
    """Real rows: none has a label, or an event, later than as_of; cancellations are known before stays."""
    path = data_folder() / "hotel_bookings" / "stream_lead90.parquet"
    if not path.exists():
        pytest.skip(f"no data set at {path}; set RAYWFTEST_DATA")
    spine = SpineSettings(
        path=str(path), label="is_canceled", event_time="booking_date", label_time="label_date"
    )
    workflow = Workflow(
        name="hotel", task="binary", spine=spine, stores=StoreSettings(root=str(tmp_path / "store"))
    )
    as_of = datetime(2016, 1, 1, tzinfo=UTC)
    raw = pd.read_parquet(path)
    stamp = pd.Timestamp(as_of).tz_localize(None)
    known = (raw.label_date <= stamp) & (raw.booking_date <= stamp)
    mature = build_snapshot(workflow, as_of=as_of)
    age = pd.Timedelta(seconds=mature.maturity_s)
    assert age < pd.Timedelta(days=90)
    assert mature.rows == (known & (raw.booking_date <= stamp - age)).sum()
    assert "are left out" in mature.warnings[-1]
    spine = dataclasses.replace(spine, maturity=timedelta(0))
    snapshot = build_snapshot(dataclasses.replace(workflow, spine=spine), as_of=as_of)
    assert snapshot.rows == known.sum()
    assert snapshot.classes == ("0", "1")
