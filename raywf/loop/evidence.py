"""What the monitor knows of a version, read from the log itself: no running system is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from raywf.core.attribution import Attribution
from raywf.core.errors import SettingsError
from raywf.core.own import workflow_metric
from raywf.core.records import Evidence
from raywf.core.settings import Workflow
from raywf.cost.rate import resolve_rate
from raywf.loop.references import RegistryReferences
from raywf.loop.why import find_version
from raywf.monitor.actor import PatientReferences
from raywf.monitor.checkpoint import CheckpointError, Checkpoints
from raywf.monitor.estimate import Estimate, EstimateError, judge_estimates
from raywf.monitor.fold import Fold
from raywf.monitor.since import Moved
from raywf.monitor.slices import SliceEvidence
from raywf.outcomes.column_reader import ColumnReader
from raywf.registry.registry import open_registry

_BATCH_BYTES = 500_000_000
_JUDGED = 20  # windows whose estimates are compared with labels, the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """A version's windows in time order, and what they come to.

    `settled` has for each window that is mostly without labels its estimate less what estimates were off by
    (`judged`, of windows that have labels), None for others. `attribution` says what a change of the loss
    since the promotion comes from. Each is None where nothing tells. `slices` are by the values of the column
    that was asked for, of the newest windows. `moved` has for each window how far it moved from the one
    before, None of the first and of those whose rows are gone.
    """

    version: str
    metric: str
    windows: tuple[Evidence, ...]
    usd: tuple[float | None, ...]
    settled: tuple[Estimate | None, ...]
    judged: EstimateError | None
    attribution: Attribution | None
    slices: tuple[SliceEvidence, ...] = ()
    moved: tuple[Moved | None, ...] = ()


def read_windows(
    workflow: Workflow, version: str, *, by: str | None = None, last: int = 20, since: bool = False
) -> Windows:
    """Fold the log and return a version's windows; `version` is a number or an alias.

    With `by` the rows of the `last` windows are also told apart by that column's values, with `since` each
    window is also compared with the one before.

    Raises:
        NoVersionError: if nothing has that name.
        RegistryError: if the registry does not answer.
        SettingsError: if the version's model has no such column, or the code of the user's metric is gone.
    """
    number = find_version(workflow, version).version
    references = RegistryReferences(workflow, open_registry(workflow))
    fold = fold_log(workflow, PatientReferences(references))
    windows = fold.evidence(number)
    judged = _judged(windows, workflow.metric, fold.watermark)
    return Windows(
        version=number,
        metric=workflow.metric,
        windows=windows,
        usd=_priced(windows, workflow),
        settled=tuple(_settled(window, judged, workflow.metric) for window in windows),
        judged=judged,
        attribution=fold.attribution(number),
        slices=() if by is None else fold.slices(number, by, last=last),
        moved=tuple(map(fold.moved(number).get, (w.start for w in windows))) if since else (),
    )


def _priced(windows: Sequence[Evidence], workflow: Workflow) -> tuple[float | None, ...]:
    """Return what the replicas cost by window; None where that, or the price of a CPU, is not known."""
    try:
        rate = resolve_rate(workflow.cost)
    except SettingsError:  # `raywf cost` says what is wrong with it
        return (None,) * len(windows)
    return tuple(None if w.cpu_s is None else rate.usd(cpu_s=w.cpu_s) for w in windows)


def _judged(windows: Sequence[Evidence], metric: str, now: datetime | None) -> EstimateError | None:
    """Compare estimates with what labels said, in the newest windows that may be judged by them."""
    known = [
        (estimate, window.metric)
        for window in windows
        if (estimate := estimate_of(window, metric)) is not None
        and window.metric is not None
        and (window.is_labelled if now is None else window.is_mature(now))
    ]
    return judge_estimates(known[-_JUDGED:])


def _settled(window: Evidence, judged: EstimateError | None, metric: str) -> Estimate | None:
    estimate = None if window.is_labelled else estimate_of(window, metric)
    return judged.settle(estimate) if judged and estimate else estimate


def estimate_of(window: Evidence, metric: str) -> Estimate | None:
    """Return a window's estimate of the metric; None where it has none."""
    if window.estimate is None or window.estimate_low is None or window.estimate_high is None:
        return None
    return Estimate(
        metric=metric,
        value=window.estimate,
        low=window.estimate_low,
        high=window.estimate_high,
        rows=window.rows,
    )


def fold_log(workflow: Workflow, references: PatientReferences) -> Fold:
    """Return the fold of the whole log, from the monitor's last checkpoint on where there is a good one."""
    reader = ColumnReader(workflow.stores.root, workflow.name)
    metric = workflow_metric(workflow)
    checkpoints = Checkpoints(Path(reader.folder), workflow.monitor, metric=metric)
    try:
        found = checkpoints.load(references)
    except CheckpointError:  # the log is the truth
        found = None
    state, cursor = (found.state, found.cursor) if found else (None, {})
    fold = Fold(workflow.monitor, references, metric=metric, state=state)
    before: dict[str, int] | None = None
    while cursor != before:
        before = dict(cursor)
        for columns, after in reader.columns(before, max_bytes=_BATCH_BYTES):
            fold.take(columns)
            cursor = after
    fold.update(())
    return fold
