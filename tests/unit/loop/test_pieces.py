"""Pieces of a table's files: together they are the table, each row once, and the same at every time."""

from __future__ import annotations

import csv
import gzip
import io
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.errors import SourceError
from raywf.loop.pieces import Piece, Wanted, csv_cuts, cut, read_piece
from raywf.snapshots.sources import open_table

WANTED = Wanted(features=("n", "text"), numbers=frozenset({"n"}), kept=("id",))


def read_all(path: Path, pieces: tuple[Piece, ...]) -> list[str]:
    """Return the ids of all pieces' rows, in order."""
    blocks = [block for piece in pieces for block in read_piece(str(path), piece, WANTED)]
    return [text for block in blocks for text in block.kept.column("id").to_pylist()]


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(["id", "n", "text"])
    writer.writerows((one, i, text) for i, (one, text) in enumerate(rows))
    return sink.getvalue().encode()


@given(
    texts=st.lists(st.text(st.sampled_from('a,"\n\r é'), max_size=12), min_size=1, max_size=30),
    every=st.integers(1, 60),
    chunk=st.integers(1, 50),
)
def test_csv_cuts_are_between_records(texts: list[str], every: int, chunk: int) -> None:
    """Whatever quotes, commas and lines' ends the texts hold, and wherever the chunks end."""
    data = as_csv([(f"r{i}", text) for i, text in enumerate(texts)])
    cuts = csv_cuts(io.BytesIO(data), every=every, chunk_bytes=chunk)
    edges = [0, *cuts, len(data)]
    assert edges == sorted(set(edges))
    records = [
        row for a, b in pairwise(edges) for row in csv.reader(io.StringIO(data[a:b].decode(), newline=""))
    ]
    assert records == list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_pieces_of_parquet_go_across_row_groups(tmp_path: Path) -> None:
    """A piece may begin and end within a row group; two files are never in one."""
    ids = [[f"{file}-{i}" for i in range(rows)] for file, rows in enumerate((25, 7))]
    for file, names in enumerate(ids):
        table = pa.table({"id": names, "n": [1.0] * len(names), "text": ["x"] * len(names)})
        pq.write_table(table, tmp_path / f"{file}.parquet", row_group_size=8)
    pieces = cut(open_table(str(tmp_path), name="input"), rows=10)
    assert [(p.start, p.stop) for p in pieces] == [(0, 10), (10, 20), (20, 25), (0, 7)]
    assert [p.part for p in pieces][-2:] == [
        "part-00000-000000000020.parquet",
        "part-00001-000000000000.parquet",
    ]
    assert read_all(tmp_path, pieces) == [*ids[0], *ids[1]]


def test_the_same_files_are_cut_alike(tmp_path: Path) -> None:
    """Names and edges are a function of the files."""
    pq.write_table(pa.table({"id": ["a"] * 9}), tmp_path / "a.parquet")
    table = open_table(str(tmp_path), name="input")
    assert cut(table, rows=4) == cut(table, rows=4)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_csv_file_is_read_as_the_endpoint_reads_one(tmp_path: Path, name: str) -> None:
    """Texts that stand for nothing are missing in features, and stay in what is only kept."""
    data = b'\xef\xbb\xbfid,text,n\nNA,NA,1.5\nb,"x\ny",\n'
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (piece,) = cut(open_table(str(tmp_path / name), name="input"))
    (block,) = read_piece(str(tmp_path / name), piece, WANTED)
    assert block.kept.to_pydict() == {"id": ["NA", "b"]}
    assert block.features.to_pydict() == {"n": [1.5, None], "text": [None, "x\ny"]}


@pytest.mark.parametrize("data", [b"id,text,n\n", b"id,text,n"])
def test_a_header_alone_has_no_rows(tmp_path: Path, data: bytes) -> None:
    """It is no error in one file of many."""
    (tmp_path / "a.csv").write_bytes(data)
    (piece,) = cut(open_table(str(tmp_path / "a.csv"), name="input"))
    assert list(read_piece(str(tmp_path / "a.csv"), piece, WANTED)) == []


def test_a_text_where_a_number_should_be(tmp_path: Path) -> None:
    """Refused with file, column and value."""
    (tmp_path / "a.csv").write_bytes(b"id,n,text\na,long,x\n")
    (piece,) = cut(open_table(str(tmp_path / "a.csv"), name="input"))
    with pytest.raises(SourceError, match=r"a\.csv cannot be read: column 'n': .*invalid value 'long'"):
        list(read_piece(str(tmp_path / "a.csv"), piece, WANTED))
