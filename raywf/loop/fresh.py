"""Which rows a retraining keeps aside for its gate: half of those that the champion has not seen.

They are the newest, since a model is asked about what comes after what it was fitted on. But where the
champion loses far more than it did, the world may have turned within those very rows; the proof, fitted on
older ones, would be as bad, and be refused, although the final model will know them. Every other piece of the
fresh rows is held then, so that proof and gate both know the new world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.metrics import bounded_loss
from raywf.core.records import ModelVersion, Snapshot
from raywf.core.settings import GateSettings, Workflow
from raywf.models.bundle import Predictor

_FAR = 1.5  # times the loss that it had when it came
_PIECES = 4
_SCORED = 4_000  # of the newest fresh rows


def is_fresh(table: pa.Table, champion: ModelVersion) -> NDArray[np.bool_]:
    """Mark the rows that the champion cannot have been fitted on; all, where there are no times."""
    if champion.fitted_until is None or "__time" not in table.column_names:
        return np.ones(table.num_rows, dtype=bool)
    times = table.column("__time").to_numpy()
    return np.asarray(times > np.datetime64(champion.fitted_until.replace(tzinfo=None)))


def fresh_gate(
    workflow: Workflow,
    snapshot: Snapshot,
    table: pa.Table,
    champion: ModelVersion | None,
    *,
    load: Callable[[ModelVersion], Predictor],
) -> GateSettings:
    """Return the gate's settings with no more rows held than half of those that the champion has not seen.

    Rows that it has seen prove nothing, and of what is new the proof should know a part. `load` gives the
    champion's model.
    """
    if champion is None or champion.fitted_until is None or "__time" not in table.column_names:
        return workflow.gate
    fresh = np.flatnonzero(is_fresh(table, champion))
    most = max(workflow.gate.min_rows, len(fresh) // 2)
    held = replace(workflow.gate, max_rows=min(workflow.gate.max_rows, most))
    enough = len(fresh) >= 2 * workflow.gate.min_rows
    if (
        enough
        and held.pieces == 1
        and _loses_far_more(snapshot, table.take(pa.array(fresh[-_SCORED:])), champion, load)
    ):
        held = replace(held, pieces=_PIECES)
    return held


def _loses_far_more(
    snapshot: Snapshot, block: pa.Table, champion: ModelVersion, load: Callable[[ModelVersion], Predictor]
) -> bool:
    """Whether the champion surely loses so much more on the rows than on the gate's when it came."""
    if champion.loss is None:
        return False
    predictor = load(champion)
    bundle = predictor.bundle
    if not predictor.can_score(block) or (bundle.task, bundle.classes) != (snapshot.task, snapshot.classes):
        return False
    labels = np.asarray(block.column("__label").to_numpy(), dtype=np.float64)
    answers = predictor.predict_table(block)
    losses = bounded_loss(labels, answers, scale=bundle.loss_scale, quantile=bundle.quantile)
    error = float(losses.std()) / np.sqrt(len(losses))
    return bool(losses.mean() - error > _FAR * champion.loss)
