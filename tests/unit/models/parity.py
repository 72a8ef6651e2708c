"""Random tables and ensembles on them, beside what the libraries that fitted them predict themselves."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import catboost as cb
import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
import torch
import xgboost as xgb
from hypothesis import strategies as st
from sklearn.ensemble._forest import BaseForest
from sklearn.linear_model import LogisticRegression, Ridge

from raywf.core.records import Bundle, Column, Member
from raywf.models import catboost, xgboost
from raywf.models.bundle import Draft, Predictor, load_bundle, write_bundle
from raywf.models.calibration import Calibration
from raywf.models.design import activate
from raywf.models.encoding import Encoder, fit_encoder
from raywf.models.extratrees import _MISSING
from raywf.models.families import family, traits
from raywf.models.family import Problem, Rows
from raywf.models.linear import _ABSENT
from raywf.models.pairs import unwrap
from raywf.models.scale import find_scale, label_scale
from raywf.models.torchnet import soften

TASKS = ("binary", "multiclass", "regression")
START = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = ["", " ", "a", "ä", "日本", "🙂", "0", "1.0", "x" * 50, "true", "\n", "nan"]
FLAVOURS = (
    "normal",
    "huge",
    "tiny",
    "whole",
    "border",
    "infinite",
    "constant",
    "empty",
    "few",
    "many",
    "instant",
)
PAIRS = st.sampled_from([0, 0, 3, 20])
SETTINGS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "lightgbm": st.fixed_dictionaries(
        {
            "num_leaves": st.integers(2, 31),
            "min_data_in_leaf": st.integers(1, 20),
            "extra_trees": st.booleans(),
            "learning_rate": st.sampled_from([0.02, 0.3]),
            "feature_fraction": st.sampled_from([0.4, 1.0]),
            "lambda_l1": st.sampled_from([0.0, 1.0]),
            "pairs": PAIRS,
        }
    ),
    "xgboost": st.fixed_dictionaries(
        {
            "max_depth": st.integers(1, 6),
            "min_child_weight": st.sampled_from([0.0, 1.0, 4.0]),
            "max_cat_to_onehot": st.sampled_from([1, 8]),
            "subsample": st.sampled_from([0.6, 1.0]),
            "grow_policy": st.sampled_from(["depthwise", "lossguide"]),
            "pairs": PAIRS,
        }
    ),
    "catboost": st.fixed_dictionaries(
        {
            "depth": st.integers(1, 8),
            "one_hot_max_size": st.sampled_from([2, 15, 255]),
            "leaf_estimation_iterations": st.sampled_from([1, 3]),
            "pairs": PAIRS,
        }
    ),
    "extratrees": st.fixed_dictionaries(
        {
            "min_samples_leaf": st.integers(1, 10),
            "max_features": st.sampled_from(["sqrt", 0.5, 1.0]),
            "pairs": PAIRS,
        }
    ),
    "linear": st.fixed_dictionaries(
        {"C": st.sampled_from([0.01, 1.0]), "alpha": st.sampled_from([0.1, 30.0])}
    ),
    "torch": st.fixed_dictionaries(
        {"hidden": st.lists(st.integers(1, 12), min_size=1, max_size=2), "lr": st.sampled_from([1e-3, 1e-2])}
    ),
}
ROUNDS = {"lightgbm": 5, "xgboost": 5, "catboost": 5, "extratrees": 7, "torch": 1}


@dataclass(frozen=True)
class Plan:
    """One example, as drawn: `folds` are the models merged into the member of the same place, 1 for none.

    With `early` fits stop by rows that they do not see.
    """

    task: str
    rows: int
    flavours: list[str]
    missing: float
    members: list[tuple[str, dict[str, Any]]]
    folds: list[int]
    weights: list[float]
    calibration: Calibration | None
    exponent: int
    offset: float
    absent: bool
    early: bool
    seed: int


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw an example."""
    task = draw(st.sampled_from(TASKS))
    names = draw(st.lists(st.sampled_from(sorted(SETTINGS)), min_size=1, max_size=3))
    calibration = st.none() | st.builds(
        Calibration,
        slope=st.floats(0.7, 1.6),
        shift=st.floats(-0.5, 0.5) if task == "binary" else st.just(0.0),
    )
    weights = draw(st.lists(st.integers(1, 9), min_size=len(names), max_size=len(names)))
    return Plan(
        task=task,
        rows=draw(st.integers(20, 300)),
        flavours=draw(st.lists(st.sampled_from(FLAVOURS), min_size=1, max_size=6)),
        missing=draw(st.sampled_from([0.0, 0.05, 0.5, 0.95])),
        members=[(name, draw(SETTINGS[name])) for name in names],
        folds=draw(st.lists(st.integers(1, 3), min_size=len(names), max_size=len(names))),
        weights=[w / sum(weights) for w in weights],
        calibration=None if task == "regression" else draw(calibration),
        exponent=draw(st.sampled_from([-40, -9, 0, 0, 3, 9, 40, 100])),
        offset=draw(st.sampled_from([0.0, 1.0, 1e3, 1e6])),
        absent=draw(st.booleans()),
        early=draw(st.booleans()),
        seed=draw(st.integers(0, 10_000)),
    )


def column(flavour: str, rows: int, rng: np.random.Generator) -> Any:
    """Return values of a flavour."""
    x = rng.normal(size=rows)
    numbers = {
        "normal": lambda: x,
        "huge": lambda: x * 10.0 ** rng.integers(20, 300),
        "tiny": lambda: x * 10.0 ** -rng.integers(20, 300),
        "whole": lambda: rng.integers(-3, 4, rows) * 1.0,
        "border": lambda: np.nextafter(np.float32(1 + rng.integers(0, 3)), rng.choice([0, 9], rows)).astype(
            float
        ),
        "infinite": lambda: np.where(rng.random(rows) < 0.2, np.copysign(np.inf, x), x),
        "constant": lambda: np.full(rows, 7.5),
        "empty": lambda: np.full(rows, np.nan),
    }
    if flavour in numbers:
        return numbers[flavour]()
    if flavour == "instant":
        return [START + timedelta(hours=int(h)) for h in rng.integers(-200_000, 600_000, rows)]
    return [
        NAMES[i] if flavour == "few" else f"n{i}é"
        for i in rng.integers(0, 12 if flavour == "few" else 400, rows)
    ]


def make_table(plan: Plan, rng: np.random.Generator) -> tuple[pa.Table, tuple[Column, ...]]:
    """Return the rows and their columns; each value is missing with the plan's share."""
    kinds = {"few": "category", "many": "category", "instant": "time"}
    types = {"category": pa.string(), "time": pa.timestamp("us", "UTC"), "number": pa.float64()}
    columns, arrays = [], {}
    for i, flavour in enumerate(plan.flavours):
        kind = kinds.get(flavour, "number")
        columns.append(Column(name=f"c{i}", kind=kind))  # type: ignore[arg-type]
        gone = rng.random(plan.rows) < plan.missing
        arrays[f"c{i}"] = pa.array(column(flavour, plan.rows, rng), types[kind], mask=gone)
    return pa.table(arrays), tuple(columns)


def make_labels(plan: Plan, X: Any, rng: np.random.Generator) -> Any:
    """Return labels that the first columns tell something about."""
    signal = np.nan_to_num(X / np.maximum(1e-30, np.nanmax(np.abs(np.nan_to_num(X)), axis=0))).sum(axis=1)
    signal = signal + 0.5 * rng.normal(size=len(X))
    if plan.task == "regression":
        return (signal + plan.offset) * 10.0**plan.exponent
    classes = 2 if plan.task == "binary" else 4
    labels = np.searchsorted(np.quantile(signal, np.arange(1, classes) / classes), signal)
    if plan.absent:
        labels = np.where(labels == 1, 0, labels)
    return labels.astype(float)


class Recorder:
    """The libraries' own fitted models, in the order of their fits."""

    def __init__(self) -> None:
        self.models: list[Any] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what is fitted within the block."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (lgb, xgb):
                patch.setattr(module, "train", self._returned(module.train))
            for kind, method in ((cb.CatBoost, "fit"), (LogisticRegression, "fit"), (Ridge, "fit")):
                patch.setattr(kind, method, self._called(getattr(kind, method)))
            patch.setattr(BaseForest, "fit", self._called(BaseForest.fit))
            patch.setattr(torch.nn.Sequential, "__init__", self._called(torch.nn.Sequential.__init__))
            yield

    def _returned(self, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.models.append(function(*args, **kwargs))
            return self.models[-1]

        return call

    def _called(self, method: Any) -> Any:
        @functools.wraps(method)
        def call(owner: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.models or self.models[-1] is not owner:
                self.models.append(owner)
            return method(owner, *args, **kwargs)

        return call


def library_raw(name: str, made: Any, model: Any, problem: Problem, rows: Rows, X: Any) -> Any:
    """Return what the library itself answers: raw scores ``(n_rows, width)``, a forest's as shares."""
    scale = label_scale(problem, rows.y)
    seen = np.zeros(0, int) if problem.task == "regression" else np.unique(rows.y).astype(int)
    if name == "lightgbm":
        raw = made.predict(X, raw_score=True, num_iteration=model.rounds)
    elif name == "xgboost":
        matrix = xgboost._matrix(Rows(X, np.zeros(len(X))), problem, scale=type(scale)())
        raw = made[: model.rounds].predict(matrix, output_margin=True)
    elif name == "catboost":
        raw = made.predict(catboost._features(X, problem), prediction_type="RawFormulaVal")
        return (
            _all_classes(np.asarray(raw), problem, seen, absent=catboost._ABSENT) * scale.spread
            + scale.center
        )
    elif name == "extratrees":
        filled = np.where(np.isnan(X), np.float32(_MISSING), X)
        raw = made.predict(filled) if problem.task == "regression" else made.predict_proba(filled)
        if problem.task == "binary":
            raw = raw[:, list(made.classes_).index(1)] if 1 in made.classes_ else np.zeros(len(X))
        elif problem.task == "multiclass":
            full = np.zeros((len(X), problem.width))
            full[:, made.classes_] = raw
            raw = full
    elif name == "linear":
        dense = model.design.transform(X)
        raw = made.predict(dense) if problem.task == "regression" else made.decision_function(dense)
        raw = _all_classes(np.asarray(raw), problem, seen, absent=_ABSENT)
    else:
        with torch.no_grad():
            raw = made(torch.from_numpy(soften(model.design.transform(X)))).numpy()
        scale = find_scale(rows.y) if problem.task == "regression" else scale
    return np.asarray(raw, np.float64).reshape(len(X), -1) * scale.spread + scale.center


def _all_classes(raw: Any, problem: Problem, seen: Any, *, absent: float) -> Any:
    """Spread the raw scores of the classes that were seen over all classes."""
    if problem.task != "multiclass":
        return raw.reshape(len(raw), -1)
    if raw.ndim == 1 or raw.shape[1] == 1:
        raw = np.column_stack([-raw.ravel(), raw.ravel()]) / 2
    full = np.full((len(raw), problem.width), absent)
    full[:, seen] = raw
    return full


@dataclass(frozen=True)
class Outcome:
    """An ensemble and what the libraries say: `wanted` are their scores, `unit` the spread of the labels."""

    predictor: Predictor
    table: pa.Table
    wanted: Any
    unit: float


def fit_plan(plan: Plan, folder: Path) -> Outcome | None:
    """Fit, write and load an ensemble; None where no member could be fitted on such rows."""
    rng = np.random.default_rng(plan.seed)
    table, columns = make_table(plan, rng)
    cut = max(15, plan.rows * 3 // 4)
    encoder = fit_encoder(table.slice(0, cut), columns)
    X = encoder.table(table)
    labels = make_labels(plan, X, rng)
    n_classes = {"binary": 2, "multiclass": 4, "regression": 0}[plan.task]
    problem = Problem(task=plan.task, n_classes=n_classes, sizes=encoder.sizes, seed=plan.seed)
    models, weights, wanted = [], [], np.zeros((len(X), problem.width))
    for (name, params), folds, weight in zip(plan.members, plan.folds, plan.weights, strict=True):
        rows = Rows(X[:cut], labels[:cut])
        valid = Rows(X[cut:], labels[cut:]) if plan.early and cut < plan.rows else None
        found = _member((name, params, folds), problem, rows, X, valid=valid)
        if found is not None:
            models.append(found[0])
            weights.append((name, weight))
            wanted += weight * found[1]
    if not models:
        return None
    if plan.calibration is not None:
        wanted = plan.calibration.apply(wanted)
    loaded = _written(plan, table, encoder, models, weights, folder)
    unit = find_scale(labels[:cut]).spread if plan.task == "regression" else 1.0
    return Outcome(loaded, table, wanted, unit)


def _member(
    wanted: tuple[str, dict[str, Any], int], problem: Problem, rows: Rows, X: Any, *, valid: Rows | None
) -> tuple[Any, Any] | None:
    """Return a member and what its library answers; None if CatBoost refuses the rows, as it may."""
    name, params, folds = wanted
    made, parts, raws = family(name), [], []
    folds = folds if traits(name).merges else 1
    for fold in range(folds):
        index = (
            np.flatnonzero(np.arange(len(rows.y)) % folds != fold) if folds > 1 else np.arange(len(rows.y))
        )
        part, recorder = rows.take(index), Recorder()
        try:
            with recorder.listening():
                model = made.fit(problem, part, dict(params), valid=valid, rounds=ROUNDS.get(name, 0))
        except ValueError as err:
            if name == "catboost" and ("two classes" in str(err) or "constant" in str(err)):
                return None
            raise
        if not recorder.models:  # a linear model of one class is none of the library's
            return None
        parts.append(model)
        inner, pairs = unwrap(model)
        wide = replace(problem, sizes=problem.sizes + (0,) * len(pairs))
        part = replace(part, X=pairs.widen(part.X))
        raws.append(library_raw(name, recorder.models[-1], inner, wide, part, pairs.widen(X)))
    model = parts[0] if folds == 1 else made.merge(parts)
    if name == "extratrees":
        return model, np.mean(raws, axis=0)
    if name == "torch":  # shares are averaged, not what they are made of
        return model, np.mean([activate(raw, problem.task) for raw in raws], axis=0)
    return model, activate(np.mean(raws, axis=0), problem.task)


def _written(
    plan: Plan,
    table: pa.Table,
    encoder: Encoder,
    models: list[Any],
    weights: list[tuple[str, float]],
    folder: Path,
) -> Predictor:
    members = tuple(Member(trial_id=n, family=n, params={}, rounds=0, weight=w) for n, w in weights)
    bundle = Bundle(
        uri="",
        digest="",
        task=plan.task,
        columns=encoder.columns,
        classes={"binary": ("n", "y"), "multiclass": ("a", "b", "c", "d"), "regression": ()}[plan.task],
        members=members,
        snapshot_id="s",
        fitted_until=None,
        loss_scale=None,
    )
    draft = Draft(
        bundle=bundle,
        encoder=encoder,
        models=tuple(models),
        calibration=plan.calibration,
        reference=table[:5],
    )
    return load_bundle(write_bundle(draft, folder / "b").uri)


def check_parity(plan: Plan) -> None:
    """Compare the loaded bundle with the libraries: batch, any order, one by one, and rows as dicts."""
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        outcome = fit_plan(plan, Path(folder))
    if outcome is None:
        return
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * outcome.unit)
    table, predictor, wanted = outcome.table, outcome.predictor, outcome.wanted
    found = predictor.predict_table(table)
    assert np.isfinite(found).all()
    close(found, wanted)
    order = np.random.default_rng(plan.seed).permutation(table.num_rows)
    close(predictor.predict_table(table.take(pa.array(order))), wanted[order])
    rows = table.to_pylist()
    close(predictor.predict_rows(rows), found)
    close([predictor.predict_row(row) for row in rows[:40]], found[:40])
