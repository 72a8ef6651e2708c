"""How far back a retraining looks: at all of the history, at its newest part, or at old rows less.

A short history is often worse, where the old rows still tell something; so the newest blocks decide, on which
quick models of each span are scored that have not seen them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.metrics import bounded_loss, loss_scale
from raywf.core.own import workflow_metric
from raywf.core.records import Effort, Snapshot, Span, Sweep
from raywf.core.settings import Workflow
from raywf.loop.probe import quick_answers, weigh
from raywf.search.run import SearchResult

_SHARES: dict[Span, float] = {"all": 1.0, "half": 0.5, "quarter": 0.25, "aging": 1.0}
_HALF_LIFE = 0.25  # of the history's time, after which a row counts half, where old rows count less
_FITTED, _SCORED = 20_000, 4_000
_FEWEST = 1_000  # rows that a shorter span must have
_LEAST = 0.005  # of the loss, that another span than all must save
_BLOCK, _BLOCKS = 0.1, 3  # the newest rows, on which spans are compared, and how many such blocks must agree
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """What of a table is trained on: `offset` rows at its beginning are left out."""

    span: Span
    table: pa.Table
    offset: int

    def whole(self, found: SearchResult) -> SearchResult:
        """Return a search's result with the gate's rows counted in the whole table."""
        return replace(found, gate_rows=self.rows(found.gate_rows))

    def rows(self, places: Index) -> Index:
        """Return rows of the part, counted in the whole table."""
        return places + self.offset


def choose_part(
    workflow: Workflow, snapshot: Snapshot, table: pa.Table, *, effort: Effort, former: Sequence[Sweep]
) -> Part:
    """Return what to train on: a full search after others chooses, a cheaper training does as its champion.

    Without times, and for the first model, it is all.
    """
    if not snapshot.has_time or not former:
        return part_of(table, "all")
    if effort != "full":
        return part_of(table, former[0].span)
    return part_of(table, choose_span(workflow, snapshot, table))


def choose_span(workflow: Workflow, snapshot: Snapshot, table: pa.Table) -> Span:
    """Return the span whose quick models do best on the newest blocks, or all of the history.

    Another one must do better than all on each block, and together by half a per cent of the loss: one block
    tells too little, however many rows it has, for they are of one time, and so not independent. No model
    has seen the block that it is scored on, nor what came later.
    """
    size = int(_BLOCK * table.num_rows)
    ends = [table.num_rows - number * size for number in range(_BLOCKS)]
    if ends[-1] - size < 2 * _FEWEST:
        return "all"
    blocks = [_gains(workflow, snapshot, table.slice(0, end), size=size) for end in ends]
    better = [span for span in blocks[0] if all(gains.get(span, 0.0) > 0 for gains in blocks)]
    gains = {span: sum(block[span] for block in blocks) / len(blocks) for span in better}
    sure = [span for span in gains if gains[span] >= _LEAST]
    return max(sure, key=lambda span: gains[span], default="all")


def _gains(workflow: Workflow, snapshot: Snapshot, table: pa.Table, *, size: int) -> dict[Span, float]:
    """Return by what share each span's quick model loses less on the newest rows than the one of all rows."""
    cut = table.num_rows - size
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
    scored = np.arange(cut, table.num_rows)[-_SCORED:]
    scale = loss_scale(labels[:cut]) if snapshot.task == "regression" else None
    quantile = workflow_metric(workflow).quantile
    losses: dict[Span, float] = {}
    for span, share in _SHARES.items():
        rows = np.arange(cut - int(share * cut), cut)
        if len(rows) < _FEWEST:
            continue
        if len(rows) > _FITTED:
            rows = np.sort(np.random.default_rng(0).choice(rows, _FITTED, replace=False))
        weights = _ages(table)[rows] if span == "aging" else None
        answers = quick_answers(workflow, snapshot, table, fitted=rows, scored=scored, weights=weights)
        losses[span] = float(bounded_loss(labels[scored], answers, scale=scale, quantile=quantile).mean())
    return {span: 1 - loss / losses["all"] for span, loss in losses.items()} if losses["all"] > 0 else {}


def part_of(table: pa.Table, span: Span) -> Part:
    """Return the part of a table, in the order of time, that a span is."""
    offset = table.num_rows - int(_SHARES[span] * table.num_rows)
    if span != "aging":
        return Part(span, table.slice(offset), offset)
    return Part(span, weigh(table, _ages(table)), offset)


def _ages(table: pa.Table) -> NDArray[np.float64]:
    """Return how much each row counts by its age, the newest 1."""
    times = np.asarray(table.column("__time").cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy())
    life = max(1.0, _HALF_LIFE * float(times[-1] - times[0]))
    return np.asarray(0.5 ** ((times[-1] - times) / life))
