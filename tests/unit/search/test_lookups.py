"""Tune's registry is asked once for what it has, and is as it was afterwards."""

from __future__ import annotations

import pytest
from ray.tune import registry

from raywf.search.lookups import looked_up_once

CLASS = registry.TRAINABLE_CLASS


def test_what_is_registered_is_found_once_and_anew_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster too; what is not there is asked for again."""
    asked = registry._global_registry
    monkeypatch.setattr(asked, "_to_flush", {})
    with looked_up_once():
        assert not asked.contains(CLASS, "one")
        asked.register(CLASS, "one", ["first"])
        found = asked.get(CLASS, "one")
        assert found == ["first"]
        assert asked.get(CLASS, "one") is found
        assert asked.contains(CLASS, "one")
        asked.register(CLASS, "one", ["second"])
        assert asked.get(CLASS, "one") == ["second"]
    assert asked.get(CLASS, "one") is not asked.get(CLASS, "one")


def test_another_tune_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that keeps its registry elsewhere."""
    monkeypatch.delattr(registry, "_global_registry")
    with looked_up_once():
        pass
