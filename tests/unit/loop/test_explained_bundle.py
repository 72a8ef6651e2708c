"""A search that registers nothing is explained by its own bundle, whatever else was searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from raywf.core.errors import SearchError
from raywf.core.records import Bundle
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.explain import Subject, _load
from raywf.search.ledger import Ledger
from raywf.testing import make_sweep, small_bundle


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    """A workflow with a store of its own."""
    root = StoreSettings(root=str(tmp_path))
    return Workflow(name="w", task="binary", spine=SpineSettings(path="a.csv", label="y"), stores=root)


def write(workflow: Workflow, sweep_id: str, seed: int) -> Bundle:
    """Write a search's bundle where such a search does."""
    return small_bundle(Ledger(workflow.stores.root, sweep_id).bundles / "final", seed=seed, rounds=3)


def test_each_search_of_a_snapshot_has_its_bundle(workflow: Workflow, tmp_path: Path) -> None:
    """Other settings lead to another sweep, which leaves the first one's bundle as it is."""
    made = {name: write(workflow, name, seed) for seed, name in enumerate(("one", "two"))}
    for name, bundle in made.items():
        subject = Subject(make_sweep(name, members=bundle.members), None)
        assert _load(workflow, subject, tmp_path).bundle.digest == bundle.digest
    with pytest.raises(SearchError, match="the bundle of sweep three is neither registered nor in the store"):
        _load(workflow, Subject(make_sweep("three"), None), tmp_path)
