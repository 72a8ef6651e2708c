"""A model's metric estimated without labels, beside what labels said later, on six real streams.

``python benchmarks/estimate.py [--streams flights,weather] [--blocks 12] [--no-peer]`` fits a LightGBM on the
first quarter of each stream's rows, the estimators on the rows from there to a third, which the model has
not seen, and estimates the metric of each block of the other two thirds: ROC AUC and accuracy of two classes,
accuracy of more, the mean absolute error of a regression. Each figure is the mean absolute error of the
estimates against the realised metric: raywf's; `tracked`, moved by the errors of the three blocks before the
last one, whose labels are there by then; NannyML's CBPE and DLE (no tuning) of the same rows and scores, in
an environment of its own; and `constant`, which says that the metric is as it was. Categories that the model
has not seen are told it as missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import lightgbm  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
from automl_runners.environments import NotInstalled, peer_python  # noqa: E402 the folder is a set of scripts
from streams import LABEL, STREAMS, Stream, load  # noqa: E402

from raywf.core.metrics import METRICS, Array  # noqa: E402
from raywf.core.records import Column, ColumnProfile  # noqa: E402
from raywf.monitor.drift import bin_values  # noqa: E402
from raywf.monitor.estimate import Estimate, fit_class_estimator, judge_estimates  # noqa: E402
from raywf.monitor.estimate_loss import fit_loss_estimator  # noqa: E402
from raywf.snapshots.profile import profile_column  # noqa: E402

CACHE = Path.home() / ".cache" / "raywf-bench" / "estimate"
BY_TASK = {"binary": ("roc_auc", "accuracy"), "multiclass": ("accuracy",), "regression": ("mae",)}
LIMIT_S = 1_800.0
LOOKED_AT = 3  # blocks whose errors settle an estimate


@dataclass(frozen=True)
class Scored:
    """Rows that the model has not seen: labels (an index, -1 for a class that is new; or a value), scores,
    the features' bins and the features as the model takes them.
    """

    labels: Array
    scores: Array
    codes: np.ndarray
    features: pd.DataFrame

    def rows(self, part: slice) -> Scored:
        return Scored(self.labels[part], self.scores[part], self.codes[part], self.features[part])


def encode(table: pd.DataFrame, names: Sequence[str], fitted: slice) -> pd.DataFrame:
    """Return numbers as they are and categories as such, those of the fitted rows."""
    columns = {}
    for name in names:
        values = table[name]
        if isinstance(values.dtype, pd.StringDtype):
            columns[name] = pd.Categorical(values, categories=sorted(values[fitted].dropna().unique()))
        elif isinstance(values.dtype, pd.DatetimeTZDtype):
            columns[name] = values.astype("int64") / 86_400e6
        else:
            columns[name] = values.astype(float)
    return pd.DataFrame(columns)


def profile(features: pd.DataFrame) -> list[ColumnProfile]:
    found = []
    for name in features:
        kind = "category" if isinstance(features[name].dtype, pd.CategoricalDtype) else "number"
        values = features[name].astype(object if kind == "category" else float)
        array = pa.chunked_array([pa.array(values, from_pandas=True)])
        if kind == "category":
            array = array.cast(pa.string())
        found.append(profile_column(array, Column(name=name, kind=kind)))
    return found


def bins(features: pd.DataFrame, profiles: Sequence[ColumnProfile]) -> np.ndarray:
    columns = []
    for one in profiles:
        values = features[one.name].astype(object)
        columns.append(bin_values(values.where(values.notna(), None).tolist(), one))
    return np.stack(columns, axis=1)


def score(stream: Stream) -> tuple[Scored, Scored, tuple[str, ...]]:
    """Fit the model; return the rows for the estimators, the later ones, and the classes."""
    table, rows = stream.table, len(stream.table)
    fit, third = slice(0, rows // 4), rows // 3
    features = encode(table, stream.features, fit)
    classes: tuple[str, ...] = ()
    if stream.task == "regression":
        labels = table[LABEL].to_numpy(float)
        model: Any = lightgbm.LGBMRegressor(n_jobs=1, verbose=-1)
    else:
        classes = tuple(sorted(table[LABEL][fit].unique()))
        labels = pd.Categorical(table[LABEL], categories=classes).codes.astype(float)
        model = lightgbm.LGBMClassifier(n_jobs=1, verbose=-1)
    model.fit(features[fit], labels[fit])
    rest = features[rows // 4 :]
    scores = model.predict(rest)[:, None] if not classes else model.predict_proba(rest)
    if len(classes) == 2:
        scores = scores[:, 1:]
    codes = bins(rest, profile(features[fit]))
    whole = Scored(labels[rows // 4 :], np.asarray(scores, float), codes, rest)
    cut = third - rows // 4
    return whole.rows(slice(0, cut)), whole.rows(slice(cut, None)), classes


def estimates(metric: str, task: str, reference: Scored, blocks: Sequence[Scored]) -> list[Estimate]:
    if task == "regression":
        loss = fit_loss_estimator(metric, reference.labels, reference.scores, reference.codes)
        assert loss is not None
        found = [loss.estimate(block.codes, block.scores) for block in blocks]
    else:
        known = reference.labels >= 0
        made = fit_class_estimator(metric, reference.labels[known], reference.scores[known])
        assert made is not None
        found = [made.estimate(block.scores) for block in blocks]
    return [one for one in found if one is not None]


def tracked(made: Sequence[Estimate], real: Sequence[float]) -> list[Estimate]:
    """Return estimates settled by the errors that were known when each was made; labels are a block late."""
    found = []
    for i, estimate in enumerate(made):
        known = list(zip(made, real, strict=True))[: max(0, i - 1)]
        judged = judge_estimates(known[-LOOKED_AT:])
        found.append(estimate if judged is None else judged.settle(estimate))
    return found


def ask_peer(
    python: Path,
    folder: Path,
    stream: Stream,
    sides: tuple[Scored, Scored],
    classes: Sequence[str],
    rows: int,
) -> dict[str, list[float]]:
    """Return NannyML's estimates by metric, of the same rows and scores."""
    paths = {}
    for name, side in zip(("reference", "later"), sides, strict=True):
        frame = (
            side.features.copy() if stream.task == "regression" else pd.DataFrame(index=side.features.index)
        )
        if not classes:
            frame["y_true"], frame["y_pred"] = side.labels, side.scores[:, 0]
        elif len(classes) == 2:
            frame["y_true"], frame["p_1"] = side.labels.astype(int), side.scores[:, 0]
            frame["y_pred"] = (side.scores[:, 0] >= 0.5).astype(int)
        else:
            index = side.labels.astype(int)
            frame["y_true"] = np.where(index < 0, None, np.array(classes, dtype=object)[index])
            frame["y_pred"] = np.array(classes, dtype=object)[side.scores.argmax(axis=1)]
            for i, name_of in enumerate(classes):
                frame[f"p_{name_of}"] = side.scores[:, i]
        paths[name] = str(folder / f"{stream.name}-{name}.parquet")
        frame.to_parquet(paths[name], index=False)
    asked = {
        **paths,
        "task": stream.task,
        "metrics": list(BY_TASK[stream.task]),
        "classes": list(classes),
        "features": stream.features,
        "block_rows": rows,
    }
    command = [str(python), "-W", "ignore", str(HERE / "estimate_runners" / "nannyml_runner.py")]
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_S
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{stream.name}: NannyML {found['s']:.1f} s", file=sys.stderr, flush=True)
    values: dict[str, list[float]] = found["values"]
    return values


def measure(stream: Stream, count: int, python: Path | None, folder: Path) -> dict[str, dict[str, Any]]:
    reference, later, classes = score(stream)
    rows = len(later.labels) // count
    later = later.rows(slice(0, rows * count))
    blocks = [later.rows(slice(i * rows, (i + 1) * rows)) for i in range(count)]
    theirs = ask_peer(python, folder, stream, (reference, later), classes, rows) if python else {}
    found: dict[str, dict[str, Any]] = {}
    for metric in BY_TASK[stream.task]:
        start = time.perf_counter()
        made = estimates(metric, stream.task, reference, blocks)
        seconds = time.perf_counter() - start
        of = METRICS[metric].score
        real = [of(block.labels, block.scores) for block in blocks]
        settled = tracked(made, real)
        before = of(reference.labels, reference.scores)
        values = {"raywf": [e.value for e in made], "tracked": [e.value for e in settled]}
        values |= {"nannyml": theirs[metric]} if theirs else {}
        values["constant"] = [before] * count
        one = {name: mean_error(value, real) for name, value in values.items()}
        one |= {
            "covered": round(
                float(np.mean([e.low <= r <= e.high for e, r in zip(made, real, strict=True)])), 2
            ),
            "tracked_covered": round(
                float(np.mean([e.low <= r <= e.high for e, r in zip(settled, real, strict=True)])), 2
            ),
            "at_first": round(before, 4),
            "realised": [round(float(r), 4) for r in real],
            "s": round(seconds, 2),
        }
        print(f"{stream.name} {metric}: {one}", file=sys.stderr, flush=True)
        found[metric] = one
    return found


def mean_error(values: Sequence[float], real: Sequence[float]) -> float:
    if len(values) != len(real):
        raise RuntimeError(f"{len(values)} estimates of {len(real)} blocks")
    return round(float(np.mean(np.abs(np.array(values) - np.array(real)))), 5)


def summary(found: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the mean over streams and metrics of each error over the constant's, and how often each wins."""
    lines = [one for metrics in found.values() for one in metrics.values()]
    names = [n for n in ("raywf", "tracked", "nannyml") if all(n in one for one in lines)]
    result: dict[str, Any] = {
        f"{n}_of_constant": round(float(np.mean([one[n] / one["constant"] for one in lines])), 3)
        for n in names
    }
    if "nannyml" in names:
        result["raywf_of_nannyml"] = round(
            float(np.mean([one["raywf"] / one["nannyml"] for one in lines])), 3
        )
        result["no_worse_than_nannyml"] = sum(one["raywf"] <= one["nannyml"] for one in lines)
    return {**result, "figures": len(lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default=",".join(STREAMS), help="which, by name")
    parser.add_argument("--blocks", type=int, default=12, help="of the last two thirds")
    parser.add_argument("--no-peer", action="store_true", help="leave NannyML out")
    options = parser.parse_args()
    python, why = None, ""
    try:
        python = None if options.no_peer else peer_python(CACHE, "nannyml")
    except NotInstalled as err:
        why = str(err)
    with tempfile.TemporaryDirectory(prefix="rwf-estimate-") as folder:
        found = {
            name: measure(load(name), options.blocks, python, Path(folder))
            for name in options.streams.split(",")
        }
    print(json.dumps({**summary(found), "streams": found, **({"no_peer": why} if why else {})}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
