"""What short fits without and with pairs of numbers say of the fits to come."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from raywf.core.records import Trial
from raywf.models.family import Problem, Rows
from raywf.search.pace import Pace, Probe, fit_seconds, pace_of, probe_fit
from raywf.search.portfolio import make_trial

PLAIN = Probe(rounds=100, taken=130, seconds=1.3, loss=0.5, cut=False)


def seconds(pace: Pace, **params: float) -> float:
    trial: Trial = make_trial("lightgbm", {"num_leaves": 50, **params})
    return fit_seconds(pace, trial.family, trial.params)


def test_rounds_cost_what_they_took() -> None:
    """Scaled up to the rows that the probe had not."""
    pace = pace_of(PLAIN, PLAIN, rows=3_000, probed=1_000)
    assert pace.round_s == pytest.approx(0.03)
    assert pace.of(1_500).round_s == pytest.approx(0.015)
    assert Pace(round_s=0.03, rounds=100).of(1_500).round_s == 0.03  # of rows that are not known


def test_a_probe_cut_short_would_have_gone_on() -> None:
    """For more rounds than it took."""
    cut = dataclasses.replace(PLAIN, cut=True)
    assert (
        pace_of(cut, PLAIN, rows=1_000, probed=1_000).rounds
        > pace_of(PLAIN, PLAIN, rows=1_000, probed=1_000).rounds
    )


def test_pairs_cost_and_gain() -> None:
    """The whole fit's time, and the share of the loss."""
    wide = Probe(rounds=150, taken=180, seconds=3.6, loss=0.4, cut=False)
    pace = pace_of(PLAIN, wide, rows=1_000, probed=1_000)
    assert pace.gain == pytest.approx(0.2)
    assert pace.wide == pytest.approx(3.0)
    assert seconds(pace, pairs=24) == pytest.approx(3.0 * seconds(pace))


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_probe_without_a_loss_says_nothing_of_pairs(loss: float) -> None:
    """What is kept of it is finite, and the usual is expected."""
    pace = pace_of(PLAIN, dataclasses.replace(PLAIN, loss=loss), rows=1_000, probed=1_000)
    assert (pace.gain, pace.wide) == (Pace(round_s=1, rounds=1).gain, Pace(round_s=1, rounds=1).wide)


def test_a_quotient_is_found_worth_it() -> None:
    """The probe of rows whose label is a quotient gains by pairs."""
    X = np.random.default_rng(0).uniform(1, 9, (1500, 4)).astype(np.float32)
    rows = Rows(X, (X[:, 0] / X[:, 1] > 1.1).astype(float))
    problem = Problem(task="binary", n_classes=2, sizes=(0,) * 4)
    plain, wide = (probe_fit(rows, problem, seconds=20.0, pairs=pairs) for pairs in (0, 8))
    assert pace_of(plain, wide, rows=1_000, probed=1_000).gain > 0.3
