"""The outcome log: durable, ordered, and unharmed by torn or corrupt lines."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.records import Outcome, Prediction
from raywf.core.service import Service
from raywf.outcomes import LogReader, LogWriter, join
from raywf.outcomes.lines import Entry, from_line, to_line

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
TIMES = st.integers(0, 5).map(lambda s: NOON + timedelta(seconds=s))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PREDICTIONS = st.builds(
    Prediction,
    id=st.sampled_from("abc"),
    time=TIMES,
    version=st.sampled_from(["1", "2"]),
    features=st.dictionaries(TEXT, st.none() | TEXT | NUMBERS, max_size=3),
    scores=st.tuples(NUMBERS) | st.tuples(NUMBERS, NUMBERS),
)
OUTCOMES = st.builds(
    Outcome, id=st.sampled_from("abcd"), time=TIMES, label=TEXT | NUMBERS, value=st.none() | NUMBERS
)
COUNTS = st.integers(0, 2**50)
SERVICES = st.builds(
    Service,
    id=st.sampled_from("abc"),
    time=TIMES,
    length_s=st.floats(0, 1e9),
    version=TEXT,
    answered=COUNTS,
    refused=COUNTS,
    failed=COUNTS,
    cpu_s=st.floats(0, 1e9),
    times=st.dictionaries(st.integers(-200, 100), COUNTS, max_size=3),
)
RECORDS = st.lists(PREDICTIONS | OUTCOMES | SERVICES, max_size=12)


def prediction(i: int) -> Prediction:
    return Prediction(
        id=f"p{i}", time=NOON, version="1", features={"n": i, "s": "é\n", "x": None}, scores=(0.25, 0.75)
    )


@given(PREDICTIONS | OUTCOMES | SERVICES)
def test_line_round_trip(record: Entry) -> None:
    """A record is one line, and reads back equal."""
    line = to_line(record)
    assert line.count(b"\n") == 1
    assert from_line(line) == record


@settings(max_examples=30, deadline=None)
@given(records=RECORDS.filter(bool), data=st.data())
def test_torn_line_waits_for_its_newline(tmp_path_factory: pytest.TempPathFactory, records, data) -> None:
    """Cut at any byte, whole lines are read now and the rest once it is there; nothing comes twice."""
    root = tmp_path_factory.mktemp("log")
    whole = b"".join(map(to_line, records))
    cut = data.draw(st.integers(0, len(whole)))
    reader = LogReader(str(root), "w")
    reader.folder.mkdir(parents=True)
    (reader.folder / "a.jsonl").write_bytes(whole[:cut])
    before, cursor = reader.read(None)
    assert len(before) == whole[:cut].count(b"\n")
    (reader.folder / "a.jsonl").write_bytes(whole)
    after, cursor = reader.read(cursor)
    assert [*before, *after] == records
    assert reader.read(cursor) == ((), cursor)
    assert reader.corrupt_lines == 0


@settings(max_examples=20, deadline=None)
@given(records=st.lists(PREDICTIONS, max_size=9), max_bytes=st.integers(1, 400))
def test_bounded_reads_give_the_same(tmp_path_factory: pytest.TempPathFactory, records, max_bytes) -> None:
    """Read in bounded pieces, the log gives what it gives at once."""
    root = str(tmp_path_factory.mktemp("log"))
    with LogWriter(root, "w", segment_bytes=300) as writer:
        for record in records:
            writer.append([record])
    reader, pieces, cursor = LogReader(root, "w"), [], {}
    while True:
        piece, cursor = reader.read(cursor, max_bytes=max_bytes)
        if not piece:
            break
        pieces.extend(piece)
    assert pieces == list(reader.read()[0]) == records


@pytest.mark.parametrize(
    "bad",
    [b"\xff\xfe", b"{}", b"3", b'{"id":"a"}', b'{"id":"a","t":"noon","l":1}', b"", b"\x00" * 40,
     b'{"id":"a","t":5,"l":1}', b'{"id":"a","t":"2013-01-01T00:00:00Z","v":"1","f":{},"s":[null]}'],
)  # fmt: skip
def test_corrupt_line_is_skipped_and_counted(tmp_path: Path, bad: bytes) -> None:
    """A bad line between good ones costs that line only."""
    reader = LogReader(str(tmp_path), "w")
    reader.folder.mkdir(parents=True)
    lines = to_line(prediction(1)) + bad + b"\n" + to_line(prediction(2))
    (reader.folder / "a.jsonl").write_bytes(lines)
    assert reader.read()[0] == (prediction(1), prediction(2))
    assert reader.corrupt_lines == 1


def test_no_log_yet_is_empty(tmp_path: Path) -> None:
    """A reader may start before any writer."""
    assert LogReader(str(tmp_path), "w").read(None) == ((), {})


def test_segments_rotate_and_stay_in_order(tmp_path: Path) -> None:
    """A full segment is closed and another is started; order is kept."""
    with LogWriter(str(tmp_path), "w", segment_bytes=200) as writer:
        for i in range(20):
            writer.append([prediction(i)])
    assert len(list(writer.folder.iterdir())) > 3
    assert [p.id for p in LogReader(str(tmp_path), "w").read()[0]] == [f"p{i}" for i in range(20)]


def test_failed_write_starts_a_new_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk error in mid-line harms no line that is acknowledged later."""
    writer, real = LogWriter(str(tmp_path), "w"), os.write
    writer.append([prediction(1)])

    def fail(fd: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", fail_again)
        return real(fd, data[:10])

    def fail_again(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(OSError, match="No space"):
        writer.append([prediction(2)])
    monkeypatch.setattr(os, "write", real)
    writer.append([prediction(3)])
    writer.close()
    assert [p.id for p in LogReader(str(tmp_path), "w").read()[0]] == ["p1", "p3"]


def test_closed_writer_refuses(tmp_path: Path) -> None:
    """After close, an append is an error and not a silent loss."""
    writer = LogWriter(str(tmp_path), "w", sync="each")
    writer.append([prediction(1)])
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append([prediction(2)])


def test_threads_and_writers_at_once(tmp_path: Path) -> None:
    """Two writers with four threads each lose and mix nothing."""
    writers = [LogWriter(str(tmp_path), "w", segment_bytes=5000) for _ in range(2)]

    def write(start: int) -> None:
        for i in range(start, start + 50):
            writers[i % 2].append([prediction(i), prediction(i + 1000)])

    threads = [threading.Thread(target=write, args=(n * 50,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    reader = LogReader(str(tmp_path), "w")
    ids = sorted(p.id for p in reader.read()[0])
    assert ids == sorted(f"p{i + k}" for i in range(200) for k in (0, 1000))
    assert reader.corrupt_lines == 0


SCRIPT = """
import sys
from datetime import UTC, datetime
from raywf.core.records import Outcome
from raywf.outcomes import LogWriter
writer = LogWriter(sys.argv[1], "w", segment_bytes=20_000)
i = 0
while True:
    batch = [Outcome(id=f"{sys.argv[2]}-{i + k}", time=datetime.now(UTC), label="x" * 50) for k in range(5)]
    writer.append(batch)
    i += 5
    print(i, flush=True)
"""


def test_acknowledged_entries_survive_kill(tmp_path: Path) -> None:
    """Three writers are killed with SIGKILL at random moments; what they acknowledged is in the log."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    acknowledged = {}
    for process in processes:
        process.stdout.readline()
    for n, process in enumerate(processes):
        time.sleep(random.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        acknowledged[n] = max(int(line) for line in process.communicate()[0].split("\n")[:-1] or ["5"])
    reader = LogReader(str(tmp_path), "w")
    ids = {entry.id for entry in reader.read()[0]}
    assert {f"{n}-{i}" for n, count in acknowledged.items() for i in range(count)} <= ids
    assert reader.corrupt_lines == 0


@given(records=RECORDS, data=st.data())
def test_join_is_order_independent(records, data) -> None:
    """Any order of the same records joins to the same pairs."""
    assert join(data.draw(st.permutations(records))) == join(records)


def test_join_takes_first_prediction_and_latest_outcome() -> None:
    """A repeated prediction does not count, a corrected label does."""
    later = Prediction(id="p1", time=NOON + timedelta(hours=1), version="2", features={}, scores=(0.5,))
    old = Outcome(id="p1", time=NOON, label="a")
    new = Outcome(id="p1", time=NOON + timedelta(days=1), label="b", value=2.0)
    stray = Outcome(id="zz", time=NOON, label="a")
    assert join([later, new, prediction(2), stray, prediction(1), old]) == (
        (prediction(1), new),
        (prediction(2), None),
    )


def test_reader_is_fast(tmp_path: Path) -> None:
    """100,000 entries a second, with room for a busy machine."""
    with LogWriter(str(tmp_path), "w") as writer:
        writer.append([prediction(i) for i in range(10_000)])
    start = time.perf_counter()
    entries, _ = LogReader(str(tmp_path), "w").read()
    assert len(entries) / (time.perf_counter() - start) > 30_000


def test_those_who_wait_share_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred appends wait for a few syncs together, and each is followed by one."""
    made, slow = [], os.fsync

    def fsync(fd: int) -> None:
        time.sleep(0.01)
        slow(fd)
        made.append(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    async def one(writer: LogWriter, number: int) -> None:
        await asyncio.sleep(0.0005 * number)
        writer.append([prediction(number)])
        before = len(made)
        await writer.synced()
        assert len(made) > before

    async def all_of_them(writer: LogWriter) -> None:
        await asyncio.gather(*(one(writer, i) for i in range(100)))

    with LogWriter(str(tmp_path), "w", sync="each") as writer:
        asyncio.run(all_of_them(writer))
        assert len(made) < 40


def test_nobody_waits_where_nothing_was_appended(tmp_path: Path) -> None:
    """Before the first append and after the close."""
    writer = LogWriter(str(tmp_path), "w", sync="each")
    asyncio.run(asyncio.wait_for(writer.synced(), 10))
    writer.close()
    asyncio.run(asyncio.wait_for(writer.synced(), 10))


def test_a_disk_that_does_not_sync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits gets the error; with syncs at intervals nobody waits."""

    def refuse(fd: int) -> None:
        raise OSError(5, "no such luck")

    async def wait(writer: LogWriter) -> None:
        writer.append([prediction(1)])
        await writer.synced()

    with LogWriter(str(tmp_path), "w", sync="each") as each, LogWriter(str(tmp_path), "w") as lazy:
        for writer in (each, lazy):
            writer.append([prediction(0)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises(OSError, match="no such luck"):
                asyncio.run(wait(each))
            asyncio.run(wait(lazy))
