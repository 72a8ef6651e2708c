"""What every model family keeps to, over every task."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, START, fit, make_labels, write

from raywf.core.errors import SearchError
from raywf.core.metrics import METRICS
from raywf.models.bundle import load_bundle
from raywf.models.families import _PLACES, family
from raywf.models.family import Problem, Rows

FAMILIES = sorted(_PLACES)
TASKS = sorted(CLASSES)
EVERY = pytest.mark.parametrize(("name", "task"), [(n, t) for n in FAMILIES for t in TASKS])
LEARNERS = [n for n in FAMILIES if n != "prior"]
ROW = {"size": 0.5, "empty": None, "lane": "n", "asked": START}


@EVERY
def test_loaded_bundle_answers_alike(name: str, task: str, written: Any) -> None:
    """What was written and loaded again predicts what the fitted model did."""
    fitted, bundle = written(name, task)
    found = load_bundle(bundle.uri, digest=bundle.digest).predict_table(fitted.table)
    assert found.shape == (len(fitted.rows.y), fitted.problem.width)
    np.testing.assert_allclose(found, fitted.model.predict(fitted.rows.X), atol=1e-5)


@EVERY
def test_scores_are_finite_and_probabilities(name: str, task: str, written: Any) -> None:
    """Missing values, a wholly missing column and missing instants notwithstanding."""
    fitted, _ = written(name, task)
    scores = fitted.model.predict(fitted.rows.X)
    assert np.isfinite(scores).all()
    if task == "multiclass":
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    if task != "regression":
        assert ((scores >= 0) & (scores <= 1)).all()


@EVERY
@pytest.mark.parametrize(
    "change", [{"lane": "never seen"}, {"lane": None}, {"size": None, "asked": None}, {"empty": 3.0}]
)
def test_unseen_values_get_an_answer(name: str, task: str, change: dict[str, Any], written: Any) -> None:
    """A category without a code, a missing value, a number where training had none."""
    predictor = load_bundle(written(name, task)[1].uri)
    assert np.isfinite(predictor.predict_row(ROW | change)).all()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", LEARNERS)
def test_learns_what_the_features_tell(name: str, task: str, written: Any) -> None:
    """It is closer to the labels than the prior."""
    fitted, prior = written(name, task)[0], written("prior", task)[0]
    metric = METRICS["rmse" if task == "regression" else "log_loss"]
    ours, theirs = (metric.loss(f.rows.y, f.model.predict(f.rows.X)) for f in (fitted, prior))
    assert ours < theirs


@pytest.mark.parametrize(("factor", "shift"), [(1e100, 0.0), (1e-40, 0.0), (1.0, 1e9)])
@pytest.mark.parametrize("name", LEARNERS)
def test_labels_of_any_scale(name: str, factor: float, shift: float, tmp_path: Path) -> None:
    """Huge, tiny or far from 0: what it learns of ordinary labels it learns of these, in the bundle too."""
    labels = make_labels("regression")
    fitted = fit(name, "regression", labels=labels * factor + shift)
    found = load_bundle(write(fitted, name, tmp_path / "b").uri).predict_table(fitted.table)
    errors = (found[:, 0] - shift) / factor - labels
    assert np.sqrt(np.mean(errors**2)) < 0.9 * labels.std()


@pytest.mark.parametrize("name", FAMILIES)
def test_class_absent_from_the_fold(name: str, tmp_path: Path) -> None:
    """A class that the rows lack keeps its column, with next to no probability, in the bundle too."""
    fitted = fit(name, "multiclass", keep=(0, 2))
    scores = load_bundle(write(fitted, name, tmp_path / "b").uri).predict_table(fitted.table)
    assert scores.shape[1] == 3
    assert scores[:, 1].max() < 0.34
    assert scores[:, 1].mean() < scores[:, [0, 2]].mean()


@pytest.mark.parametrize("keep", [(0,), (1,)])
@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "catboost"])
def test_fold_of_one_class(name: str, keep: tuple[int, ...]) -> None:
    """A binary fold may hold one class only: its probability is the greater one."""
    fitted = fit(name, "binary", keep=keep)
    scores = fitted.model.predict(fitted.rows.X)
    assert scores.shape == (len(fitted.rows.y), 1)
    assert ((scores > 0.5) == bool(keep[0])).all()


def test_catboost_refuses_one_class() -> None:
    """With an error that goes from process to process, as CatBoost's own does not."""
    with pytest.raises(ValueError, match="needs rows of two classes"):
        fit("catboost", "binary", keep=(1,))


MERGING = ["lightgbm", "xgboost", "catboost", "extratrees", "torch"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("name", "pairs"),
    [*((name, (0, 0, 0)) for name in MERGING), *((name, (2, 0, 5)) for name in MERGING if name != "torch")],
)
def test_merged_models_answer_as_their_mean(
    name: str, pairs: tuple[int, ...], task: str, tmp_path: Path
) -> None:
    """Raw scores are averaged (those of forests and nets are shares), one row as many, loaded again too.

    So it is for models that read other columns besides.
    """
    parts = [
        fit(name, task, seed=seed, params={"pairs": count} if count else None)
        for seed, count in enumerate(pairs)
    ]
    merged = family(name).merge([p.model for p in parts])
    assert merged is not None
    X = parts[0].rows.X
    wanted = np.mean([_raw(p.model.predict(X), name, task) for p in parts], axis=0)
    found = merged.predict(X)
    rtol = 1e-5 if name == "torch" else 1e-7  # single precision, in another order for other sizes
    np.testing.assert_allclose(_raw(found, name, task), wanted, rtol=rtol, atol=1e-6)
    alone = np.vstack([merged.predict(X[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, found[:20], rtol=rtol, atol=1e-6)
    merged.save(tmp_path)
    again = family(name).load(parts[0].problem, tmp_path)
    np.testing.assert_allclose(again.predict(X), found, atol=1e-12)


def _raw(scores: Any, name: str, task: str) -> Any:
    """Undo the link: logits, or log-probabilities less their mean."""
    if task == "regression" or name in {"extratrees", "torch"}:
        return scores
    if task == "binary":
        return np.log(scores / (1 - scores))
    logs = np.log(scores)
    return logs - logs.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost", "extratrees", "torch"])
def test_deadline_stops_a_fit(name: str) -> None:
    """Past its deadline a fit ends at once with what it has, which answers."""
    full = fit(name, "binary")
    start = time.monotonic()
    late = family(name).fit(
        type(full.problem)(task="binary", n_classes=2, sizes=full.problem.sizes, deadline=0.0),
        full.rows,
        {"n_estimators": 100_000} if name == "extratrees" else {},
        valid=None,
        rounds=100_000,
    )
    assert time.monotonic() - start < 5
    assert late.rounds < 100_000
    assert np.isfinite(late.predict(full.rows.X)).all()


def test_deadline_stops_a_long_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of much data it goes on by so many iterations, to where one go ends; past its deadline no more."""
    whole = fit("linear", "binary")
    monkeypatch.setattr("raywf.models.linear._MUCH", 0)
    monkeypatch.setattr("raywf.models.linear._AT_A_TIME", 2)
    pieces = fit("linear", "binary")
    X = whole.rows.X
    np.testing.assert_allclose(pieces.model.predict(X), whole.model.predict(X), atol=0.01)
    late = dataclasses.replace(whole.problem, deadline=0.0)
    cut = family("linear").fit(late, whole.rows, {}, valid=None, rounds=0)
    assert np.abs(cut.predict(X) - whole.model.predict(X)).max() > 0.01


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost", "torch"])
def test_stops_early_by_validation(name: str) -> None:
    """Labels without a pattern stop a long fit long before its bound."""
    fitted = fit(name, "binary")
    noise = Rows(fitted.rows.X, np.random.default_rng(3).permutation(make_labels("binary")))
    model = family(name).fit(fitted.problem, fitted.rows, {}, valid=noise, rounds=0)
    assert 1 <= model.rounds < 300


def cut(problem: Problem, after: int) -> Problem:
    """Return the problem with a deadline that passes once a fit has asked so often."""
    asked = itertools.count(1)

    class Cut(Problem):
        def is_over(self) -> bool:
            return next(asked) > after

    return Cut(**{f.name: getattr(problem, f.name) for f in dataclasses.fields(problem)})


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost"])
def test_a_fit_that_is_cut_ends_with_its_best(name: str) -> None:
    """Past the best round on the validation rows, and before it would stop by itself."""
    fitted = fit(name, "binary")
    noise = Rows(fitted.rows.X, np.random.default_rng(3).permutation(make_labels("binary")))
    whole = family(name).fit(fitted.problem, fitted.rows, {}, valid=noise, rounds=0)
    late = cut(fitted.problem, whole.rounds + 10)
    model = family(name).fit(late, fitted.rows, {}, valid=noise, rounds=0)
    assert model.rounds == whole.rounds


@pytest.mark.parametrize("name", LEARNERS)
def test_same_seed_same_model(name: str, written: Any) -> None:
    """Fitting again gives the same answers."""
    once, again = written(name, "binary")[0], fit(name, "binary")
    np.testing.assert_array_equal(once.model.predict(once.rows.X), again.model.predict(again.rows.X))


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_draw_the_answers(name: str, written: Any) -> None:
    """Rows of one class that count ten times as much raise its probability."""
    weights = np.where(make_labels("binary") > 0.5, 1.8, 0.18)
    plain, weighted = written(name, "binary")[0], fit(name, "binary", weights=weights)
    X = plain.rows.X
    assert weighted.model.predict(X).mean() > plain.model.predict(X).mean() + 0.01


@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "catboost", "linear", "torch", "prior"])
def test_a_quantile_lies_where_it_should(name: str) -> None:
    """The higher one above the lower one, with about so many labels below; kept in the bundle's way."""
    low, high = (fit(name, "regression", quantile=q) for q in (0.2, 0.8))
    below = [float((f.rows.y < f.model.predict(f.rows.X)[:, 0]).mean()) for f in (low, high)]
    assert below[0] < 0.5 < below[1]
    assert low.model.predict(low.rows.X).mean() < high.model.predict(high.rows.X).mean()


def test_unknown_family_names_the_nearest() -> None:
    """A typo is answered with the family that was meant."""
    with pytest.raises(SearchError, match="unknown model family 'lightgmb'; did you mean 'lightgbm'"):
        family("lightgmb")
