"""One raw block to raywf's column names and types."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raywf.core.columns import ARROW_TYPE, TIME
from raywf.snapshots.convert import CONVERT, time_us, to_flag_text, to_text, to_time
from raywf.snapshots.digest import row_hashes
from raywf.snapshots.plan import Feature, TablePlan

KEY = "__key:"
RESERVED = ("__label", "__weight", "__group", "__time", "__label_time", "__key")
ORDER = "__order"
FAR_PAST = -(2**62)


def prepare_block(
    block: pa.Table, plan: TablePlan, *, after_us: int | None = None, until_us: int | None = None
) -> pa.Table:
    """Return the block's keys as text, its times as instants and its features under their final names.

    Rows without a value in a time column other than ``__label_time`` are left out, as are rows with
    ``__time`` at or before `after_us` or later than `until_us` (microseconds). A column
    ``__order`` (row number) is kept.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in plan.times.items():
        columns[name] = to_time(_take(block, column))
    columns |= {KEY + key: to_text(_take(block, key)) for key in plan.keys}
    if plan.label is not None:
        columns["__label"] = _feature(block, plan.label)
    columns |= {feature.name: _feature(block, feature) for feature in (*plan.extras, *plan.features)}
    columns = {name: _fit(values, schema_of(plan).field(name).type) for name, values in columns.items()}
    table = pa.table(columns | {name: block.column(name) for name in (ORDER,) if name in block.column_names})
    return _within(table, after_us=after_us, until_us=until_us)


def add_row_key(table: pa.Table, keys: tuple[str, ...]) -> pa.Table:
    """Append ``__key``: a hash of the entity keys and the event time, or of the row where it has none."""
    names = [KEY + key for key in keys] + (["__time"] if "__time" in table.column_names else [])
    hashes = row_hashes(table.select(names) if keys else table)
    return table.append_column("__key", pa.array(hashes.view("int64")))


def schema_of(plan: TablePlan) -> pa.Schema:
    """Return the schema of the plan's prepared blocks, without ``__key``."""
    fields = [(name, TIME) for name in plan.times] + [(KEY + key, pa.string()) for key in plan.keys]
    if plan.label is not None:
        fields.append(("__label", ARROW_TYPE[plan.label.kind]))
    fields += [(feature.name, ARROW_TYPE[feature.kind]) for feature in (*plan.extras, *plan.features)]
    return pa.schema(fields)


def _take(block: pa.Table, name: str) -> pa.ChunkedArray:
    if name in block.column_names:
        return block.column(name)
    return pa.chunked_array([pa.nulls(block.num_rows)])


def _feature(block: pa.Table, feature: Feature) -> pa.ChunkedArray:
    values = _take(block, feature.source)
    if feature.flag:
        return to_flag_text(values)
    if feature.name == "__label" and feature.kind == "category":
        return to_text(values)
    return CONVERT[feature.kind](values)


def _fit(values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return values if values.type == kind else pc.cast(values, kind)


def _within(table: pa.Table, *, after_us: int | None, until_us: int | None) -> pa.Table:
    for name in ("__time", "__event", "__known"):
        if name in table.column_names and table.column(name).null_count:
            table = table.filter(pc.is_valid(table.column(name)))
    if "__time" not in table.column_names or (after_us is None and until_us is None):
        return table
    time = time_us(table.column("__time"), missing=FAR_PAST)
    keep = (time <= (2**62 if until_us is None else until_us)) & (time > (after_us or FAR_PAST))
    return table if keep.all() else table.filter(pa.array(keep))
