"""Finds a table's files, tells their version and columns, and reads them with Ray Data."""

from __future__ import annotations

import csv
import fnmatch
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import ray
from pyarrow import fs

from raywf.core.errors import SourceError, did_you_mean
from raywf.core.ids import stable_id
from raywf.core.records import Source

TASK_CPUS = 0.5
BLOCK_BYTES = 32_000_000
_MANY, _LARGER = 200, 8  # so many parts are enough until they are so many times larger
_SUFFIXES = {".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table's files, in name order, as they are now; `schemas` has one entry a file."""

    source: Source
    format: str
    files: tuple[str, ...]
    schemas: tuple[pa.Schema, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all files' columns, in the order of first sight."""
        return tuple(dict.fromkeys(name for schema in self.schemas for name in schema.names))

    def require(self, names: Iterable[str], *, role: str) -> None:
        """Check that the columns exist.

        Raises:
            SourceError: naming the absent column and the nearest known one.

        """
        for name in names:
            if name not in self.columns:
                near = did_you_mean(name, self.columns)
                raise SourceError(
                    f"{self.source.name} table {self.source.path!r} lacks {role} {name!r}{near}"
                )


def open_table(path: str, *, name: str) -> Table:
    """Find the files of a path: one file, a folder (all CSV or Parquet files below) or a glob.

    Raises:
        SourceError: if there is no such file, they are of two formats, or one cannot be read.

    """
    filesystem, base = open_filesystem(path)
    infos = _find(filesystem, base, path=path, name=name)
    formats = {_format(info.path) for info in infos}
    if len(formats) > 1:
        raise SourceError(f"{name} table {path!r} mixes CSV and Parquet files; name one kind with a glob")
    kind = str(formats.pop())
    with ThreadPoolExecutor(8) as pool:
        schemas = tuple(pool.map(lambda info: _schema(filesystem, info.path, kind), infos))
    source = _source(infos, base, path=path, name=name)
    return Table(source, kind, tuple(info.path for info in infos), schemas)


def find_source(path: str, *, name: str) -> Source:
    """Return a table's files and version as `open_table` does, by a listing alone: no file is opened.

    Raises:
        SourceError: if there is no such file.
    """
    filesystem, base = open_filesystem(path)
    return _source(_find(filesystem, base, path=path, name=name), base, path=path, name=name)


def read_blocks(table: Table, columns: tuple[str, ...]) -> list[ray.ObjectRef]:
    """Read the named columns and return references to Arrow blocks, in file and row order.

    CSV columns come as text; Parquet columns in their file's own type, which may differ between blocks.
    """
    filesystem, _ = open_filesystem(table.source.path)
    blocks = count_parts(table.source.bytes, BLOCK_BYTES)
    common = {"filesystem": filesystem, "partitioning": None, "num_cpus": TASK_CPUS}
    refs: list[ray.ObjectRef] = []
    with data_context():
        if table.format == "csv":
            options = _csv_options(columns)
            dataset = ray.data.read_csv(list(table.files), override_num_blocks=blocks, **common, **options)
            return list(dataset.materialize().to_arrow_refs())
        for names, files in _runs_of_schema(table, columns):
            dataset = ray.data.read_parquet(files, columns=names, override_num_blocks=blocks, **common)
            refs.extend(dataset.materialize().to_arrow_refs())
    return refs


def count_parts(total: int, each: int) -> int:
    """Return in how many parts to cut so many bytes: of `each` up to 200 parts, then larger, then more.

    >>> [count_parts(gb * 10**9, 32 * 10**6) for gb in (0, 1, 20, 1000)]
    [1, 32, 200, 3907]
    """
    return max(1, min(_MANY, total // each + 1), total // (_LARGER * each) + 1)


@contextmanager
def data_context() -> Iterator[None]:
    """Set Ray Data for small, ordered, quiet work within the block, and restore its context after.

    Datasource V2 spends 2 s on each Parquet read (Ray 2.60), so that V1 is asked for.
    """
    context = ray.data.DataContext.get_current()
    wanted = {"use_datasource_v2": False, "enable_progress_bars": False}
    before = {key: getattr(context, key) for key in wanted}
    ordered = context.execution_options.preserve_order
    for key, value in wanted.items():
        setattr(context, key, value)
    context.execution_options.preserve_order = True
    try:
        yield
    finally:
        for key, value in before.items():
            setattr(context, key, value)
        context.execution_options.preserve_order = ordered


def open_filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """Return the pyarrow file system of a path or URI and the path in it."""
    if "://" not in path:
        return fs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    scheme, _, rest = path.partition("://")
    rest, sign, query = rest.rpartition("?") if re.search(r"\?\w+=", rest) else (rest, "", "")
    fixed = _fixed_part(rest)
    filesystem, base = fs.FileSystem.from_uri(f"{scheme}://{fixed}{sign}{query}")
    return filesystem, base + rest[len(fixed) :]


def _fixed_part(path: str) -> str:
    parts = path.split("/")
    wild = [i for i, part in enumerate(parts) if any(c in part for c in "*?[")]
    return "/".join(parts[: wild[0]]) if wild else path


def _source(infos: list[fs.FileInfo], base: str, *, path: str, name: str) -> Source:
    marks = [(info.path.removeprefix(base), info.size, str(info.mtime_ns)) for info in infos]
    return Source(
        name=name,
        path=path,
        files=len(infos),
        bytes=sum(info.size or 0 for info in infos),
        version=stable_id(marks),
    )


def _find(filesystem: fs.FileSystem, base: str, *, path: str, name: str) -> list[fs.FileInfo]:
    absent = SourceError(f"{name} table: nothing at {path!r}; give a CSV or Parquet file, a folder or a glob")
    try:
        fixed = _fixed_part(base)
        info = filesystem.get_file_info(fixed)
        if fixed != base or info.type == fs.FileType.Directory:
            below = filesystem.get_file_info(fs.FileSelector(fixed, recursive=True))
            found = [i for i in below if i.type == fs.FileType.File and _format(i.path)]
            found = [i for i in found if fixed == base or _matches(i.path, base)]
        else:
            found = [info] if info.type == fs.FileType.File else []
    except OSError as err:
        raise absent from err
    if found and _format(found[0].path) is None:
        raise SourceError(f"{name} table {path!r} is neither .csv, .csv.gz nor .parquet")
    if not found:
        raise absent
    return sorted(found, key=lambda i: str(i.path))


def _matches(path: str, pattern: str) -> bool:
    if "**" in pattern:
        return fnmatch.fnmatchcase(path, pattern)
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _format(path: str) -> str | None:
    return next((kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)), None)


def _schema(filesystem: fs.FileSystem, path: str, kind: str) -> pa.Schema:
    try:
        if kind == "parquet":
            return _each_once(pq.read_schema(path, filesystem=filesystem), path)
        with filesystem.open_input_stream(path) as stream:
            first = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="").readline()
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as err:
        raise SourceError(f"cannot read {path!r} as {kind}: {str(err).splitlines()[0]}") from err
    names = next(csv.reader([first]), [])
    if not names:
        raise SourceError(f"{path!r} is empty; a CSV file begins with a line of column names")
    return _each_once(pa.schema([(name, pa.string()) for name in names]), path)


def _each_once(schema: pa.Schema, path: str) -> pa.Schema:
    """Return the schema.

    Raises:
        SourceError: if two columns have one name, so that neither can be told apart.

    """
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if twice:
        names = ", ".join(map(repr, twice))
        raise SourceError(f"{path!r} has more than one column named {names}; rename all but one of each")
    return schema


def _csv_options(columns: tuple[str, ...]) -> dict[str, Any]:
    return {
        "parse_options": arrow_csv.ParseOptions(newlines_in_values=True),
        "convert_options": arrow_csv.ConvertOptions(
            column_types={name: pa.string() for name in columns},
            include_columns=list(columns),
            include_missing_columns=True,
            strings_can_be_null=True,
        ),
    }


def _runs_of_schema(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield runs of neighbouring files whose wanted columns have the same types: Ray reads one schema."""
    runs: list[tuple[pa.Schema, list[str]]] = []
    for file, schema in zip(table.files, table.schemas, strict=True):
        wanted = pa.schema([schema.field(name).remove_metadata() for name in columns if name in schema.names])
        if runs and runs[-1][0].equals(wanted):
            runs[-1][1].append(file)
        else:
            runs.append((wanted, [file]))
    for wanted, files in runs:
        yield list(wanted.names), files
