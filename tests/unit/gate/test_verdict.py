"""May the challenger replace the champion: a table of cases, and what holds in all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.metrics import METRICS, find_metric
from raywf.core.records import Verdict
from raywf.core.settings import GateSettings
from raywf.gate.verdict import GateBlock, judge


def binary(rows: int, *, ours: float, theirs: float, share: float = 0.4, seed: int = 0) -> GateBlock:
    """Two models whose logits hold so much of the truth."""
    draw = np.random.default_rng(seed)
    labels = (draw.uniform(size=rows) < share).astype(float)

    def scores(signal: float) -> np.ndarray:
        z = signal * (labels - 0.5) + draw.normal(size=rows)
        return (1 / (1 + np.exp(-z)))[:, None]

    return GateBlock(labels=labels, challenger=scores(ours), champion=scores(theirs), against="version 1")


def regression(rows: int, *, ours: float, theirs: float) -> GateBlock:
    """Two models that are off by so much."""
    draw = np.random.default_rng(0)
    labels = draw.normal(50, 10, rows)
    mine, other = (labels[:, None] + draw.normal(0, error, (rows, 1)) for error in (ours, theirs))
    return GateBlock(labels=labels, challenger=mine, champion=other, against="version 1", loss_scale=30.0)


def test_a_quantile_is_judged_as_one() -> None:
    """Though its absolute error is by design larger than the median's."""
    draw = np.random.default_rng(0)
    known, rest = draw.normal(50, 5, 2000), draw.normal(0, 10, 2000)
    block = GateBlock(
        labels=known + rest,
        challenger=(known + 12.8)[:, None],  # the 0.9 quantile of what is left
        champion=np.full((2000, 1), np.quantile(known + rest, 0.9)),
        against="baseline",
        loss_scale=30.0,
    )
    metric = find_metric("quantile_0.9")
    assert metric is not None
    assert judge(block, metric, GateSettings()).outcome == "accept"
    median = replace(block, champion=np.full((2000, 1), 50.0))
    assert judge(median, METRICS["mae"], GateSettings()).outcome == "reject"
    assert judge(median, metric, GateSettings()).outcome == "accept"


def multiclass(rows: int, *, ours: float, theirs: float) -> GateBlock:
    """Two models that give the true class so much more weight."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, rows)

    def scores(signal: float) -> np.ndarray:
        weight = draw.uniform(0.1, 1, (rows, 3))
        weight[np.arange(rows), labels] += signal
        return weight / weight.sum(axis=1, keepdims=True)

    return GateBlock(
        labels=labels.astype(float), challenger=scores(ours), champion=scores(theirs), against="version 1"
    )


def same(block: GateBlock) -> GateBlock:
    """The champion against itself."""
    return GateBlock(
        labels=block.labels,
        challenger=block.champion,
        champion=block.champion,
        against=block.against,
        loss_scale=block.loss_scale,
    )


def swap(block: GateBlock) -> GateBlock:
    """The champion as challenger."""
    return GateBlock(
        labels=block.labels,
        challenger=block.champion,
        champion=block.challenger,
        against=block.against,
        loss_scale=block.loss_scale,
    )


BETTER = {
    "roc_auc": binary(2000, ours=2.0, theirs=1.0),
    "log_loss": multiclass(1000, ours=2.0, theirs=0.5),
    "accuracy": multiclass(1000, ours=2.0, theirs=0.3),
    "rmse": regression(1000, ours=2.0, theirs=4.0),
    "r2": regression(1000, ours=2.0, theirs=4.0),
}


def decide(block: GateBlock, metric: str = "roc_auc", **settings: float) -> Verdict:
    """Judge with the default settings but for those given."""
    return judge(block, METRICS[metric], GateSettings(**settings))  # type: ignore[arg-type]


def test_each_model_decides_by_its_own_threshold() -> None:
    """A champion whose probabilities are half as large, and its threshold too, decides as the challenger."""
    block = binary(2000, ours=2.0, theirs=2.0)
    same = replace(block, champion=block.challenger / 2, thresholds=(0.5, 0.25))
    found = decide(same, "f1")
    assert found.challenger == found.champion
    assert decide(replace(same, thresholds=(0.5, 0.5)), "f1").champion < found.champion


def test_groups_are_resampled_whole() -> None:
    """Each group drawn is one of its own, with all its rows in it."""
    block = replace(regression(60, ours=2.0, theirs=4.0), groups=np.repeat(np.arange(12), 5))
    sample = block.resampled(np.random.default_rng(0))
    assert sample.groups is not None
    known = {tuple(part) for part in block.labels.reshape(12, 5)}
    assert {tuple(part) for part in sample.labels.reshape(12, 5)} <= known
    assert len(set(sample.groups.tolist())) == 12
    assert decide(block, "ndcg").metric == "ndcg"


@pytest.mark.parametrize("metric", BETTER)
def test_clearly_better_is_accepted(metric: str) -> None:
    """With the scores in the reason, and the gain's interval above 0."""
    verdict = decide(BETTER[metric], metric)
    assert verdict.outcome == "accept"
    assert verdict.checks[0].low > 0
    assert "better" in verdict.reason
    assert f"{verdict.challenger:.4f} against {verdict.champion:.4f}" in verdict.reason


@pytest.mark.parametrize("metric", BETTER)
def test_clearly_worse_is_rejected(metric: str) -> None:
    """The gain's interval lies below 0, or the loss surely rises."""
    verdict = decide(swap(BETTER[metric]), metric)
    assert verdict.outcome == "reject"
    assert verdict.checks[0].high < 0


@pytest.mark.parametrize("metric", BETTER)
def test_the_same_model_is_accepted(metric: str) -> None:
    """It is no worse, and newer."""
    verdict = decide(same(BETTER[metric]), metric)
    assert (verdict.outcome, verdict.checks[0].figure) == ("accept", 0)
    assert "no worse and newer" in verdict.reason


def test_not_shown_is_undecided() -> None:
    """Rows that resolve neither a gain nor a loss of the margin's size."""
    verdict = decide(binary(120, ours=1.0, theirs=1.05), margin=0.0)
    assert verdict.outcome == "undecided"
    assert "not shown" in verdict.reason
    assert verdict.checks[0].low < 0 < verdict.checks[0].high


@pytest.mark.parametrize("rows", [1, 49])
def test_too_few_rows_are_undecided(rows: int) -> None:
    """However good the challenger looks."""
    block = BETTER["rmse"]
    few = GateBlock(
        labels=block.labels[:rows],
        challenger=block.challenger[:rows],
        champion=block.champion[:rows],
        against="version 1",
        loss_scale=30.0,
    )
    verdict = decide(few, "rmse")
    assert (verdict.outcome, verdict.rows, verdict.checks) == ("undecided", rows, ())
    assert f"{rows} fresh labelled rows, the gate needs 50" in verdict.reason


@pytest.mark.parametrize("name", sorted(METRICS))
def test_no_rows_are_undecided(name: str) -> None:
    """By any metric: a retraining may find no row that is newer than the champion's."""
    none = GateBlock(labels=np.zeros(0), challenger=np.zeros((0, 1)), champion=np.zeros((0, 1)), against="1")
    assert decide(none, name).outcome == "undecided"


def test_one_class_is_undecided() -> None:
    """Without both classes there is no AUC."""
    verdict = decide(binary(500, ours=2.0, theirs=1.0, share=0.0))
    assert verdict.outcome == "undecided"
    assert "every class" in verdict.reason


def test_a_rare_class_does_not_spoil_the_interval() -> None:
    """Resamples that miss the only positives do not count."""
    block = binary(200, ours=1.0, theirs=1.0, share=0.0)
    block.labels[:2] = 1
    check = decide(block).checks[0]
    assert np.isfinite([check.low, check.high]).all()


def test_better_ranking_with_broken_probabilities_is_rejected() -> None:
    """The bounded loss has to hold too, not the metric alone."""
    block = BETTER["roc_auc"]
    sure = GateBlock(
        labels=block.labels, challenger=block.challenger**0.05, champion=block.champion, against="version 1"
    )
    verdict = decide(sure)
    assert verdict.checks[0].low > 0
    assert verdict.outcome == "reject"
    assert "the loss rises" in verdict.reason


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 2), st.floats(0.2, 2))
def test_deterministic(seed: int, ours: float, theirs: float) -> None:
    """The same rows give the same verdict, and never both directions accepted as better."""
    block = binary(150, ours=ours, theirs=theirs, seed=seed)
    assert decide(block) == decide(block)
    assert not (decide(block).checks[0].low > 0 and decide(swap(block)).checks[0].low > 0)
