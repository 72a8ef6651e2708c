"""An interrupted search by hand is remembered, a finished one is not."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raywf.core.clock import format_time
from raywf.core.errors import SearchError
from raywf.core.journal import BY_HAND, Journal
from raywf.core.records import Decision
from raywf.core.settings import SearchSettings, SpineSettings, StoreSettings, Workflow
from raywf.loop.pipeline import _sweep_id
from raywf.loop.unfinished import RUN, interrupted_as_of, interrupted_run, remembered
from raywf.search.ledger import Ledger
from raywf.testing import make_sweep

NOON = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A workflow with a store of its own."""
    root = StoreSettings(root=str(tmp_path))
    return Workflow(name="w", task="binary", spine=SpineSettings(path="a.csv", label="y"), stores=root)


def interrupt(workflow: Workflow, as_of: datetime | None) -> None:
    """Begin a search and break it off."""
    with pytest.raises(KeyboardInterrupt), remembered(workflow, as_of):
        raise KeyboardInterrupt


@pytest.mark.parametrize("as_of", [NOON, None])
def test_an_interrupted_search_comes_back(workflow: Workflow, as_of: datetime | None) -> None:
    """With the instant that it looked from, to the microsecond."""
    interrupt(workflow, as_of)
    assert interrupted_as_of(workflow) == as_of


def test_an_interrupted_run_comes_back(workflow: Workflow) -> None:
    """The newest by the wall's clock, whatever it looked from, unless it came to its end."""
    journal = Journal(workflow.stores.root, workflow.name)
    older, newer = (
        Decision(
            id=name,
            workflow="w",
            kind="retrain",
            cause=BY_HAND,
            window=format_time(NOON + timedelta(hours=hours)),
            reasons=RUN,
            time=NOON - timedelta(days=hours),
        )
        for name, hours in (("older", 1), ("newer", 2))
    )
    with pytest.raises(SearchError, match="no run of 'w' was interrupted; start one without --resume"):
        interrupted_run(workflow)
    for decision in (newer, older, dataclasses.replace(newer, id="job", reasons=("raywf job submit",))):
        journal.decide(decision)
    assert interrupted_run(workflow) == newer
    journal.record(newer, "searched")
    assert interrupted_run(workflow) == newer
    journal.record(newer, "rollout")
    with pytest.raises(SearchError, match="no run of 'w' was interrupted"):
        interrupted_run(workflow)


def test_nothing_to_resume(workflow: Workflow) -> None:
    """Neither before the first search nor after one that ended."""
    with pytest.raises(SearchError, match="no search of 'w' was interrupted; start one without --resume"):
        interrupted_as_of(workflow)
    interrupt(workflow, NOON)
    with remembered(workflow, NOON):
        pass
    with pytest.raises(SearchError, match="no search of 'w' was interrupted"):
        interrupted_as_of(workflow)


@pytest.mark.parametrize("as_of", [NOON, None])
def test_each_search_is_remembered_by_itself(workflow: Workflow, as_of: datetime | None) -> None:
    """Another one that ends well meanwhile, from another instant or with other settings, leaves it."""
    interrupt(workflow, as_of)
    other = dataclasses.replace(workflow, search=SearchSettings(seed=1))
    later = as_of + timedelta(hours=1) if as_of else None
    with remembered(other, later):
        assert interrupted_as_of(workflow) == later  # the newest
    assert interrupted_as_of(workflow) == as_of
    with remembered(dataclasses.replace(workflow, search=SearchSettings(budget_s=9.0)), as_of, resumes=True):
        pass
    with pytest.raises(SearchError, match="no search of 'w' was interrupted"):
        interrupted_as_of(workflow)


def test_what_was_taken_up_has_ended_though_settings_were_changed(workflow: Workflow) -> None:
    """The search began anew, and nobody asks for the former one again."""
    interrupt(workflow, None)
    changed = dataclasses.replace(workflow, search=SearchSettings(seed=1))
    with remembered(changed, interrupted_as_of(changed), resumes=True):
        pass
    with pytest.raises(SearchError, match="no search of 'w' was interrupted"):
        interrupted_as_of(workflow)


def test_a_search_goes_on_within_other_bounds(workflow: Workflow) -> None:
    """The id stays while it is not done; what has ended within other bounds is another search."""

    def search_id(**settings: Any) -> str:
        return _sweep_id(dataclasses.replace(workflow, search=SearchSettings(**settings)), "s", "full")

    first = search_id(budget_s=60)
    assert search_id(budget_s=60, seed=1) != first
    assert search_id(budget_s=120, max_usd=0.5, max_concurrent=3) == first
    Ledger(workflow.stores.root, first).write_sweep(make_sweep(first))
    assert search_id(budget_s=60) != first  # it ended within the bounds that it had last
    assert search_id(budget_s=120, max_usd=0.5, max_concurrent=3) == first
    second = search_id(budget_s=300)
    assert second not in {first, search_id(budget_s=60, seed=1)}
    assert search_id(budget_s=400) == second  # as the first, it goes on
    Ledger(workflow.stores.root, second).write_sweep(make_sweep(second))
    assert search_id(budget_s=400) == second
    assert search_id(budget_s=300) not in {first, second}
