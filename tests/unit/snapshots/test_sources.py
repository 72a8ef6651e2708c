"""Finding a table's files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raywf.core.errors import SourceError
from raywf.snapshots.sources import find_source, open_table


@pytest.fixture
def folder(tmp_path):
    """Two CSV files in folders, and a file of another kind."""
    for name in ("a/1.csv", "b/2.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"x,{name[0]}\n1,2\n")
    (tmp_path / "notes.txt").write_text("not a table")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "files"), [("", 2), ("a", 1), ("a/1.csv", 1), ("*/*.csv", 2), ("**.csv", 2), ("?/2.csv", 1)]
)
def test_a_file_a_folder_or_a_glob(folder, path, files):
    """Only tables are taken; a URI works alike."""
    for address in (f"{folder}/{path}", f"file://{folder}/{path}"):
        assert open_table(address.rstrip("/"), name="t").source.files == files


def test_columns_are_those_of_all_files(folder):
    """In the order of first sight."""
    assert open_table(str(folder), name="t").columns == ("x", "a", "b")


@pytest.mark.parametrize("path", ["", "a/1.csv", "*/*.csv"])
def test_a_listing_tells_the_same_version(folder, path):
    """Without opening a file."""
    address = f"{folder}/{path}".rstrip("/")
    assert find_source(address, name="t") == open_table(address, name="t").source
    (folder / "a/1.csv").write_text("")
    assert find_source(address, name="t").bytes < 20
    with pytest.raises(SourceError, match="nothing at"):
        find_source(f"{folder}/none.csv", name="t")


def test_the_version_changes_with_a_file(folder):
    """By name, size and time."""
    before = open_table(str(folder), name="t").source.version
    assert open_table(str(folder), name="t").source.version == before
    (folder / "a/1.csv").write_text("x,a\n1,2\n3,4\n")
    assert open_table(str(folder), name="t").source.version != before


@pytest.mark.parametrize("path", ["nowhere", "*.csv", "notes.txt/x", "a/*.parquet"])
def test_nothing_there(folder, path):
    """One line that names the path."""
    with pytest.raises(SourceError, match=r"t table: nothing at '.*'; give a CSV or Parquet file"):
        open_table(f"{folder}/{path}", name="t")


def test_another_kind_of_file(folder):
    """A text file is no table."""
    with pytest.raises(SourceError, match=r"is neither .csv, .csv.gz nor .parquet"):
        open_table(f"{folder}/notes.txt", name="t")


def test_two_kinds_in_one_folder(folder):
    """Which one is meant must be said."""
    (folder / "c.parquet").write_bytes(b"")
    with pytest.raises(SourceError, match="mixes CSV and Parquet files"):
        open_table(str(folder), name="t")


def test_a_broken_parquet_file(folder):
    """Arrow's reason on one line."""
    (folder / "c.parquet").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match=r"cannot read '.*c.parquet' as parquet"):
        open_table(f"{folder}/c.parquet", name="t")


def test_a_missing_column_has_a_nearest_name(folder):
    """A typo is named with what it may have meant."""
    table = open_table(f"{folder}/a", name="t")
    with pytest.raises(SourceError, match=r"t table '.*' lacks key 'xx'; did you mean 'x'"):
        table.require(["xx"], role="key")


def test_columns_of_one_name_are_refused(tmp_path):
    """In a CSV file and in a Parquet file: neither column could be told from the other."""
    (tmp_path / "a.csv").write_text("id,x,x\n1,2,3\n")
    table = pa.table([[1], [2], [3]], names=["id", "x", "x"])
    pq.write_table(table, tmp_path / "b.parquet")
    for name in ("a.csv", "b.parquet"):
        with pytest.raises(SourceError, match="has more than one column named 'x'; rename all but one"):
            open_table(str(tmp_path / name), name="spine")
