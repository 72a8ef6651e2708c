"""One of several contenders leads, whatever their clocks and however they end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raywf.core import lease as module
from raywf.core.lease import Lease
from raywf.core.store import Store


class Clock:
    """Monotonic time that the test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_who_is_first_leads_and_stays(tmp_path: Path, clock: Clock) -> None:
    """As long as its beat is seen."""
    a, b = (Lease(str(tmp_path), "w", name, patience_s=15) for name in "ab")
    assert (a.leads(), b.leads()) == (True, False)
    for _ in range(100):
        clock.now += 4
        assert (a.leads(), b.leads(), b.leader) == (True, False, "a")


def test_another_takes_over_from_who_is_silent(tmp_path: Path, clock: Clock) -> None:
    """Not before it was patient; who was silent follows."""
    a, b = (Lease(str(tmp_path), "w", name, patience_s=15) for name in "ab")
    assert (a.leads(), b.leads()) == (True, False)
    clock.now += 14
    assert not b.leads()
    clock.now += 2
    assert b.leads()
    assert not a.leads()
    assert a.leader == "b"
    for _ in range(20):
        clock.now += 4
        assert (b.leads(), a.leads()) == (True, False)


def test_who_comes_again_under_its_name_goes_on_at_once(tmp_path: Path, clock: Clock) -> None:
    """As an actor that was killed and started again on its cluster."""
    first = Lease(str(tmp_path), "w", "a", patience_s=15)
    assert first.leads()
    again = Lease(str(tmp_path), "w", "a", patience_s=15)
    assert again.leads()
    other = Lease(str(tmp_path), "w", "b", patience_s=15)
    clock.now += 14
    assert not other.leads()
    clock.now += 14
    assert again.leads()  # its beat was never missed by the other for so long
    assert not other.leads()


def test_one_of_many_at_once_leads(tmp_path: Path) -> None:
    """At the start, and when the leader has gone."""
    contenders = [Lease(str(tmp_path), "w", f"c{i}", patience_s=0.4) for i in range(8)]
    barrier = threading.Barrier(len(contenders))

    def ask(one: Lease) -> bool:
        barrier.wait()
        return one.leads()

    gone: list[Lease] = []
    for _ in range(3):
        left = [c for c in contenders if c not in gone]
        barrier = threading.Barrier(len(left))
        with ThreadPoolExecutor(len(left)) as pool:
            led = list(pool.map(ask, left))
        leaders = [c for c, leads in zip(left, led, strict=True) if leads]
        assert len(leaders) == 1
        gone += leaders
        for one in left:
            if one not in leaders:
                assert not one.leads()
        time.sleep(0.5)


def test_few_terms_are_kept(tmp_path: Path, clock: Clock) -> None:
    """However often the lead changes; a workflow has a lease of its own."""
    for i in range(10):
        one = Lease(str(tmp_path), "w", f"c{i}", patience_s=15)
        one.leads()
        clock.now += 20
        assert one.leads()
    assert len(Store(str(tmp_path)).list("leases/w")) <= 2
    assert Lease(str(tmp_path), "v", "x").leads()
