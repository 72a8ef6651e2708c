"""A training that a backtest has, at another price."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from raywf.core.records import Rate
from raywf.loop.backtest.trainings import Training
from raywf.testing import make_sweep, small_bundle


@pytest.mark.parametrize(
    ("former", "cost", "usd"),
    [(Rate(usd_per_cpu_hour=0.5), 3.0, 6.0), (Rate(usd_per_cpu_hour=1.0), 3.0, 3.0), (None, 3.0, 3.0)],
)
def test_a_training_costs_what_it_would_now(
    tmp_path: Path, former: Rate | None, cost: float, usd: float
) -> None:
    """By the prices of CPUs; where none is kept, what it cost."""
    bundle = small_bundle(tmp_path / "b")
    sweep = make_sweep("s", cpu_s=7200, cost_usd=cost)
    made = Training(
        id="t",
        as_of=datetime(2024, 1, 1, tzinfo=UTC),
        sweep=sweep,
        proof=bundle,
        final=bundle,
        gate_rows=(),
        maturity_s=0.0,
        final_cpu_s=3600,
        rate=former,
    )
    found = made.priced(Rate(usd_per_cpu_hour=1.0))
    assert found.sweep.cost_usd == pytest.approx(usd)
    assert found.refused_usd == pytest.approx(usd / 2)
