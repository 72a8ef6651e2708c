"""Which rows a retraining keeps aside for its gate: fresh ones, in pieces where the champion has broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from test_span import START, WORKFLOW, history, same

from raywf.core.records import Bundle, Column, ModelVersion, Snapshot
from raywf.loop.fresh import fresh_gate, is_fresh
from raywf.models.bundle import Predictor

ROWS = 4000
SNAPSHOT, TABLE = history(same, rows=ROWS)


@dataclasses.dataclass
class Says:
    """A model that says the same chance to all rows."""

    chance: float
    bundle: Bundle

    def can_score(self, table: pa.Table) -> bool:
        return {column.name for column in self.bundle.columns} <= set(table.column_names)

    def predict_table(self, table: pa.Table) -> NDArray[np.float64]:
        return np.tile([1 - self.chance, self.chance], (table.num_rows, 1))


def champion(loss: float | None, *, seen: int = ROWS - 1000) -> ModelVersion:
    """A version that was fitted on the first rows, and had such a loss then."""
    told = dict.fromkeys((f.name for f in dataclasses.fields(ModelVersion)), "")
    until = START + timedelta(minutes=seen - 1)
    return ModelVersion(**(told | {"loss": loss, "fitted_until": until}))  # type: ignore[arg-type]


def load(columns: tuple[Column, ...] = SNAPSHOT.columns) -> Callable[[ModelVersion], Predictor]:
    told = dict.fromkeys((f.name for f in dataclasses.fields(Bundle)), None)
    known = {"columns": columns, "classes": SNAPSHOT.classes, "task": SNAPSHOT.task}
    bundle = Bundle(**(told | known))  # type: ignore[arg-type]
    return lambda _version: cast("Predictor", Says(0.5, bundle))


def gate_of(version: ModelVersion | None, snapshot: Snapshot = SNAPSHOT, **more: object) -> tuple[int, int]:
    found = fresh_gate(WORKFLOW, snapshot, TABLE, version, load=load(**more))  # type: ignore[arg-type]
    return found.max_rows, found.pieces


def test_half_of_what_the_champion_has_not_seen_is_held() -> None:
    """All that the workflow says where there is no champion."""
    assert int(is_fresh(TABLE, champion(None)).sum()) == 1000
    assert gate_of(None) == (WORKFLOW.gate.max_rows, 1)
    assert gate_of(champion(None)) == (500, 1)


@pytest.mark.parametrize(("loss", "pieces"), [(0.5, 1), (0.17, 1), (0.16, 4), (0.01, 4)])
def test_it_is_in_pieces_where_the_champion_loses_far_more_than_it_did(loss: float, pieces: int) -> None:
    """Chances of a half cost a quarter each; half as much again is far more."""
    assert gate_of(champion(loss)) == (500, pieces)


def test_a_champion_that_cannot_answer_the_rows_says_nothing() -> None:
    """Nor does one of other classes, or with too few rows that it has not seen for pieces of them."""
    assert gate_of(champion(0.01), columns=(Column(name="gone", kind="number"),)) == (500, 1)
    assert gate_of(champion(0.01, seen=ROWS - 20)) == (WORKFLOW.gate.min_rows, 1)
    other = dataclasses.replace(SNAPSHOT, classes=("no", "perhaps", "yes"))
    assert gate_of(champion(0.01), other) == (500, 1)
