"""One prediction's story from the log, found by an index and the same as reading all of it."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import Part, ShadowAnswer
from raywf.outcomes import LogReader, LogWriter, join, lookup
from raywf.outcomes.lines import PredictionBatch, to_line
from raywf.outcomes.lookup import IndexBehindError, LogLookup

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
NAMES = ["a", "b", 'q"', "back\\slash", "né", "\n"]
IDS = st.sampled_from(NAMES)
TIMES = st.integers(0, 5).map(lambda s: NOON + timedelta(seconds=s))
SCORES = st.floats(0, 1).map(lambda score: (score,))
VERSIONS = st.sampled_from(["1", "2"])
PREDICTIONS = st.builds(
    Prediction, id=IDS, time=TIMES, version=VERSIONS, features=st.just({"x": 1.5}), scores=SCORES
)
OUTCOMES = st.builds(Outcome, id=IDS, time=TIMES, label=st.sampled_from(["no", "yes"]))
SHADOWS = st.builds(
    ShadowAnswer, id=IDS, time=TIMES, version=VERSIONS, scores=SCORES, part=st.just(Part("s:1"))
)
BATCHES = st.lists(IDS, min_size=1, max_size=3).flatmap(
    lambda ids: st.builds(
        PredictionBatch,
        ids=st.just(ids),
        times=st.lists(TIMES, min_size=len(ids), max_size=len(ids)),
        version=VERSIONS,
        features=st.just({"x": [1.5] * len(ids)}),
        scores=st.just(np.full((len(ids), 1), 0.5)),
    )
)
LOGS = st.lists(PREDICTIONS | OUTCOMES | SHADOWS | BATCHES, max_size=20)


def prediction(name: str, score: float = 0.5) -> Prediction:
    return Prediction(id=name, time=NOON, version="1", features={"x": 1.0}, scores=(score,))


def brute_force(root: str, name: str) -> Any:
    """What reading the whole log says of an id."""
    entries, _ = LogReader(root, "w").read()
    return next(((p, o) for p, o in join(entries) if p.id == name), None)


@settings(max_examples=60, deadline=None)
@given(log=LOGS, asked=st.lists(st.integers(0, 20), max_size=4), bounds=st.sampled_from([1, 300, 10**6]))
def test_a_lookup_is_the_join_of_the_whole_log(
    tmp_path_factory: pytest.TempPathFactory, log: Any, asked: list[int], bounds: int
) -> None:
    """At any moment, with segments and indexes of any size, in this process and in another one."""
    root = str(tmp_path_factory.mktemp("log"))
    with pytest.MonkeyPatch.context() as patch, LogWriter(root, "w", segment_bytes=400) as writer:
        for name in ("READ_BYTES", "KEPT_BYTES"):
            patch.setattr(lookup, name, bounds)
        old = LogLookup(root, "w")
        for i, record in enumerate(log):
            writer.append([record])
            if i in asked:
                old.find("a")
        for name in NAMES:
            wanted = brute_force(root, name)
            for finder in (old, LogLookup(root, "w")):
                found = finder.find(name)
                assert (found and (found.prediction, found.outcome)) == wanted


@settings(max_examples=30, deadline=None)
@given(log=LOGS, data=st.data())
def test_shadows_do_not_depend_on_the_logs_order(
    tmp_path_factory: pytest.TempPathFactory, log: Any, data: st.DataObject
) -> None:
    """Each version has one answer, the earliest."""
    found = []
    for records in (log, data.draw(st.permutations(log))):
        root = str(tmp_path_factory.mktemp("log"))
        with LogWriter(root, "w") as writer:
            writer.append(records)
        found.append([LogLookup(root, "w").find(name) for name in NAMES])
    assert found[0] == found[1]
    for one in found[0]:
        assert one is None or len({s.version for s in one.shadows}) == len(one.shadows)


def test_what_was_written_a_moment_ago_is_found(tmp_path: Path) -> None:
    """A lookup reads on where the last one stopped; a line without its end is not there yet."""
    finder = LogLookup(str(tmp_path), "w")
    assert finder.find("a") is None
    finder.folder.mkdir(parents=True)
    line = to_line(prediction("a"))
    (finder.folder / "s.jsonl").write_bytes(line[:-4])
    assert finder.find("a") is None
    (finder.folder / "s.jsonl").write_bytes(line)
    assert finder.find("a").prediction == prediction("a")


def test_corrupt_lines_and_indexes_are_no_harm(tmp_path: Path) -> None:
    """Lines that nobody can read are left out; a broken index is made again."""
    finder = LogLookup(str(tmp_path), "w")
    finder.folder.mkdir(parents=True)
    bad = [b'{"id":"a"', b'{"id":"a","t":5}', b"\xff", b'{"ids":[3],"t":1}', b'{"id":4}', b"[]", b""]
    (finder.folder / "s.jsonl").write_bytes(b"\n".join([*bad, to_line(prediction("a"))]))
    os.utime(finder.folder / "s.jsonl", (0, 0))
    for broken in (b"", b"garbage", b"\x93NUMPY\x01\x00"):
        (finder.folder / "s.index").write_bytes(broken)
        assert LogLookup(str(tmp_path), "w").find("a").prediction == prediction("a")


def test_a_segment_at_rest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its index lies beside it, and no other process reads it again."""
    with LogWriter(str(tmp_path), "w") as writer:
        writer.append([prediction("a"), prediction("b")])
    (segment,) = writer.folder.glob("*.jsonl")
    os.utime(segment, (0, 0))
    LogLookup(str(tmp_path), "w").find("a")
    assert len(list(writer.folder.glob("*.index"))) == 1

    def refuse(path: Path, start: int) -> bytes:
        raise AssertionError("the segment is read again")

    monkeypatch.setattr(lookup, "_lines", refuse)
    assert LogLookup(str(tmp_path), "w").find("b").prediction == prediction("b")


def test_an_index_that_cannot_be_written_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then each process reads the log once."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    monkeypatch.setattr(lookup, "KEPT_BYTES", 1)
    with LogWriter(str(tmp_path), "w") as writer:
        writer.append([prediction("a")])
        finder = LogLookup(str(tmp_path), "w")
        assert finder.find("a").prediction == prediction("a")
        writer.append([prediction("b")])
        assert finder.find("b").prediction == prediction("b")
    assert [path.suffix for path in writer.folder.iterdir()] == [".jsonl"]


def test_a_call_reads_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and the next calls go on until all is read."""
    monkeypatch.setattr(lookup, "READ_BYTES", 1)
    with LogWriter(str(tmp_path), "w") as writer:
        writer.append([prediction(str(i)) for i in range(3000)])
    finder = LogLookup(str(tmp_path), "w", budget_s=0.01)
    behind, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            found = finder.find("2999")
            break
        except IndexBehindError:
            behind += 1
    assert behind > 0
    assert found.prediction.id == "2999"


def test_segments_that_were_removed_are_forgotten(tmp_path: Path) -> None:
    """What is no longer in the log is no longer found."""
    with LogWriter(str(tmp_path), "w") as writer:
        writer.append([prediction("a")])
    finder = LogLookup(str(tmp_path), "w")
    assert finder.find("a") is not None
    next(iter(writer.folder.glob("*.jsonl"))).unlink()
    assert finder.find("a") is None


def test_threads_at_once(tmp_path: Path) -> None:
    """While the log grows, each finds what it wrote itself."""
    finder, failed = LogLookup(str(tmp_path), "w"), []

    def work(name: str) -> None:
        with LogWriter(str(tmp_path), "w", segment_bytes=2000) as writer:
            for i in range(40):
                writer.append([prediction(f"{name}{i}")])
                if finder.find(f"{name}{i}") is None:
                    failed.append(f"{name}{i}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_long_log_is_looked_up_soon(tmp_path: Path) -> None:
    """Once it is indexed a lookup takes a hundredth of reading the log, with room for a busy machine."""
    with LogWriter(str(tmp_path), "w", segment_bytes=1_000_000) as writer:
        for start in range(0, 100_000, 1000):
            writer.append([prediction(str(i)) for i in range(start, start + 1000)])
    finder = LogLookup(str(tmp_path), "w", budget_s=60)
    finder.find("1")
    begin = time.perf_counter()
    for i in range(100):
        assert finder.find(str(997 * i)) is not None
    assert (time.perf_counter() - begin) / 100 < 0.02
