"""The Arrow type that a column of each kind has, in snapshots and in what models read."""

from __future__ import annotations

import pyarrow as pa

from raywf.core.records import ColumnKind

TIME = pa.timestamp("us", tz="UTC")
ARROW_TYPE: dict[ColumnKind, pa.DataType] = {"number": pa.float64(), "category": pa.string(), "time": TIME}
