"""What windows are estimated by before labels come: near what labels say, in whatever order they came."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from raywf.core.codec import decode, encode
from raywf.core.metrics import METRICS, Array
from raywf.core.records import ColumnProfile, Evidence, Outcome, Prediction
from raywf.core.settings import MonitorSettings
from raywf.core.store import Store
from raywf.loop.expectations import keep_expectations, read_expectations
from raywf.monitor.checkpoint import Checkpoints
from raywf.monitor.drift import Codes, bin_values
from raywf.monitor.expectations import Expectations, fit_expectations
from raywf.monitor.fold import Fold
from raywf.monitor.reference import KnownReferences, Reference

START = datetime(2020, 1, 1, tzinfo=UTC)
PROFILE = ColumnProfile(name="x", kind="number", edges=(-1.0, 0.0, 1.0), counts=(16, 34, 34, 16))
SETTINGS = MonitorSettings(window=timedelta(days=1), min_labelled=20)
Drawn = tuple[Array, Array, Array]


def draw(rows: int, seed: int, *, task: str, middle: float = 0.0) -> Drawn:
    """Return features, labels and scores; a class is as likely as its score says, errors grow with x."""
    source = np.random.default_rng(seed)
    x = source.normal(middle, 1, rows)
    if task == "regression":
        return x, x + source.normal(0, 0.2 + 0.5 * (x > 0)), x[:, None]
    scores = 1 / (1 + np.exp(-2 * x))
    return x, (source.random(rows) < scores).astype(float), scores[:, None]


def bins(x: Array) -> Codes:
    return bin_values(x.tolist(), PROFILE)[:, None]


def fit(task: str) -> Expectations:
    x, labels, scores = draw(4000, 1, task=task)
    scale = 2.0 if task == "regression" else None
    metric = "mae" if task == "regression" else "roc_auc"
    return fit_expectations(metric, labels, scores, bins(x), profile=(PROFILE,), threshold=0.5, scale=scale)


def reference(task: str) -> Reference:
    return Reference(
        version="1",
        task=task,
        classes=() if task == "regression" else ("no", "yes"),
        loss_scale=2.0 if task == "regression" else None,
        profile=(PROFILE,),
        expectations=fit(task),
    )


def entries(drawn: Drawn, *, task: str, labelled: int) -> tuple[list[Prediction], list[Outcome]]:
    x, labels, scores = drawn
    said = [
        Prediction(
            id=f"{i}",
            time=START + timedelta(seconds=i),
            version="1",
            features={"x": float(v)},
            scores=(float(s[0]),),
        )
        for i, (v, s) in enumerate(zip(x, scores, strict=True))
    ]
    texts = labels.tolist() if task == "regression" else ["yes" if v else "no" for v in labels]
    came = START + timedelta(hours=12)
    return said, [Outcome(id=f"{i}", time=came, label=text) for i, text in enumerate(texts[:labelled])]


def fold(known: Reference) -> Fold:
    metric = "mae" if known.task == "regression" else "roc_auc"
    return Fold(SETTINGS, KnownReferences({"1": known}), metric=METRICS[metric])


def only(made: Fold) -> Evidence:
    (found,) = made.evidence("1")
    return found


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_window_is_estimated_before_its_labels(task: str) -> None:
    """Of inputs that moved, the metric and the loss are about what labels say later."""
    drawn = draw(3000, 2, task=task, middle=0.5)
    said, came = entries(drawn, task=task, labelled=3000)
    made = fold(reference(task))
    made.update(said)
    before = only(made)
    assert before.labelled == 0
    assert before.metric is None
    made.update(came)
    after = only(made)
    assert (after.estimate, after.estimated_loss) == (before.estimate, before.estimated_loss)
    assert after.metric is not None
    assert before.estimate == pytest.approx(after.metric, abs=0.03)
    assert before.estimate_low is not None
    assert before.estimate_high is not None
    assert before.estimate_low < before.estimate < before.estimate_high
    assert before.estimated_loss == pytest.approx(after.loss_sum / after.labelled, abs=0.02)
    assert before.estimated_error > 0


def test_few_rows_and_other_scores_are_not_estimated() -> None:
    """Nor what has no estimator."""
    said, _ = entries(draw(19, 3, task="binary"), task="binary", labelled=0)
    made = fold(reference("binary"))
    made.update(said)
    assert only(made).estimate is None
    odd = [dataclasses.replace(p, id=f"o{p.id}", scores=(0.2, 0.3, 0.5)) for p in said]
    made = fold(reference("binary"))
    made.update(odd + [dataclasses.replace(p, id=f"p{p.id}") for p in odd])
    assert only(made).estimated_loss is None
    made = fold(dataclasses.replace(reference("binary"), expectations=None))
    made.update(entries(draw(100, 3, task="binary"), task="binary", labelled=0)[0])
    assert only(made).estimate is None


def test_a_metric_that_is_not_estimated_leaves_the_loss() -> None:
    """As precision over ranks."""
    x, labels, scores = draw(500, 1, task="binary")
    made = fit_expectations(
        "average_precision", labels, scores, bins(x), profile=(PROFILE,), threshold=0.5, scale=None
    )
    figure, loss = made.estimate(bins(x), scores)
    assert figure is None
    assert loss is not None
    assert loss.value == pytest.approx(float(np.mean((scores[:, 0] - labels) ** 2)), abs=0.01)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_estimates_do_not_depend_on_the_order(task: str, tmp_path: Path) -> None:
    """Of the log, nor on a restart from a checkpoint."""
    said, came = entries(draw(200, 4, task=task), task=task, labelled=50)
    known = reference(task)
    whole = fold(known)
    whole.update([*said, *came])
    parts = fold(known)
    for one in (*came, *reversed(said), *said[:20]):
        parts.update([one])
        parts.evidence("1")
    assert parts.evidence("1") == whole.evidence("1")
    metric = "mae" if task == "regression" else "roc_auc"
    first = fold(known)
    first.update(said[:120])
    Checkpoints(tmp_path, SETTINGS, metric=METRICS[metric]).save(first.state, {}, {})
    source = KnownReferences({"1": known})
    found = Checkpoints(tmp_path, SETTINGS, metric=METRICS[metric]).load(source)
    assert found is not None
    again = Fold(SETTINGS, source, metric=METRICS[metric], state=found.state)
    again.update([*said[120:], *came])
    assert again.evidence("1") == whole.evidence("1")


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_expectations_are_kept_beside_their_sweep(task: str, tmp_path: Path) -> None:
    """And what is damaged is not there."""
    store, made = Store(str(tmp_path)), fit(task)
    assert read_expectations(store, "s") is None
    keep_expectations(store, "s", made)
    assert read_expectations(store, "s") == made
    assert decode(Expectations, encode(made)) == made
    store.write("sweeps/s/expectations.json", b"{")
    assert read_expectations(store, "s") is None


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_answers_and_labels_that_move_are_told(task: str) -> None:
    """Beside the rows that the version was judged by; of few rows nothing is."""
    known = reference(task)
    for middle, low, high in ((0.0, 0.0, 0.05), (1.5, 0.5, 9.0)):
        said, came = entries(draw(2000, 7, task=task, middle=middle), task=task, labelled=2000)
        folded = fold(known)
        folded.update([*said, *came])
        (found,) = folded.evidence("1")
        assert found.answers is not None
        assert found.labels is not None
        assert low <= found.answers.psi <= high
        assert low / 2 <= found.labels.psi <= high
    folded = fold(known)
    folded.update([*said[:10], *came[:5]])
    (few,) = folded.evidence("1")
    assert (few.answers, few.labels) == (None, None)
    assert decode(Expectations, encode(known.expectations)) == known.expectations
