"""What the runners share: the job that they read, scores, timings, the result that they write.

A runner is a script in its contender's own environment: ``python RUNNER.py job.json``. This module needs
numpy, pandas, pyarrow and scikit-learn only, which every environment has.
"""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

Scores = NDArray[np.float64]
SINGLE_ROWS = 200
_WARM_ROWS, _FEWEST_ROWS = 20, 20
_SETTLED_S = 3.0  # until the processes that a fit started have ended, which take the processor from a row
_BATCHES = 3
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One fit: files, label, task and metric, what it may use, and where its result goes."""

    train: str
    test: str
    label: str
    task: str
    metric: str
    budget_s: float
    cores: int
    seed: int
    preset: str
    out: str

    @property
    def folder(self) -> Path:
        """A folder of this job alone, removed after it."""
        return Path(self.out).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A contender after its fit.

    `predict_table` answers the test set: shape ``(n_rows, k)``, the columns in the order of `classes`, or
    ``(n_rows, 1)``: the value, or the probability of the last class. `labels` are the test set's, spelled as
    `classes` are. `rows` are its first `SINGLE_ROWS` rows in the form that `predict_row` takes.
    """

    fit_s: float
    labels: Sequence[Any]
    classes: Sequence[Any]
    rows: Sequence[Any]
    predict_row: Callable[[Any], object]
    predict_table: Callable[[], Scores]


def carry_out(fit: Callable[[Job], Fitted]) -> None:
    """Read the job that the command line names, fit, measure and write the result; a failure is one too."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    try:
        result = measure(job, fit(job))
    except Exception as err:  # noqa: BLE001 whatever goes wrong in a contender is its result
        traceback.print_exc()
        result = {"error": f"{type(err).__name__}: {_last_line(err)}"}
    Path(job.out).write_text(json.dumps(result, allow_nan=False))


def _last_line(err: Exception) -> str:
    """Return what an error says in its last line: Ray puts a worker's whole trace before it."""
    return (str(err).strip().splitlines() or ["no reason given"])[-1].strip()


def measure(job: Job, fitted: Fitted) -> dict[str, Any]:
    """Return score, loss and timings of a fitted contender."""
    time.sleep(_SETTLED_S)
    row_p50_ms = time_rows(fitted)
    scores, table_s = time_tables(fitted)
    score = score_of(job.metric, fitted, scores)
    if not math.isfinite(score):
        raise ValueError(f"{job.metric} on the test set is {score}")
    return {
        "score": score,
        "loss": 1 - score if job.metric == "roc_auc" else score,
        "fit_s": round(fitted.fit_s, 3),
        "overrun": round(max(0.0, fitted.fit_s / job.budget_s - 1), 4),
        "row_p50_ms": round(row_p50_ms, 4),
        "rows_per_s": round(len(scores) / table_s, 1),
        "error": None,
    }


def score_of(metric: str, fitted: Fitted, scores: Scores) -> float:
    """Return the metric of scores on the test set; every class of it was seen in the fit."""
    if metric == "rmse":
        gaps = scores[:, 0] - np.asarray(fitted.labels, dtype=np.float64)
        return float(np.sqrt(np.mean(gaps**2)))
    places = {name: i for i, name in enumerate(fitted.classes)}
    labels = np.array([places[label] for label in fitted.labels])
    if metric == "roc_auc":
        return float(roc_auc_score(labels, scores[:, -1]))
    shares = scores / scores.sum(axis=1, keepdims=True)  # float32 answers sum to 1 only nearly
    return float(log_loss(labels, shares, labels=range(len(places))))


def time_rows(fitted: Fitted) -> float:
    """Return the median milliseconds of one row, each asked once; fewer than given where they take long.

    The first rows are not counted.
    """
    spent: list[float] = []
    begun = time.perf_counter()
    for row in fitted.rows[:_WARM_ROWS]:
        fitted.predict_row(row)
        if time.perf_counter() - begun > _PATIENCE_S:
            break
    for row in fitted.rows[_WARM_ROWS:] or fitted.rows:
        start = time.perf_counter()
        fitted.predict_row(row)
        spent.append(time.perf_counter() - start)
        if len(spent) >= _FEWEST_ROWS and sum(spent) > _PATIENCE_S:
            break
    return 1000 * float(np.median(spent))


def time_tables(fitted: Fitted) -> tuple[Scores, float]:
    """Return the scores of the whole test set and the best seconds of up to three goes."""
    spent: list[float] = []
    scores = np.empty((0, 1))
    while len(spent) < _BATCHES and sum(spent) < _PATIENCE_S:
        start = time.perf_counter()
        scores = fitted.predict_table()
        spent.append(time.perf_counter() - start)
    return np.asarray(scores, dtype=np.float64), min(spent)


def read_frames(job: Job) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the two sets as pandas reads them."""
    return pd.read_parquet(job.train), pd.read_parquet(job.test)


def single_rows(features: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the first rows, each a frame of its own."""
    return [features.iloc[[i]] for i in range(min(SINGLE_ROWS, len(features)))]


def as_scores(answer: Any) -> Scores:
    """Return a peer's answer with shape ``(n_rows, k)``."""
    scores = np.asarray(answer, dtype=np.float64)
    return scores.reshape(-1, 1) if scores.ndim == 1 else scores
