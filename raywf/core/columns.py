"""How columns are read: the Arrow type of each kind, and the texts of a CSV file that stand for nothing."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import csv

from raywf.core.records import ColumnKind

TIME = pa.timestamp("us", tz="UTC")
ARROW_TYPE: dict[ColumnKind, pa.DataType] = {"number": pa.float64(), "category": pa.string(), "time": TIME}
MISSING_TEXTS = tuple(csv.ConvertOptions().null_values)  # by which snapshots read CSV files
