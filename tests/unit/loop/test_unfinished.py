"""An interrupted search by hand is remembered, a finished one is not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from raywf.core.errors import SearchError
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.unfinished import interrupted_as_of, remembered

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


def test_nothing_to_resume(workflow: Workflow) -> None:
    """Neither before the first search nor after one that ended."""
    with pytest.raises(SearchError, match="no search of 'w' was interrupted; start one without --resume"):
        interrupted_as_of(workflow)
    interrupt(workflow, NOON)
    with remembered(workflow, NOON):
        pass
    with pytest.raises(SearchError, match="no search of 'w' was interrupted"):
        interrupted_as_of(workflow)
