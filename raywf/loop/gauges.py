"""What the loop is at, for Prometheus: champion, quality, drift, decisions, spending; told by the controller.

Replicas tell of requests (`raywf.serving.meter`), the monitor of the log that it has not read. On the
controller's node Ray serves these as ``ray_raywf_...`` at its metrics port.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Protocol

from raywf.core.errors import RaywfError
from raywf.core.journal import FINAL, Journal
from raywf.core.records import Decision, Evidence, JournalEntry, ModelVersion
from raywf.core.settings import Workflow
from raywf.loop.alerts import Watched
from raywf.loop.decided import past_decisions
from raywf.loop.spending import attempts_of
from raywf.serving.meter import Sink

EVERY_S = 15.0
DRIFTED_PSI = 0.2  # the usual mark of a shift that matters
SPENT_EVERY = timedelta(minutes=5)  # the ledgers of all searches are read for it
KINDS, STAGES = ("retrain", "probe", "rollback"), ("running", *sorted(FINAL))
_log = logging.getLogger(__name__)

Figures = dict[str, float]


class Ticker(Protocol):
    """Does a little now and then."""

    def tick(self) -> None:
        """Do it once."""
        ...


class Champions(Protocol):
    """What is asked of a registry."""

    def find(self, alias: str) -> ModelVersion | None:
        """Return the version that an alias names, or None."""
        ...


class Gauges:
    """Tells a sink where one workflow's loop stands; `tick` is for one thread."""

    def __init__(
        self,
        workflow: Workflow,
        watched: Watched,
        registry: Champions,
        sink: Sink,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._watched, self._registry, self._sink, self._now = watched, registry, sink, now
        self._name, self._root, self._metric = workflow.name, workflow.stores.root, workflow.metric
        self._journal = Journal(workflow.stores.root, workflow.name)
        self._spent: Figures = {}
        self._spent_at: datetime | None = None

    def tick(self) -> None:
        """Look once and tell all; what cannot be looked up keeps the figure that was told last."""
        now, pulse = self._now(), self._watched.pulse()
        self._tell({"well": float(not pulse.problem), "looked_seconds": now.timestamp()})
        if not pulse.problem:
            self._tell({"log_predictions": float(pulse.predictions), "log_labels": float(pulse.labels)})
        for (kind, stage), count in decided(self._journal.decisions(), self._journal.entries()).items():
            self._sink.gauge("raywf_decisions", float(count), {"kind": kind, "stage": stage})
        if self._spent_at is None or now - self._spent_at >= SPENT_EVERY:
            self._spent, self._spent_at = spent(self._root, self._name, now), now
        self._tell(self._spent)
        try:
            champion = self._registry.find("champion")
        except RaywfError as err:
            _log.warning("the champion's figures cannot be told: %s", err)
            return
        if champion is not None:
            self._tell(standing(champion, self._metric) | quality(self._watched.windows()))

    def _tell(self, figures: Figures) -> None:
        for name, value in figures.items():
            self._sink.gauge(f"raywf_{name}", value, {})


def standing(champion: ModelVersion, metric: str) -> Figures:
    """Return the champion's number, and what it was when the gate let it through."""
    found = {"champion_version": float(champion.version) if champion.version.isdecimal() else 0.0}
    found["champion_since_seconds"] = champion.created.timestamp()
    if champion.loss is not None:
        found["champion_loss"] = champion.loss
    if metric in champion.metrics:
        found["champion_metric"] = champion.metrics[metric]
    return found


def quality(windows: Sequence[Evidence]) -> Figures:
    """Return what the newest windows showed: each figure by the newest window that has it."""
    found: Figures = {}
    for window in windows:
        found["window_end_seconds"] = window.end.timestamp()
        found["window_rows"], found["window_pending"] = float(window.rows), float(window.pending)
        figures = {
            "window_metric": window.metric,
            "window_metric_low": window.metric_low,
            "window_metric_high": window.metric_high,
            "window_estimate": window.estimate,
            "window_value": window.value_mean,
            "window_answer_psi": window.answers.psi if window.answers else None,
            "window_label_psi": window.labels.psi if window.labels else None,
            "window_unlike_share": None if window.unlike is None else window.unlike / window.rows,
            "window_loss": window.loss_sum / window.labelled if window.labelled else None,
            "window_labelled": float(window.labelled) or None,  # the rows that the loss rests on
        }
        found |= {name: value for name, value in figures.items() if value is not None}
        if window.drift:
            found["drift_psi"] = max(each.psi for each in window.drift)
            found["drifted_features"] = float(
                sum(each.psi > DRIFTED_PSI and each.stands_out for each in window.drift)
            )
    return found


def decided(decisions: Sequence[Decision], entries: Sequence[JournalEntry]) -> dict[tuple[str, str], int]:
    """Return how many decisions of each kind came to each stage; one without an end is running."""
    stages: Counter[tuple[str, str]] = Counter(
        (p.decision.kind, _stage(p.stage)) for p in past_decisions(decisions, entries)
    )
    return {key: stages[key] for key in product(KINDS, STAGES)}


def _stage(stage: str) -> str:
    return stage if stage in FINAL else "running"


def spent(root: str, workflow: str, now: datetime) -> Figures:
    """Return what a workflow's searches cost in all, and those that began within a day."""
    attempts = attempts_of(root, workflow)
    day = sum(a.cost_usd for a in attempts if now - a.started < timedelta(days=1))
    return {"spent_usd": sum(a.cost_usd for a in attempts), "spent_day_usd": day}


def keep_told(tickers: Sequence[Ticker], stop: threading.Event) -> None:
    """Tick each again and again until `stop` is set, whatever becomes of the others; for a daemon thread."""
    while not stop.wait(EVERY_S):
        for each in tickers:
            try:
                each.tick()
            except Exception as err:  # noqa: BLE001 - figures that cannot be told must not end the controller
                name = type(each).__name__
                _log.warning("the loop's %s could not tick: %s: %s", name, type(err).__name__, err)
