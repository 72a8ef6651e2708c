"""What is served is what was trained, on five hundred tables of any kind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "models"))

from parity import Plan, check_parity, plans


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_bundles_answer_as_the_libraries(plan: Plan) -> None:
    """To 1e-5, or of the labels' spread."""
    check_parity(plan)
