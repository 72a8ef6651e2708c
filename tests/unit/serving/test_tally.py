"""A replica's requests by version and window, as records that only grow."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.service import Service
from raywf.outcomes import LogReader, LogWriter
from raywf.serving.tally import Tallies, write_tallies

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
NOON = MIDNIGHT + DAY / 2


class Hands:
    """A wall clock and a process' used CPU time, turned by the test."""

    def __init__(self, cpus: float = 0.0) -> None:
        self.wall, self.used = 100.0, 5.0
        self.tallies = Tallies(DAY, cpus=cpus, wall=lambda: self.wall, used=lambda: self.used)


def test_requests_lie_in_the_windows_of_their_rows() -> None:
    """By version; each record has all that was counted so far, one that did not grow is not told again."""
    tallies = Hands().tallies
    for when in (NOON, NOON, NOON + DAY):
        tallies.answered("1", when, 0.001)
    tallies.answered("2", NOON, 0.5)
    first = tallies.tell()
    told = [(s.version, s.time, s.answered, s.times) for s in first]
    fast, slow = {-80: 1}, {-8: 1}
    assert told == [
        ("1", MIDNIGHT, 2, {-80: 2}),
        ("1", MIDNIGHT + DAY, 1, fast),
        ("2", MIDNIGHT, 1, slow),
    ]
    assert tallies.tell(everything=True) == []
    tallies.answered("1", NOON, 0.001)
    (more,) = tallies.tell()
    assert (more.id, more.answered) == (first[0].id, 3)
    assert more.progress > first[0].progress


def test_a_request_without_an_answer_lies_where_the_last_answer_was() -> None:
    """Its rows may not even have a time; of a version that answered nothing it lies in the present window."""
    tallies = Hands().tallies
    tallies.answered("1", NOON - 10 * DAY, 0.001)
    tallies.troubled("1", "refused", NOON)
    tallies.troubled("1", "failed", NOON)
    tallies.troubled("2", "failed", NOON)
    told = [(s.version, s.time, s.answered, s.refused, s.failed) for s in tallies.tell()]
    assert told == [("1", MIDNIGHT - 10 * DAY, 1, 1, 1), ("2", MIDNIGHT, 0, 0, 1)]


def test_held_cpus_are_shared_by_requests() -> None:
    """From one record to the next, idle time too, which the next requests are charged."""
    hands = Hands(cpus=2.0)
    hands.tallies.answered("1", NOON, 0.001)
    hands.wall += 10
    (one,) = hands.tallies.tell()
    assert one.cpu_s == 20
    hands.wall += 10
    assert hands.tallies.tell() == []
    hands.tallies.answered("1", NOON, 0.001)
    for _ in range(3):
        hands.tallies.answered("2", NOON, 0.001)
    hands.wall += 10
    assert [s.cpu_s for s in hands.tallies.tell()] == [20 + 10, 30]


def test_who_is_told_seldom_has_its_share_too() -> None:
    """What is held goes by requests, whoever is due to be told."""
    hands = Hands(cpus=1.0)
    for _ in range(95):
        hands.tallies.answered("1", NOON, 0.001)
    hands.tallies.tell()
    for _ in range(12):
        hands.wall += 10
        for version in ["1"] * 9 + ["2"]:
            hands.tallies.answered(version, NOON, 0.001)
        hands.tallies.tell()
    for version in "12":
        hands.tallies.answered(version, NOON, 0.001)
    told = {s.version: s.cpu_s for s in hands.tallies.tell(everything=True)}
    assert told == pytest.approx({"1": 108.0, "2": 12.0})


def test_a_replica_that_holds_none_tells_what_it_used() -> None:
    """The CPU time of its process."""
    hands = Hands()
    hands.tallies.answered("1", NOON, 0.001)
    hands.wall, hands.used = 1000.0, 5.25
    assert [s.cpu_s for s in hands.tallies.tell()] == [0.25]


def test_a_window_that_hardly_grows_waits_for_a_minute() -> None:
    """Lest the log is full of it; but not at the replica's end."""
    hands = Hands()
    for _ in range(100):
        hands.tallies.answered("1", NOON, 0.001)
    assert len(hands.tallies.tell()) == 1
    hands.tallies.answered("1", NOON, 0.001)
    assert hands.tallies.tell() == []
    hands.wall += 61
    assert [s.answered for s in hands.tallies.tell()] == [101]
    hands.tallies.answered("1", NOON, 0.001)
    assert [s.answered for s in hands.tallies.tell(everything=True)] == [102]


def test_rows_of_many_times_take_no_room() -> None:
    """A window each, of which those told longest ago are let go of."""
    tallies = Hands().tallies
    for i in range(1000):
        tallies.answered("1", MIDNIGHT + i * DAY, 0.001)
    assert len(tallies.tell()) == 1000
    assert len(tallies._tallies) == 256


def test_what_rests_for_an_hour_is_let_go_of() -> None:
    """Counting begins anew under another id, so that both count."""
    hands = Hands()
    hands.tallies.answered("1", NOON, 0.001)
    (old,) = hands.tallies.tell()
    hands.wall += 3700
    assert hands.tallies.tell() == []
    hands.tallies.answered("1", NOON, 0.001)
    (new,) = hands.tallies.tell()
    assert (new.answered, new.id != old.id) == (1, True)


def test_threads_lose_no_request(tmp_path: Path) -> None:
    """Counted from many threads while records are written; the furthest record of each id has all."""
    tallies = Hands().tallies

    def ask() -> None:
        for _ in range(2000):
            tallies.answered("1", NOON, 0.001)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    with LogWriter(str(tmp_path), "w") as log:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            write_tallies(tallies, log)
        write_tallies(tallies, log, everything=True)
    found = [e for e in LogReader(str(tmp_path), "w").read()[0] if isinstance(e, Service)]
    assert len({s.id for s in found}) == 1
    assert max(s.answered for s in found) == 8000


def test_a_log_that_is_closed_is_no_harm(tmp_path: Path) -> None:
    """A replica that ends."""
    tallies, log = Hands().tallies, LogWriter(str(tmp_path), "w")
    log.close()
    tallies.answered("1", NOON, 0.001)
    write_tallies(tallies, log)


def test_what_was_told_is_synced_though_nobody_waits(tmp_path: Path) -> None:
    """Where each answer waits for the disk, too: else traffic that pauses looks like a disk that fails."""
    tallies = Hands().tallies
    with LogWriter(str(tmp_path), "w", sync="each") as log:
        tallies.answered("1", NOON, 0.001)
        write_tallies(tallies, log)
        deadline = time.monotonic() + 10
        while log.unsynced_s > 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
