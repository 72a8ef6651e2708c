"""What is expected of a version's quality: made of the gate's rows, kept beside its sweep."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from raywf.core.codec import decode, encode
from raywf.core.records import Bundle, Snapshot
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.models.bundle import load_bundle
from raywf.monitor.drift import as_in_training, bin_values
from raywf.monitor.expectations import Expectations, fit_expectations


def make_expectations(workflow: Workflow, snapshot: Snapshot, block: pa.Table, proof: Bundle) -> Expectations:
    """Return what is expected by rows of the snapshot that the proof was not fitted on.

    They stand for the final model too, which is the same recipe on all rows.
    """
    predictor = load_bundle(proof.uri, digest=proof.digest, trust=workflow.trusts_own_code)
    labels = np.asarray(block.column("__label").to_numpy(), dtype=np.float64)
    bins = [
        as_in_training(bin_values(block.column(profile.name).to_pylist(), profile), profile)
        for profile in snapshot.profile
    ]
    return fit_expectations(
        workflow.metric,
        labels,
        predictor.predict_table(block),
        np.array(bins, dtype=np.uint8).reshape(len(bins), len(labels)).T,
        profile=snapshot.profile,
        threshold=predictor.bundle.threshold,
        scale=predictor.bundle.loss_scale if snapshot.task == "regression" else None,
        quantile=predictor.bundle.quantile,
    )


def keep_expectations(store: Store, sweep_id: str, expectations: Expectations) -> None:
    """Write expectations beside their sweep."""
    store.write(_path(sweep_id), json.dumps(encode(expectations)).encode())


def read_expectations(store: Store, sweep_id: str) -> Expectations | None:
    """Return a sweep's expectations; None where there are none, or not of this form."""
    try:
        return decode(Expectations, json.loads(store.read(_path(sweep_id))))
    except (FileNotFoundError, ValueError):
        return None


def _path(sweep_id: str) -> str:
    return f"sweeps/{sweep_id}/expectations.json"
