"""The demo's story: train on 45 days, serve, replay the year, let the loop do its work, report."""

from __future__ import annotations

import asyncio
import calendar
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raywf.core.clock import format_time
from raywf.core.ids import stable_id
from raywf.core.journal import BY_HAND, Journal
from raywf.core.metrics import roc_auc
from raywf.core.records import Decision, Evidence, JournalEntry, ModelVersion
from raywf.core.settings import Workflow
from raywf.demo.live import Follower
from raywf.demo.traffic import STEP, Flight, Replay, make_flights
from raywf.loop.cluster import connect
from raywf.loop.local import find_local
from raywf.loop.pipeline import Listener, retrain
from raywf.loop.system import monitor, up
from raywf.models.bundle import load_bundle
from raywf.registry.registry import open_registry
from raywf.report.page import write_report
from raywf.report.story import Month, Story
from raywf.snapshots.rows import joined_rows

FIRST_DAY = datetime(2013, 2, 15, tzinfo=UTC)
DAYS_PER_S = 6.0
JOB_DAYS_PER_S = 0.35
HURRY_AFTER_S = 200.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the demo ends with: the last line's figures and the months' table."""

    summary: dict[str, Any]
    months: tuple[Month, ...]


def run_demo(workflow: Workflow, folder: Path, *, say: Say, started: float) -> Result:
    """Run the whole loop on the workflow's local cluster, which is up.

    `folder` holds the tables, `started` is the `time.monotonic()` of the command's start.

    Raises:
        RaywfError: if a step refuses.
    """
    connect(workflow)
    try:
        traffic = _load_traffic(workflow, folder)
        say(f"first model: trained on what was known on {FIRST_DAY:%b %d}, 45 days of flights")
        _train_first(workflow, say)
        say("bringing the endpoint up")
        url = up(workflow)
        replayed = asyncio.run(_replay(workflow, url, traffic, say, started=started))
        return _conclude(workflow, folder, traffic, replayed, started=started)
    finally:
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class _Traffic:
    table: pa.Table
    flights: list[Flight]


@dataclass(frozen=True, slots=True)
class _Replayed:
    replay: Replay
    began: float


def _load_traffic(workflow: Workflow, folder: Path) -> _Traffic:
    asked = dataclasses.replace(workflow.spine, path=str(folder / "data" / "traffic.parquet"))
    table = joined_rows(dataclasses.replace(workflow, spine=asked))
    columns = [c for c in table.column_names if not c.startswith("__")]
    recent = table.filter(pa.compute.greater_equal(table.column("__time"), pa.scalar(FIRST_DAY)))
    return _Traffic(recent, make_flights(recent, columns))


def _train_first(workflow: Workflow, say: Say) -> None:
    decision = Decision(
        id=stable_id(workflow.name, "retrain", "first", format_time(FIRST_DAY)),
        workflow=workflow.name,
        kind="retrain",
        cause=BY_HAND,
        window=format_time(FIRST_DAY),
        reasons=("the first model",),
        time=FIRST_DAY,
    )
    retrain(workflow, decision, listener=Listener(stage=say))


async def _replay(workflow: Workflow, url: str, traffic: _Traffic, say: Say, *, started: float) -> _Replayed:
    """Walk through the year: fast, but slowly while a job runs, since a job takes minutes and not months."""
    say(f"sending {len(traffic.flights):,} flights to {url}; while a retraining runs the calendar slows down")
    replay = Replay(url, traffic.flights)
    follower = Follower(Journal(workflow.stores.root, workflow.name), say)
    follower.mark_seen()
    began, month = time.time(), FIRST_DAY.month
    step_days = STEP.total_seconds() / 86_400
    for until in replay.spans:
        begun = time.monotonic()
        await replay.step(until)
        follower.look(until)
        slow = follower.is_running and time.monotonic() - started < HURRY_AFTER_S
        left = step_days / (JOB_DAYS_PER_S if slow else DAYS_PER_S) - (time.monotonic() - begun)
        if slow:
            await replay.refresh(max(0.0, left))
        elif left > 0:
            await asyncio.sleep(left)
        if until.month != month:
            say(_month_line(replay, traffic, month))
            month = until.month
    say(_month_line(replay, traffic, month))
    await replay.close()
    return _Replayed(replay, began)


def _month_line(replay: Replay, traffic: _Traffic, month: int) -> str:
    tally = replay.tally
    done = [
        f for f in traffic.flights if f.time.month == month and f.label is not None and f.id in tally.scores
    ]
    labels = np.asarray([f.label == "true" for f in done], dtype=float)
    scores = np.asarray([[tally.scores[f.id]] for f in done])
    recent = [s for _, s in tally.latency[-2000:]]
    p99 = 1000 * float(np.quantile(recent, 0.99)) if recent else float("nan")
    auc = roc_auc(labels, scores) if len(done) else float("nan")
    return (
        f"{calendar.month_abbr[month]}     {len(done):,} flights landed, {labels.mean():.0%} late, "
        f"auc {auc:.3f}; "
        f"{tally.requests:,} requests, {tally.failed} failed, p99 {p99:.0f} ms"
    )


def _conclude(
    workflow: Workflow, folder: Path, traffic: _Traffic, replayed: _Replayed, *, started: float
) -> Result:
    replay, tally = replayed.replay, replayed.replay.tally
    registry = open_registry(workflow)
    journal = Journal(workflow.stores.root, workflow.name)
    entries, versions = journal.entries(), registry.versions()
    promoted = [e for e in entries if e.stage == "promoted"][1:]
    months = _months(workflow, traffic, replay, registry.version("1"), folder)
    after = [m for m in months if promoted and m.start >= promoted[0].time.replace(day=1, hour=0, minute=0)][
        1:
    ]
    report = folder / "report.html"
    summary = {
        "requests": tally.requests,
        "predictions": len(tally.scores),
        "outcomes": tally.outcomes,
        "failed": tally.failed,
        "retried": tally.retried,
        "swaps": len(promoted),
        "rejected": sum(e.stage == "rejected" for e in entries),
        "auc_static": _mean([m.static for m in after]),
        "auc_live": _mean([m.live for m in after]),
        "detect_to_swap_s": _detect_to_swap(entries, promoted),
        "swap_p99_ratio": _swap_ratio(replay, promoted),
        "elapsed_s": round(time.monotonic() - started, 1),
        "report": str(report),
    }
    if tally.reasons:
        summary["first_failure"] = tally.reasons[0]
    story = Story(
        title="A year of flights out of New York",
        metric=workflow.metric,
        months=months,
        decisions=journal.decisions(),
        entries=entries,
        versions=versions,
        evidence=_evidence(workflow, versions),
        latency=tuple((at - replayed.began, s) for at, s in tally.latency),
        swaps=tuple(e.wall_time.timestamp() - replayed.began for e in promoted),
        summary=summary,
    )
    write_report(report, story)
    return Result(summary=summary, months=months)


def _months(
    workflow: Workflow, traffic: _Traffic, replay: Replay, first: ModelVersion, folder: Path
) -> tuple[Month, ...]:
    registry = open_registry(workflow)
    predictor = load_bundle(registry.fetch(first, folder / ".raywf" / "cache" / "demo"), digest=first.digest)
    static = dict(
        zip(
            (f"k{key}" for key in traffic.table.column("__key").to_pylist()),
            predictor.predict_table(traffic.table)[:, 0].tolist(),
            strict=True,
        )
    )
    tally = replay.tally
    out = []
    for number in sorted({f.time.month for f in traffic.flights if f.time.year == FIRST_DAY.year}):
        done = [
            f
            for f in traffic.flights
            if f.time.month == number and f.label is not None and f.id in tally.scores
        ]
        labels = np.asarray([f.label == "true" for f in done], dtype=float)
        if not 0 < labels.sum() < len(labels):
            continue
        out.append(
            Month(
                start=datetime(FIRST_DAY.year, number, 1, tzinfo=UTC),
                rows=len(done),
                label_share=float(labels.mean()),
                static=roc_auc(labels, np.asarray([[static[f.id]] for f in done])),
                live=roc_auc(labels, np.asarray([[tally.scores[f.id]] for f in done])),
                versions=tuple(sorted({tally.versions[f.id] for f in done}, key=int)),
            )
        )
    return tuple(out)


def _detect_to_swap(entries: tuple[JournalEntry, ...], promoted: list[JournalEntry]) -> float | None:
    """Return the median wall time from a decision's submission to its swap, in seconds."""
    begun = {e.decision_id: e.wall_time for e in entries if e.stage == "submitted-1"}
    took = [(e.wall_time - begun[e.decision_id]).total_seconds() for e in promoted if e.decision_id in begun]
    return round(float(np.median(took)), 1) if took else None


def _swap_ratio(replay: Replay, promoted: list[JournalEntry]) -> float | None:
    """Return p99 within the second of the swaps over p99 in the ten seconds before them, swaps pooled."""
    latency = np.asarray(replay.tally.latency)
    during, before = [], []
    for entry in promoted:
        offset = latency[:, 0] - entry.wall_time.timestamp()
        during.append(latency[(offset > -1) & (offset <= 0.5), 1])
        before.append(latency[(offset > -11) & (offset <= -1), 1])
    if not during or not sum(map(len, during)) or not sum(map(len, before)):
        return None
    ratio = np.quantile(np.concatenate(during), 0.99) / np.quantile(np.concatenate(before), 0.99)
    return round(float(ratio), 2)


def _evidence(workflow: Workflow, versions: tuple[ModelVersion, ...]) -> tuple[Evidence, ...]:
    watching = monitor(workflow)
    if find_local(workflow) is None or watching is None:
        return ()
    found = [ray.get(watching.evidence.remote(v.version), timeout=30) for v in versions]
    return tuple(e for each in found for e in each)


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
