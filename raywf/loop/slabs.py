"""Cuts a table into slabs, some columns of some rows, and sketches one: a task of a drift report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raywf.core.errors import SourceError
from raywf.core.records import Column, ColumnKind
from raywf.core.sketch import Merger, Sketch
from raywf.loop.pieces import Piece, Wanted, cut, read_piece
from raywf.snapshots.convert import is_text
from raywf.snapshots.sketch import Bounds, find_kind, sketch_table
from raywf.snapshots.sources import Table, open_filesystem

SLAB_BYTES = 64_000_000  # of values, as Parquet tells them
_LOOKED_AT = 20_000  # rows that tell what a text column holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Columns of a Parquet file's row groups, or of a piece of a CSV file."""

    file: str
    columns: tuple[Column, ...]
    groups: tuple[int, ...] = ()
    piece: Piece | None = None


def cut_slabs(table: Table, columns: tuple[Column, ...], *, size: int | None = None) -> tuple[Slab, ...]:
    """Return slabs that hold each of the columns' values once, in an order that is always the same.

    Raises:
        SourceError: if a file cannot be read.
    """
    if table.format == "csv":
        return tuple(Slab(file=p.file, columns=columns, piece=p) for p in cut(table))
    filesystem, _ = open_filesystem(table.source.path)
    slabs: list[Slab] = []
    for file in table.files:
        try:
            metadata = pq.read_metadata(file, filesystem=filesystem)
        except (OSError, pa.ArrowException) as err:
            raise SourceError(f"{file} cannot be read: {str(err).splitlines()[0]}") from err
        slabs += _slabs_of_file(file, metadata, columns, SLAB_BYTES if size is None else size)
    return tuple(slabs)


def sketch_slab(path: str, slab: Slab, bounds: Bounds) -> tuple[Sketch, ...]:
    """Sketch a slab's columns, in their order; `path` is the table's. A file without a column lacks values.

    Raises:
        SourceError: if the file is gone, or is not what it was.
    """
    mergers = [Merger() for _ in slab.columns]
    for table in _tables(path, slab):
        for merger, sketch in zip(mergers, sketch_table(table, slab.columns, bounds=bounds), strict=True):
            merger.add(sketch)
    return tuple(merger.merged() for merger in mergers)


def find_columns(table: Table) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Return a table's columns by what they hold, and the names of those that hold lists or structures.

    What a text column holds is told by the first file's first rows.

    Raises:
        SourceError: if the first file cannot be read.
    """
    types = {field.name: field.type for schema in reversed(table.schemas) for field in schema}
    texts = tuple(name for name in table.columns if is_text(types[name]))
    first = _first_rows(table, texts) if texts else None
    kinds: dict[str, ColumnKind | None] = {}
    for name in table.columns:
        if first is not None and name in first.column_names:
            kinds[name] = find_kind(first.column(name))
        else:
            kinds[name] = find_kind(pa.chunked_array([pa.nulls(0, types[name])]))
    columns = tuple(Column(name=name, kind=kind) for name, kind in kinds.items() if kind is not None)
    return columns, tuple(name for name, kind in kinds.items() if kind is None)


def _slabs_of_file(
    file: str, metadata: pq.FileMetaData, columns: tuple[Column, ...], size: int
) -> Iterator[Slab]:
    """Yield slabs of like size: several small row groups at once, few columns of a large one."""
    held: list[int] = []
    held_bytes = 0
    for group in range(metadata.num_row_groups):
        sizes = _column_sizes(metadata.row_group(group))
        whole = sum(sizes.get(c.name, 0) for c in columns)
        if held and held_bytes + whole > size:
            yield Slab(file=file, columns=columns, groups=tuple(held))
            held, held_bytes = [], 0
        if whole <= size:
            held.append(group)
            held_bytes += whole
            continue
        for part in _parted(columns, sizes, size):
            yield Slab(file=file, columns=part, groups=(group,))
    if held or not metadata.num_row_groups:
        yield Slab(file=file, columns=columns, groups=tuple(held))


def _column_sizes(group: pq.RowGroupMetaData) -> dict[str, int]:
    """Return the bytes of each column's values; those of a text are at least four a row, its place's."""
    chunks = (group.column(i) for i in range(group.num_columns))
    return {c.path_in_schema: max(c.total_uncompressed_size, 4 * group.num_rows) for c in chunks}


def _parted(columns: tuple[Column, ...], sizes: dict[str, int], size: int) -> Iterator[tuple[Column, ...]]:
    part: list[Column] = []
    held = 0
    for column in columns:
        own = sizes.get(column.name, 0)
        if part and held + own > size:
            yield tuple(part)
            part, held = [], 0
        part.append(column)
        held += own
    if part:
        yield tuple(part)


def _tables(path: str, slab: Slab) -> Iterator[pa.Table]:
    """Yield the slab's rows; at least one table, maybe without rows."""
    if slab.piece is None:
        yield _filled_up(_read_groups(path, slab), slab)
        return
    there = tuple(c.name for c in slab.columns if c.name in slab.piece.columns)
    wanted = Wanted(features=there, numbers=frozenset(), kept=())
    held: list[pa.Table] = [pa.table({name: pa.array([], pa.string()) for name in there})]
    for block in read_piece(path, slab.piece, wanted):
        held.append(block.features)
        if sum(t.nbytes for t in held) > SLAB_BYTES:
            yield _filled_up(pa.concat_tables(held), slab)
            held = [held[0]]
    yield _filled_up(pa.concat_tables(held), slab)


def _read_groups(path: str, slab: Slab) -> pa.Table:
    """Read row groups; texts come as dictionaries, as they are stored, so that each value is read once."""
    filesystem, _ = open_filesystem(path)
    categories = [c.name for c in slab.columns if c.kind == "category"]
    try:
        with filesystem.open_input_file(slab.file) as source:
            far = not isinstance(filesystem, fs.LocalFileSystem)  # many small reads cost a round trip each
            file = pq.ParquetFile(source, read_dictionary=categories, pre_buffer=far)
            there = set(file.schema_arrow.names)
            names = [c.name for c in slab.columns if c.name in there]
            return file.read_row_groups(list(slab.groups), columns=names, use_threads=False)
    except (OSError, pa.ArrowException) as err:
        raise SourceError(f"{slab.file} cannot be read: {str(err).splitlines()[0]}") from err


def _filled_up(table: pa.Table, slab: Slab) -> pa.Table:
    for column in slab.columns:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows))
    return table


def _first_rows(table: Table, names: tuple[str, ...]) -> pa.Table | None:
    """Return the named columns' first rows of the first file that has rows."""
    if table.format == "csv":
        for piece in cut(table):
            there = tuple(name for name in names if name in piece.columns)
            wanted = Wanted(features=there, numbers=frozenset(), kept=())
            for block in read_piece(table.source.path, piece, wanted):
                return block.features
        return None
    filesystem, _ = open_filesystem(table.source.path)
    for file, schema in zip(table.files, table.schemas, strict=True):
        there = tuple(name for name in names if name in schema.names)
        try:
            with filesystem.open_input_file(file) as source:
                for batch in pq.ParquetFile(source).iter_batches(_LOOKED_AT, columns=list(there)):
                    return pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as err:
            raise SourceError(f"{file} cannot be read: {str(err).splitlines()[0]}") from err
    return None
