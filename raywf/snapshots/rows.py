"""Every row of the spine with its point-in-time features, labelled or not: traffic to score or to replay."""

from __future__ import annotations

import pyarrow as pa

from raywf.core.errors import SourceError
from raywf.core.settings import Workflow
from raywf.snapshots.assemble import Limits, assemble
from raywf.snapshots.blocks import to_blocks
from raywf.snapshots.catalog import sort_rows
from raywf.snapshots.prepare import RESERVED


def joined_rows(workflow: Workflow) -> pa.Table:
    """Return all spine rows by the same join as a snapshot's, sorted by ``__time``, then ``__key``.

    Columns: the features, ``__label`` (class text, or float64 for a regression; null where unknown),
    ``__time`` and ``__label_time`` (``timestamp[us, UTC]``, where the workflow names them), ``__key``
    (int64). The table is brought to this process. Ray must be initialised.

    Raises:
        SourceError: if a table cannot be read or lacks a column.

    """
    rows = assemble(workflow, limits=Limits())
    blocks = to_blocks(rows.dataset, gather_bytes=2**62)
    if not blocks.parts:
        raise SourceError(f"spine table {workflow.spine.path!r} has no row with an event time")
    table = blocks.table()
    reserved = [name for name in RESERVED if name in table.column_names]
    return sort_rows(table.select([*(column.name for column in rows.columns), *reserved]))
