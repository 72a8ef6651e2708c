"""A search's clock: what is allowed, what was taken, and what an interrupted search has left."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from raywf.core.errors import SettingsError
from raywf.core.records import Attempt, Rate
from raywf.core.settings import SearchSettings
from raywf.search.budget import Budget, allowed_seconds, count_slots
from raywf.search.ledger import Ledger

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def attempt(wall_s: float, *, hours: int = 0) -> Attempt:
    started = NOON + timedelta(hours=hours)
    return Attempt(workflow="w", started=started, wall_s=wall_s, cpu_s=2 * wall_s, cost_usd=0.1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger."""
    return Ledger(str(tmp_path), "sweep")


def test_money_without_a_price_is_refused() -> None:
    """A bound that cannot be kept is not passed over."""
    with pytest.raises(SettingsError, match=r"search.max_usd bounds .* where its plan has a rate"):
        allowed_seconds(SearchSettings(max_usd=1.0), None, cpus=2)


def test_what_is_free_is_not_bounded_by_money() -> None:
    """Nodes of one's own may cost nothing."""
    assert allowed_seconds(SearchSettings(max_usd=1.0), Rate(usd_per_cpu_hour=0.0), cpus=2) == 60


@pytest.mark.parametrize(("most", "slots"), [(None, 4), (3, 3), (9, 4)])
def test_slots_are_of_whole_trials(most: int | None, slots: int) -> None:
    """Nine CPUs are four trials of two, or fewer where the settings say so."""
    assert count_slots(SearchSettings(trial_cpus=2, max_concurrent=most), cpus=9) == slots


def test_an_attempt_is_noted_in_place(ledger: Ledger) -> None:
    """The last note of each attempt counts, the first attempt comes first."""
    for made in (attempt(5, hours=1), attempt(1), attempt(3)):
        ledger.note(made)
    assert [a.wall_s for a in ledger.attempts()] == [3, 5]


def test_an_interrupted_search_has_the_rest(ledger: Ledger) -> None:
    """What its attempts took counts; what this one takes is priced by the CPUs that it occupies."""
    ledger.note(attempt(40))
    budget = Budget(ledger, 60.0, 2, workflow="w", rate=Rate(usd_per_cpu_hour=3600.0))
    assert budget.left_s == pytest.approx(20, abs=1)
    budget.note(at_once=True)
    first, second = ledger.attempts()
    assert (first.wall_s, second.workflow) == (40, "w")
    assert second.cost_usd == pytest.approx(2 * second.wall_s)


def test_a_note_that_is_refused_is_made_good(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may be away for a minute, not for longer; each refusal has its own."""
    now, store = [1000.0], Path(ledger.root)
    monkeypatch.setattr("raywf.search.budget.time", SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    budget = Budget(ledger, 60.0, 2)
    for _ in range(2):
        (store / "sweeps").write_text("in the way")
        budget.note(at_once=True)
        now[0] += 50
        budget.note(at_once=True)
        (store / "sweeps").unlink()
        budget.note(at_once=True)
        assert len(ledger.attempts()) == 1
        shutil.rmtree(store / "sweeps")
    (store / "sweeps").write_text("in the way")
    budget.note(at_once=True)
    now[0] += 61
    with pytest.raises(OSError, match="sweeps"):
        budget.note(at_once=True)
