"""How often a change is seen that is none, and how soon one that is: ``python benchmarks/false_alarms.py``.

Streams of 100 batches of 100 rows, each row right or wrong, looked at after every batch. Half of the streams
are stable: a fifth of the answers is wrong. In the others it is a fourth from the fiftieth batch on. raywf's
policy is asked at each batch (its loss alone, default settings; the level is known from 5,000 rows before;
and without its tolerance of a rise by 0.01, which the others lack), beside river's ADWIN, Page-Hinkley and
KSWIN with their own defaults, fed row by row. ``false`` is the share of stable streams with an alarm,
``delay`` the median rows from the fall to the alarm of those that come, ``missed`` the share of streams
without one after the fall (an alarm before it is ``early``).

``looks``: on 50 stable streams a LightGBM champion of 15,000 rows is looked at ten times, 500 new rows each,
beside quick models; the share of streams on which the regret was worth a retraining. Those still have to
pass the gate.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from river import drift

from raywf.core.records import Bundle, Column, Evidence, Member, ModelVersion, Snapshot
from raywf.core.settings import RetrainSettings, SpineSettings, Workflow
from raywf.loop.probe import probe
from raywf.models.bundle import Draft, Predictor, load_bundle, write_bundle
from raywf.models.encoding import fit_encoder
from raywf.models.families import family
from raywf.models.family import Problem, Rows
from raywf.policy.history import History
from raywf.policy.policy import decide
from raywf.policy.regret import judge_regret

BATCHES, ROWS, FALL = 100, 100, 50
GOOD, BAD, LEVEL_ROWS = 0.2, 0.25, 5000
START, BATCH = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)
LOOKS, LOOK_ROWS, FIRST_ROWS = 10, 500, 15_000
DETECTORS: dict[str, Callable[[], Any]] = {
    "adwin": drift.ADWIN,
    "page_hinkley": drift.PageHinkley,
    "kswin": lambda: drift.KSWIN(seed=0),
}


def champion(loss: float) -> ModelVersion:
    return ModelVersion(
        workflow="w",
        version="1",
        uri="",
        digest="",
        run_id="",
        status="champion",
        snapshot_id="",
        sweep_id="",
        code_version="",
        parent=None,
        decision_id="",
        metrics={},
        loss=loss,
        loss_rows=LEVEL_ROWS,
        cost_usd=0.0,
        created=START,
    )


def first_alarms(stream: tuple[int, bool]) -> dict[str, int | None]:
    """Return the row of each contender's first alarm, at its batch's end; None for none."""
    seed, falls = stream
    rng = np.random.default_rng(seed)
    rates = np.where(np.arange(BATCHES) >= FALL, BAD if falls else GOOD, GOOD)
    wrong = rng.random((BATCHES, ROWS)) < rates[:, None]
    level = float((rng.random(LEVEL_ROWS) < GOOD).mean())
    found: dict[str, int | None] = {
        "raywf": policy_alarm(wrong, level, RetrainSettings().tolerance),
        "raywf_tolerance_0": policy_alarm(wrong, level, 0.0),
    }
    for name, make in DETECTORS.items():
        found[name] = detector_alarm(make(), wrong)
    return found


def policy_alarm(wrong: np.ndarray, level: float, tolerance: float) -> int | None:
    windows: list[Evidence] = []
    settings = RetrainSettings(look=None, cooldown=timedelta(0), tolerance=tolerance)
    history = History(champion=champion(level), since=START - BATCH)
    for i, batch in enumerate(wrong):
        windows.append(
            Evidence(
                version="1",
                start=START + i * BATCH,
                end=START + (i + 1) * BATCH,
                rows=ROWS,
                labelled=ROWS,
                loss_sum=float(batch.sum()),
                loss_squares=float(batch.sum()),
            )
        )
        now = windows[-1].end
        if decide(windows, history, settings, workflow="w", now=now, min_labelled=200).kind == "retrain":
            return (i + 1) * ROWS
    return None


def detector_alarm(detector: Any, wrong: np.ndarray) -> int | None:
    for i, batch in enumerate(wrong):
        for value in batch:
            detector.update(float(value))
            if detector.drift_detected:
                return (i + 1) * ROWS
    return None


def told(
    name: str, stable: list[dict[str, int | None]], fallen: list[dict[str, int | None]]
) -> dict[str, Any]:
    start = FALL * ROWS
    alarms = [found[name] for found in fallen]
    delays = [a - start for a in alarms if a is not None and a > start]
    return {
        "false": sum(found[name] is not None for found in stable) / len(stable),
        "delay": median(delays) if delays else None,
        "missed": sum(a is None for a in alarms) / len(alarms),
        "early": sum(a is not None and a <= start for a in alarms) / len(alarms),
    }


def looks_in_vain(seed: int) -> bool:
    """Return whether ten looks at a champion of a stable stream would have led to a retraining."""
    rng = np.random.default_rng(seed)
    rows = FIRST_ROWS + LOOKS * LOOK_ROWS
    X = rng.normal(size=(rows, 8))
    late = rng.random(rows) < 1 / (1 + np.exp(-(X[:, 0] + X[:, 1] * X[:, 2])))
    hours = pa.array(
        int(START.timestamp() * 1e6) + 3_600_000_000 * np.arange(rows), pa.timestamp("us", "UTC")
    )
    columns = {f"x{i}": pa.array(X[:, i]) for i in range(8)}
    table = pa.table({**columns, "__label": pa.array(late.astype(float)), "__time": hours})
    workflow = Workflow(name="w", task="binary", spine=SpineSettings(path="x", label="y", event_time="t"))
    probes, since = [], FIRST_ROWS
    with tempfile.TemporaryDirectory() as folder:
        model = fitted(table.slice(0, FIRST_ROWS), Path(folder) / "bundle")
        for _ in range(LOOKS):
            end = since + LOOK_ROWS
            snapshot = snapshot_of(table.slice(0, end), as_of=START + timedelta(hours=end))
            before = START + timedelta(hours=since - 0.5)
            probes.append(probe(workflow, snapshot, table.slice(0, end), model, version="1", since=before))
            since = end
            if judge_regret(probes, "1", RetrainSettings(), since=START).due:
                return True
    return False


def snapshot_of(table: pa.Table, *, as_of: datetime) -> Snapshot:
    return Snapshot(
        id="s",
        workflow="w",
        uri="",
        rows=table.num_rows,
        columns=tuple(Column(name=f"x{i}", kind="number") for i in range(8)),
        task="binary",
        classes=("no", "yes"),
        label="y",
        has_time=True,
        window=None,
        as_of=as_of,
        digest="",
        profile=(),
        sources=(),
    )


def fitted(table: pa.Table, folder: Path) -> Predictor:
    columns = snapshot_of(table, as_of=START).columns
    encoder = fit_encoder(table, columns)
    problem = Problem(task="binary", n_classes=2, sizes=encoder.sizes)
    params, rounds = {"learning_rate": 0.05, "num_leaves": 31}, 120
    given = Rows(encoder.table(table), np.asarray(table["__label"].to_numpy()))
    model = family("lightgbm").fit(problem, given, params, valid=None, rounds=rounds)
    bundle = Bundle(
        uri="",
        digest="",
        task="binary",
        columns=columns,
        classes=("no", "yes"),
        members=(Member(trial_id="t", family="lightgbm", params=params, rounds=rounds, weight=1.0),),
        snapshot_id="s",
        fitted_until=None,
        loss_scale=None,
    )
    reference = table.select([c.name for c in columns]).slice(0, 20)
    draft = Draft(bundle=bundle, encoder=encoder, models=(model,), calibration=None, reference=reference)
    return load_bundle(write_bundle(draft, folder).uri)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=200, help="stable ones, and as many that fall")
    parser.add_argument("--looks", type=int, default=50, help="stable streams that are looked at")
    options = parser.parse_args()
    n = options.streams
    with ProcessPoolExecutor(2) as pool:
        stable = list(pool.map(first_alarms, [(seed, False) for seed in range(n)], chunksize=4))
        fallen = list(pool.map(first_alarms, [(seed, True) for seed in range(n, 2 * n)], chunksize=4))
        looked = list(pool.map(looks_in_vain, range(options.looks)))
    found = {name: told(name, stable, fallen) for name in stable[0]}
    looks = {"false": float(np.mean(looked)) if looked else None, "streams": len(looked)}
    print(json.dumps({"streams": n, **found, "looks": looks}))


if __name__ == "__main__":
    main()
