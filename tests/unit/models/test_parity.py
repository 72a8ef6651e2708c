"""What is served is what was trained, on tables of any kind."""

from __future__ import annotations

from hypothesis import given, settings
from parity import Plan, check_parity, plans


@settings(max_examples=40, deadline=None, derandomize=True)
@given(plans())
def test_bundles_answer_as_the_libraries(plan: Plan) -> None:
    """To 1e-5, or of the labels' spread; `tests/e2e/test_parity.py` tries ten times as many."""
    check_parity(plan)
