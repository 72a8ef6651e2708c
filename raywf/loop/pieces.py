"""Cuts the files of a table into pieces of like size, the same at every time, and reads one piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import ray

from raywf.core.columns import MISSING_TEXTS
from raywf.core.errors import SourceError
from raywf.snapshots.sources import TASK_CPUS, Table, open_filesystem

PIECE_ROWS = 100_000  # of a Parquet file
PIECE_BYTES = 16_000_000  # of a CSV file
BATCH_ROWS = 16_384
_CHUNK_BYTES = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows `start` to `stop` of a Parquet file, or the records in these bytes of a CSV file.

    `columns` is a CSV file's header. A compressed CSV file is one piece. `part` names what is made of it.
    """

    part: str
    file: str
    start: int
    stop: int
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which columns are read: `features`, of which some are `numbers`, and those that are `kept`."""

    features: tuple[str, ...]
    numbers: frozenset[str]
    kept: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys((*self.features, *self.kept)))


def cut(table: Table, *, rows: int = PIECE_ROWS, size: int = PIECE_BYTES) -> tuple[Piece, ...]:
    """Return the table's pieces in file order; tasks go through large CSV files where Ray is initialised.

    Raises:
        SourceError: if a file cannot be read.
    """
    if table.format == "parquet":
        return _cut_parquet(table, rows)
    filesystem, _ = open_filesystem(table.source.path)
    sizes = [info.size or 0 for info in filesystem.get_file_info(list(table.files))]
    large = {f: n for f, n in zip(table.files, sizes, strict=True) if n > size and not f.endswith(".gz")}
    if large and ray.is_initialized():
        task = ray.remote(_cuts_of_file).options(num_cpus=TASK_CPUS)
        found = ray.get([task.remote(table.source.path, f, size) for f in large])
    else:
        found = [_cuts_of_file(table.source.path, f, size) for f in large]
    cuts = dict(zip(large, found, strict=True))
    pieces = []
    for i, (file, length, schema) in enumerate(zip(table.files, sizes, table.schemas, strict=True)):
        edges = [0, *cuts.get(file, ()), length]
        names = tuple(schema.names)
        pieces += [
            Piece(part=_name(i, a), file=file, start=a, stop=b, columns=names) for a, b in pairwise(edges)
        ]
    return tuple(pieces)


def csv_cuts(stream: BinaryIO, *, every: int, chunk_bytes: int = _CHUNK_BYTES) -> tuple[int, ...]:
    r"""Return offsets at which records begin, `every` bytes apart or a little more.

    A line's end within quotes ends no record: before one that does, quotes are even in number.

    >>> from io import BytesIO
    >>> csv_cuts(BytesIO(b'a,b\n1,"x\ny"\n2,z\n3,w\n4,v\n'), every=6)
    (12, 20)
    """
    cuts: list[int] = []
    target, at, odd = every, 0, 0
    while chunk := stream.read(chunk_bytes):
        counted = 0
        while (begin := max(target - at, counted)) < len(chunk):
            odd ^= chunk.count(b'"', counted, begin) & 1
            counted = begin
            while (end := chunk.find(b"\n", counted)) >= 0:
                odd ^= chunk.count(b'"', counted, end) & 1
                counted = end + 1
                if not odd:
                    break
            if end < 0:
                break
            cuts.append(at + counted)
            target = at + counted + every
        odd ^= chunk.count(b'"', counted) & 1
        at += len(chunk)
    return tuple(cut for cut in cuts if cut < at)


class Block(NamedTuple):
    """Some of a piece's rows: what the model reads and what is kept beside the answers."""

    features: pa.Table
    kept: pa.Table


def read_piece(path: str, piece: Piece, wanted: Wanted) -> Iterator[Block]:
    """Yield a piece's rows, some thousand at a time; `path` is the table's.

    CSV columns come as text but for numbers; texts of features that stand for nothing are missing.

    Raises:
        SourceError: if the file is gone, is not what it was, or holds a text where a number should be.
    """
    filesystem, _ = open_filesystem(path)
    try:
        tables = (_csv if piece.columns else _parquet)(filesystem, piece, wanted)
        for table in tables:
            features = table.select(list(wanted.features))
            kept = table.select(list(wanted.kept))
            yield Block(_with_gaps(features) if piece.columns else features, kept)
    except (OSError, pa.ArrowException) as err:
        reason = str(err).splitlines()[0]
        named = re.search(r"CSV column #(\d+)", reason)
        column = f"column {piece.columns[int(named[1])]!r}: " if named and piece.columns else ""
        raise SourceError(f"{piece.file} cannot be read: {column}{reason}") from err


def _cut_parquet(table: Table, rows: int) -> tuple[Piece, ...]:
    filesystem, _ = open_filesystem(table.source.path)

    def count(file: str) -> int:
        try:
            return int(pq.read_metadata(file, filesystem=filesystem).num_rows)
        except (OSError, pa.ArrowException) as err:
            raise SourceError(f"{file} cannot be read: {str(err).splitlines()[0]}") from err

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(count, table.files))
    return tuple(
        Piece(part=_name(i, start), file=file, start=start, stop=min(start + rows, total))
        for i, (file, total) in enumerate(zip(table.files, counts, strict=True))
        for start in range(0, total, rows)
    )


def _name(file: int, start: int) -> str:
    return f"part-{file:05}-{start:012}.parquet"


def _cuts_of_file(path: str, file: str, every: int) -> tuple[int, ...]:
    filesystem, _ = open_filesystem(path)
    with filesystem.open_input_stream(file) as stream:
        return csv_cuts(stream, every=every)


def _parquet(filesystem: Any, piece: Piece, wanted: Wanted) -> Iterator[pa.Table]:
    """Read the row groups that hold the piece's rows, and leave out the others' rows in them."""
    with filesystem.open_input_file(piece.file) as source:
        file = pq.ParquetFile(source)
        groups: list[int] = []
        first = end = 0
        for i in range(file.num_row_groups):
            begin, end = end, end + file.metadata.row_group(i).num_rows
            if begin < piece.stop and end > piece.start:
                first = first if groups else begin
                groups.append(i)
        at = first
        for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted.columns):
            here = batch.slice(max(0, piece.start - at), max(0, piece.stop - max(at, piece.start)))
            at += batch.num_rows
            if here.num_rows:
                yield pa.Table.from_batches([here])


def _csv(filesystem: Any, piece: Piece, wanted: Wanted) -> Iterator[pa.Table]:
    kinds = {name: pa.float64() if name in wanted.numbers else pa.string() for name in wanted.columns}
    reading = arrow_csv.ReadOptions(
        column_names=list(piece.columns), skip_rows=int(piece.start == 0), block_size=_CHUNK_BYTES
    )
    converting = arrow_csv.ConvertOptions(
        column_types=kinds, include_columns=wanted.columns, null_values=list(MISSING_TEXTS)
    )
    parsing = arrow_csv.ParseOptions(newlines_in_values=True)
    with _records(filesystem, piece) as source:
        try:
            reader = arrow_csv.open_csv(source, reading, parsing, converting)
        except pa.ArrowInvalid as err:
            if re.search("Empty CSV file|Could not skip initial 1 rows", str(err)):  # a header without a row
                return
            raise
        for batch in reader:
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def _records(filesystem: Any, piece: Piece) -> Any:
    if piece.file.endswith(".gz"):
        return filesystem.open_input_stream(piece.file)
    with filesystem.open_input_file(piece.file) as file:
        file.seek(piece.start)
        return pa.BufferReader(file.read(piece.stop - piece.start))


def _with_gaps(table: pa.Table) -> pa.Table:
    """Return the columns without texts that stand for nothing."""
    nothing = pa.array(MISSING_TEXTS)
    columns = [
        pc.if_else(pc.is_in(values, value_set=nothing), pa.scalar(None, pa.string()), values)
        if pa.types.is_string(values.type)
        else values
        for values in table.columns
    ]
    return pa.table(columns, names=table.column_names)
