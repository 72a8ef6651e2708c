"""A workflow's whole history, which can be looked at as it was known at any instant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raywf.core.clock import format_time, to_microseconds
from raywf.core.codec import encode
from raywf.core.errors import SettingsError, ValidationError
from raywf.core.ids import stable_id
from raywf.core.own import workflow_metric
from raywf.core.records import Snapshot
from raywf.core.settings import Workflow
from raywf.loop.probe import spread
from raywf.models.bundle import Predictor
from raywf.monitor.earned import earned
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot
from raywf.snapshots.convert import time_us
from raywf.snapshots.digest import row_hashes
from raywf.snapshots.maturity import find_maturity, mature_rows

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """All rows with a label, in the order of their times, whenever it became known.

    `times` and `known` are microseconds since 1970: of the rows and of their labels. `hashes` are of what the
    rows hold.
    """

    workflow: Workflow
    snapshot: Snapshot
    table: pa.Table
    times: NDArray[np.int64]
    known: NDArray[np.int64]
    hashes: NDArray[np.uint64]

    def as_of(self, instant: datetime) -> tuple[Snapshot, pa.Table]:
        """Return the snapshot that would have been built at an instant, and its rows.

        Rows, labels, maturity and classes are those known then; features are so by the snapshot's making.

        Raises:
            ValidationError: if fewer rows were known than a snapshot must have.
        """
        table = self.table.filter(pa.array(self._there(instant)))
        if table.num_rows < self.workflow.validate.min_rows:
            raise ValidationError(
                f"{table.num_rows} labelled rows were known at {format_time(instant)}, fewer than "
                f"validate.min_rows = {self.workflow.validate.min_rows}"
            )
        maturity = find_maturity(table, self.workflow, as_of=instant)
        if maturity.age:
            table = mature_rows(table, maturity.until_us)
        table, classes = _with_classes(table, self.snapshot.classes)
        bounds = pc.min_max(table.column("__time"))
        snapshot = replace(
            self.snapshot,
            id=stable_id(self.snapshot.id, format_time(instant)),
            rows=table.num_rows,
            classes=classes,
            window=(bounds["min"].as_py(), bounds["max"].as_py()),
            as_of=instant,
            maturity_s=maturity.wanted.total_seconds(),
        )
        return snapshot, table

    def digest(self, instant: datetime) -> str:
        """Return a digest of what was known at an instant: the same whatever rows came since."""
        hashes = self.hashes[self._there(instant)]
        sums = (int(hashes.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(hashes)))
        return stable_id(len(hashes), sums, encode(self.snapshot.columns), self.snapshot.classes, length=32)

    def _there(self, instant: datetime) -> NDArray[np.bool_]:
        cut = to_microseconds(instant)
        there = (self.times <= cut) & (self.known <= cut)
        if self.workflow.validate.window is not None:
            there &= self.times > cut - self.workflow.validate.window // _MICROSECOND
        return there

    def between(self, start: datetime, end: datetime) -> slice:
        """Return which rows came from `start` until before `end`."""
        first, last = np.searchsorted(self.times, [to_microseconds(start), to_microseconds(end)])
        return slice(int(first), int(last))

    def loss(self, predictor: Predictor, table: pa.Table, scores: NDArray[np.float64]) -> float | None:
        """Return the metric as a loss of a model's scores of some rows; None where it is not defined."""
        return self.metric(table, self.spell(predictor, scores), threshold=predictor.bundle.threshold)

    def spell(self, predictor: Predictor, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a model's scores, shape ``(n_rows, k)``, with a column for each class of all history."""
        return spread(scores, predictor.bundle.classes, self.snapshot.classes)

    def metric(self, table: pa.Table, scores: NDArray[np.float64], *, threshold: float) -> float | None:
        """Return the metric as a loss of spelt scores of some rows; None where it is not defined."""
        labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
        loss = workflow_metric(self.workflow).loss(labels, scores, threshold=threshold)
        return loss if np.isfinite(loss) else None

    def value(self, table: pa.Table, scores: NDArray[np.float64], *, threshold: float) -> float | None:
        """Return what spelt scores of some rows earn on average by `monitor.values`; None without these."""
        values = self.workflow.monitor.values
        if not values or not table.num_rows:
            return None
        labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
        classes = self.snapshot.classes
        return float(earned(labels, scores, classes=classes, threshold=threshold, values=values).mean())

    def loss_between(self, predictor: Predictor, start: datetime, end: datetime) -> float | None:
        """Return a model's loss on the rows from `start` until before `end`; None where there is none."""
        table = self.table[self.between(start, end)]
        return self.loss(predictor, table, predictor.predict_table(table)) if table.num_rows else None


def read_past(workflow: Workflow, *, until: datetime | None = None) -> Past:
    """Build the snapshot of all history up to an instant (default: now); Ray must be initialised.

    Raises:
        SettingsError: if the workflow has no event time.
        RaywfError: if the tables cannot be read or checks refuse them.
    """
    if workflow.spine.event_time is None:
        raise SettingsError("a backtest needs times: name the spine's event_time (and label_time)")
    whole = replace(
        workflow,
        spine=replace(workflow.spine, maturity=timedelta(0)),
        validate=replace(workflow.validate, window=None),
    )
    snapshot = build_snapshot(whole, as_of=until or datetime.now(UTC))
    table = read_snapshot(snapshot)
    times = time_us(table.column("__time"), missing=0)
    known = times
    if "__label_time" in table.column_names:
        known = time_us(table.column("__label_time"), missing=0)
    hashes = row_hashes(table)
    return Past(workflow=workflow, snapshot=snapshot, table=table, times=times, known=known, hashes=hashes)


def _with_classes(table: pa.Table, classes: tuple[str, ...]) -> tuple[pa.Table, tuple[str, ...]]:
    """Return the rows with labels as indices into the classes that occur among them."""
    if not classes:
        return table, classes
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.int64)
    present = np.unique(labels)
    if len(present) == len(classes):
        return table, classes
    if len(present) < 2:
        raise ValidationError(f"of the classes {', '.join(classes)} only {len(present)} had come up by then")
    place = table.column_names.index("__label")
    index = np.searchsorted(present, labels).astype(np.float64)
    return table.set_column(place, "__label", pa.array(index)), tuple(classes[i] for i in present)
