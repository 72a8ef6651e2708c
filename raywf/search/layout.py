"""Which rows a sweep's folds and gate hold, and how they count: kept in a few figures, laid out again."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

import pyarrow as pa

from raywf.core.errors import SearchError
from raywf.core.metrics import Metric
from raywf.core.records import Snapshot
from raywf.core.settings import GateSettings, SearchSettings
from raywf.search.data import SearchData, prepare_data, with_folds
from raywf.search.ledger import Ledger

_NAME = "layout"


def keep_layout(ledger: Ledger, data: SearchData, search: SearchSettings, gate: GateSettings | None) -> None:
    """Keep what `lay_out_again` needs, whatever workflow.yaml says by then."""
    figures: dict[str, Any] = {
        "folds": data.asked,
        "seed": search.seed,
        "purge_s": search.purge.total_seconds(),
        "class_weight": search.class_weight,
        "gate_newest": gate.newest if gate else 0.0,
        "gate_max_rows": gate.max_rows if gate else 0,
        "gate_pieces": gate.pieces if gate else 1,
        "check": _check(data),
    }
    ledger.settle(_NAME, figures)


def lay_out_again(ledger: Ledger, snapshot: Snapshot, table: pa.Table, *, metric: Metric) -> SearchData:
    """Return the data of a sweep as its trials had it.

    Raises:
        SearchError: if the sweep kept no layout, or the rows come out otherwise than they were.
    """
    kept = ledger.settled(_NAME)
    if kept is None:
        raise SearchError(f"sweep {ledger.sweep_id} did not keep which rows its folds hold; search again")
    search = SearchSettings(
        seed=int(kept["seed"]),
        purge=timedelta(seconds=kept["purge_s"]),
        class_weight=kept.get("class_weight", "none"),
    )
    gate = None
    if kept["gate_newest"]:
        gate = GateSettings(
            newest=kept["gate_newest"],
            max_rows=int(kept["gate_max_rows"]),
            pieces=int(kept.get("gate_pieces", 1)),
        )
    data, _ = prepare_data(snapshot, table, search=search, gate=gate, metric=metric)
    data = with_folds(data, search, int(kept["folds"]), metric=metric)
    if _check(data) != kept["check"]:
        raise SearchError(f"the folds of sweep {ledger.sweep_id} come out otherwise than they were")
    return data


def kept_folds(ledger: Ledger) -> int | None:
    """Return how many folds a sweep has begun with, or None if it has not."""
    kept = ledger.settled(_NAME)
    return None if kept is None else int(kept["folds"])


def _check(data: SearchData) -> int:
    found = zlib.crc32(data.gate.tobytes())
    for fold in data.folds:
        found = zlib.crc32(fold.score.tobytes(), found)
    return found
