"""A folder of scored rows: claimed by one run, filled part by part, and true once its manifest is there.

Layout::

    _run.json                       the `Run` that the folder belongs to; written first
    part-<file>-<start>.parquet     rows with their answers; written once, whole
    _manifest.json                  the `Manifest`; written last: readers trust only the parts that it names

Names that begin with ``_`` are passed over by whatever reads the folder as one table.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import SettingsError, SourceError
from raywf.core.ids import digest_bytes, stable_id
from raywf.core.store import Store

RUN, MANIFEST = "_run.json", "_manifest.json"
_MARK = b"raywf.run"
_FORMAT = 1  # of what a part holds: a folder of another one is another run's


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is scored by what: `source` is a snapshot's id or a digest of the files that are read."""

    workflow: str
    input: str
    source: str
    version: str
    digest: str
    columns: tuple[str, ...]

    @property
    def id(self) -> str:
        """The same for the same rows, model and columns, wherever the result goes."""
        return stable_id(_FORMAT, self.source, self.version, self.digest, self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPart:
    """One file of answers and the SHA-256 of its bytes."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A finished run and its parts, in the order of the input."""

    id: str
    run: Run
    parts: tuple[ScoredPart, ...]
    rows: int


def claim(store: Store, run: Run) -> Manifest | None:
    """Take the folder for a run, or take it up again; return the manifest if the run is finished.

    Raises:
        SettingsError: if the folder holds something else, or cannot be written.
    """
    try:
        names = store.list("")
        if RUN not in names and names:
            raise SettingsError(f"{store.root} is not empty and no run's: give --output a new folder")
        if RUN not in names:
            store.create(RUN, json.dumps(encode(run), indent=1).encode())
        found = decode(Run, json.loads(store.read(RUN)))
        if found != run:
            again = f"--version {found.version} goes on with it" if found.version != run.version else ""
            reason = f"{store.root} belongs to another run: {_difference(found, run)}"
            raise SettingsError(f"{reason}; {again}" if again else reason)
        return read_manifest(store) if MANIFEST in names else None
    except (DecodeError, ValueError) as err:
        raise SettingsError(f"{store.uri(RUN)} is no run of this version: {err}") from err
    except OSError as err:
        raise unwritable(store, err) from err


def unwritable(store: Store, err: OSError) -> SettingsError:
    """Return what is said of a folder that cannot be written."""
    reason = err.strerror or str(err).partition("\n")[0]
    return SettingsError(f"the output {store.root} cannot be written: {reason}")


def write_part(store: Store, run_id: str, name: str, table: pa.Table) -> ScoredPart:
    """Put a part in its place unless it is there; return the one that is.

    Raises:
        SettingsError: if the folder cannot be written, or has another file of that name.
    """
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_MARK: run_id}), sink, compression="zstd")
    data = sink.getvalue()
    try:
        made = store.create(name, data)
    except OSError as err:
        raise unwritable(store, err) from err
    if made:
        return ScoredPart(name=name, rows=table.num_rows, digest=digest_bytes(data))
    return check_part(store, run_id, name)


def check_part(store: Store, run_id: str, name: str) -> ScoredPart:
    """Return a part that is there.

    Raises:
        SettingsError: if it is not whole, or not of the run.
    """
    try:
        data = store.read(name)
        found = pq.ParquetFile(pa.BufferReader(data))
        marks: Mapping[bytes, bytes] = found.schema_arrow.metadata or {}
        if marks.get(_MARK, b"").decode() != run_id:
            raise SettingsError(f"{store.uri(name)} is of another run: remove it or give a new folder")
    except (OSError, pa.ArrowException) as err:
        reason = str(err).partition("\n")[0]
        raise SettingsError(f"{store.uri(name)} is damaged, remove it and start again: {reason}") from err
    return ScoredPart(name=name, rows=found.metadata.num_rows, digest=digest_bytes(data))


def commit(store: Store, run: Run, parts: tuple[ScoredPart, ...]) -> Manifest:
    """Write the manifest: from now on the rows are there. Parts without a row are left out.

    Raises:
        SettingsError: if it cannot be written.
    """
    kept = tuple(sorted((part for part in parts if part.rows), key=lambda part: part.name))
    made = Manifest(id=run.id, run=run, parts=kept, rows=sum(part.rows for part in kept))
    try:
        store.create(MANIFEST, json.dumps(encode(made), indent=1).encode())
    except OSError as err:
        raise unwritable(store, err) from err
    return read_manifest(store)  # of another process, if it was first


def read_manifest(store: Store) -> Manifest:
    """Return the manifest of a folder.

    Raises:
        SourceError: if there is none: the run is not finished, or the folder is no run's.
    """
    try:
        return decode(Manifest, json.loads(store.read(MANIFEST)))
    except OSError as err:
        raise SourceError(f"{store.root} holds no finished run of raywf score") from err
    except (DecodeError, ValueError) as err:
        raise SourceError(f"{store.uri(MANIFEST)} is no manifest of this version: {err}") from err


def read_scores(folder: str) -> pa.Table:
    """Return the rows of a finished run, in the input's order, after each part's digest is checked.

    Raises:
        SourceError: if the run is not finished, or a part is not the one that the manifest names.
    """
    store = Store(folder)
    tables = []
    for part in read_manifest(store).parts:
        try:
            data = store.read(part.name)
        except OSError as err:
            raise SourceError(f"{store.uri(part.name)} is gone") from err
        if digest_bytes(data) != part.digest:
            raise SourceError(f"{store.uri(part.name)} is not the part that the manifest names")
        tables.append(pq.read_table(pa.BufferReader(data)).replace_schema_metadata(None))
    return pa.concat_tables(tables, promote_options="permissive")


def _difference(found: Run, wanted: Run) -> str:
    theirs, ours = encode(found), encode(wanted)
    names = [name for name in ours if ours[name] != theirs[name]]
    said = (f"its {name} is {theirs[name]!r:.60}, not {ours[name]!r:.60}" for name in names[:1])
    return "".join(said) + "; give --output a new folder"
