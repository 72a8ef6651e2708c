"""Searches with raywf on a cluster of this process within the job's budget; the snapshot is built before."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # a cluster of this process alone, on loopback
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray takes another address than 127.0.0.1
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import yaml
from runner import SINGLE_ROWS, Fitted, Job, carry_out

from raywf.core.category import category_text
from raywf.core.loader import load_workflow
from raywf.core.settings import Workflow
from raywf.models.bundle import load_bundle
from raywf.search.run import SearchPlan, run_search
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import read_snapshot


def write_workflow(job: Job) -> Workflow:
    """Write the job as a workflow.yaml and load it; the rarer class of a binary label is the positive one."""
    spine = {"path": job.train, "label": job.label}
    if job.task == "binary":
        counted = pc.value_counts(pq.read_table(job.train, columns=[job.label]).column(0)).to_pylist()
        spine["positive"] = category_text(min(counted, key=lambda item: item["counts"])["values"])
    settings = {
        "name": "bench",
        "task": job.task,
        "metric": job.metric,
        "spine": spine,
        "search": {"budget_s": job.budget_s, "seed": job.seed},
    }
    path = job.folder / "workflow.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load_workflow(path, environ={})


def search(workflow: Workflow, folder: Path) -> tuple[str, float]:
    """Return the folder of the final bundle and the seconds of the search alone."""
    snapshot = build_snapshot(workflow)
    table = read_snapshot(snapshot)
    # no gate follows, so that no rows need be kept from the search where it knows of that choice
    known = {field.name for field in dataclasses.fields(SearchPlan)}
    choices: dict[str, Any] = {"hold_gate": False} if "hold_gate" in known else {}
    plan = SearchPlan(sweep_id="bench", folder=folder, **choices)
    start = time.perf_counter()
    found = run_search(workflow, snapshot, table, plan=plan)
    return found.final.uri, time.perf_counter() - start


def fit(job: Job) -> Fitted:
    ray.init(
        address="local",
        num_cpus=job.cores,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        bundle, fit_s = search(write_workflow(job), job.folder / "bundles")
    finally:
        ray.shutdown()
    predictor = load_bundle(bundle)
    test = pq.read_table(job.test)
    asked = test.drop_columns([job.label])
    labels = test.column(job.label).to_pylist()
    regression = job.task == "regression"
    return Fitted(
        fit_s=fit_s,
        labels=labels if regression else [category_text(label) for label in labels],
        classes=predictor.bundle.classes,
        rows=plain_rows(asked.slice(0, SINGLE_ROWS)),
        predict_row=predictor.predict_row,
        predict_table=lambda: predictor.predict_table(asked),
    )


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as a client would send them: a gap is None, never nan."""
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        for row in table.to_pylist()
    ]


if __name__ == "__main__":
    carry_out(fit)
