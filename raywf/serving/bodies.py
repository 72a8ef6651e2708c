"""Bodies of rows by column: JSON columns, CSV and Arrow to a column a name; sizes are checked before work."""

from __future__ import annotations

import csv as text_csv
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, ipc

from raywf.core.columns import MISSING_TEXTS
from raywf.core.records import Column
from raywf.serving.columns import ID, TIME, Given, check_names
from raywf.serving.requests import RequestError
from raywf.serving.schema import brief

Columns = Mapping[str, Given]
_BOM = b"\xef\xbb\xbf"


def read_arrow(body: bytes, names: Sequence[str], *, max_rows: int) -> Columns:
    """Read an Arrow IPC stream with the columns `names`.

    Raises:
        RequestError: 400, if it is none or has compressed buffers, which may hold a thousandfold of their
            size; 413 for too many rows; 422 for other columns.
    """
    try:
        rows = sum(_check_batch(header) for header in _batch_headers(body))
        if rows > max_rows:
            raise RequestError(413, f"the body holds {rows} rows, at most {max_rows} are allowed")
        with ipc.open_stream(pa.py_buffer(body)) as stream:
            table = stream.read_all()
            table.validate(full=True)  # offsets come from the caller
    except (pa.ArrowException, OSError, ValueError, IndexError, struct.error) as err:
        raise RequestError(400, f"the body is not an Arrow IPC stream: {_brief(err)}") from err
    check_names(table.column_names, names)
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def read_csv(body: bytes, columns: Sequence[Column]) -> Columns:
    """Read a CSV text with a header; what is missing is empty or NA, of an id empty.

    Raises:
        RequestError: 400, if it is none; 422 for other columns, or a number that is none.
    """
    body = body.removeprefix(_BOM).lstrip(b"\r\n")
    kinds = {column.name: pa.float64() if column.kind == "number" else pa.string() for column in columns}
    try:
        first = body[: body.find(b"\n") + 1 or len(body)].decode()
        names = next(text_csv.reader([first]), [])
        if not names:
            raise RequestError(400, "the body is not CSV: it is empty")
        check_names(names, list(kinds))
        table = csv.read_csv(
            io.BytesIO(body),
            read_options=csv.ReadOptions(block_size=max(1 << 16, len(body) + 1)),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={name: kinds.get(name, pa.string()) for name in names},
                null_values=list(MISSING_TEXTS),
            ),
        )
        same = table.column_names == names
    except pa.ArrowInvalid as err:
        status = 422 if "conversion error" in str(err) else 400
        raise RequestError(status, f"the body is not CSV as it should be: {_brief(err)}") from err
    except (UnicodeDecodeError, text_csv.Error) as err:
        raise RequestError(400, f"the body is not CSV with a header: {_brief(err)}") from err
    if not same:
        raise RequestError(400, "the body is not CSV with a header of one line")
    return {name: _with_gaps(table.column(name).combine_chunks(), name) for name in names}


def is_columns(data: Any) -> bool:
    """Whether a JSON body holds columns: ``{"columns": {...}}`` with ``ids`` and ``times`` or without."""
    return isinstance(data, dict) and "columns" in data


def from_json(data: Mapping[str, Any], names: Sequence[str]) -> Columns:
    """Return the columns of a JSON body by name.

    Raises:
        RequestError: 422, if they are not those of `names`, or not lists of one length.
    """
    extra = sorted(set(data) - {"columns", "ids", "times"})
    if extra:
        raise RequestError(
            422, f"beside 'columns', 'ids' and 'times' nothing is allowed, got {brief(extra[0])}"
        )
    columns = data["columns"]
    if not isinstance(columns, dict) or not columns:
        raise RequestError(422, f"'columns' must be an object of lists, got {brief(columns)}")
    found = dict(columns)
    for key, name in (("ids", ID), ("times", TIME)):
        if data.get(key) is not None:
            if name in found:
                raise RequestError(422, f"{key!r} and column {name!r} are the same: give one of them")
            found[name] = data[key]
    check_names(list(found), names)
    lengths = {name: len(v) if isinstance(v, list) else -1 for name, v in found.items()}
    no_list = next((name for name, n in lengths.items() if n < 0), None)
    if no_list is not None:
        raise RequestError(422, f"column {no_list!r} must be a list, got {brief(found[no_list])}")
    if len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        said = f"{lengths[short]} in {short!r} and {lengths[long]} in {long!r}"
        raise RequestError(422, f"columns must be of one length, got {said}")
    return found


class _Flat:
    """A table of a flatbuffer; Arrow describes its batches by such, and says nowhere if one is compressed."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    @classmethod
    def root(cls, data: bytes) -> Self:
        return cls(data, _number("<I", data, 0))

    def number(self, slot: int, form: str) -> int:
        """Return a field, 0 where it is not there."""
        at = self._field(slot)
        return _number(form, self._data, at) if at else 0

    def table(self, slot: int) -> _Flat | None:
        at = self._field(slot)
        return _Flat(self._data, at + _number("<I", self._data, at)) if at else None

    def _field(self, slot: int) -> int:
        fields = self._at - _number("<i", self._data, self._at)
        place = 4 + 2 * slot
        offset = _number("<H", self._data, fields + place) if place < _number("<H", self._data, fields) else 0
        return self._at + offset if offset else 0


def _number(form: str, data: bytes, at: int) -> int:
    if at < 0:
        raise ValueError("an offset before the message's start")
    return int(struct.unpack_from(form, data, at)[0])


def _batch_headers(body: bytes) -> Iterator[tuple[_Flat, bool]]:
    """Yield the header of each batch in the stream, and whether it is one of rows, not of a dictionary."""
    for message in ipc.MessageReader.open_stream(pa.py_buffer(body)):
        if message.type not in {"record batch", "dictionary"}:
            continue
        header = _Flat.root(message.metadata.to_pybytes()).table(2)
        is_rows = message.type == "record batch"
        batch = header if header is None or is_rows else header.table(1)
        if batch is not None:
            yield batch, is_rows


def _check_batch(found: tuple[_Flat, bool]) -> int:
    """Return the rows that a batch adds."""
    batch, is_rows = found
    if batch.table(3) is not None:
        raise RequestError(400, "the Arrow stream is compressed; write it without compression")
    return batch.number(0, "<q") if is_rows else 0


def _with_gaps(values: pa.Array, name: str) -> pa.Array:
    """Return texts of which those that stand for nothing are missing."""
    if not pa.types.is_string(values.type):
        return values
    nothing = pc.is_in(values, value_set=pa.array(("",) if name == ID else MISSING_TEXTS))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), values)


def _brief(err: BaseException) -> str:
    return str(err).split("\n", 1)[0][:200]
