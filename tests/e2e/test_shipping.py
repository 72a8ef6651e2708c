"""The log on a real S3 API: shipped while it is written, whole after kills and outages, mirrored."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from raywf.core import objects
from raywf.core.journal import Journal
from raywf.core.records import Outcome
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.core.store import Store
from raywf.loop.job_log import read_kept
from raywf.outcomes import shipping
from raywf.outcomes.column_reader import ColumnReader
from raywf.outcomes.lines import to_line
from raywf.outcomes.lookup import LogLookup
from raywf.outcomes.reader import LogReader
from raywf.outcomes.shipping import Mirror, Shipper
from raywf.outcomes.writer import LogWriter
from raywf.testing import make_decision

START = datetime(2026, 1, 1, tzinfo=UTC)


class Server:
    """An S3 server on a port of loopback; what it holds it holds after a stop too."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._moto.start()
        self.port = self._moto.get_host_and_port()[1]

    def stop(self) -> None:
        self._moto.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.fixture
def root(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root in a bucket of its own; this node's files lie in the test's folder."""
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "XDG_CACHE_HOME": str(tmp_path / "node"),
    }.items():
        monkeypatch.setenv(name, value)
    objects._s3_client.cache_clear()
    bucket = f"b{abs(hash(str(tmp_path)))}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    monkeypatch.setattr(shipping, "SHIP_S", 0.05)
    monkeypatch.setattr("raywf.outcomes.writer.SHIP_S", 0.05)
    return f"s3://{bucket}/raywf"


def outcomes(count: int, name: str = "o") -> list[Outcome]:
    return [Outcome(id=f"{name}{i}", time=START, label="yes") for i in range(count)]


def read_ids(root: str) -> list[str]:
    entries, _ = LogReader(root, "w").read()
    return [entry.id for entry in entries]


def await_ids(root: str, wanted: set[str], *, within_s: float = 10) -> None:
    """Wait until the log has just these ids."""
    reader, end = LogReader(root, "w"), time.monotonic() + within_s
    while {entry.id for entry in reader.read()[0]} != wanted:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_written_is_read_while_it_is_written(root: str) -> None:
    """By readers of lines and of columns, and by id; whole segments once the writer has ended."""
    with LogWriter(root, "w") as log:
        for one in outcomes(20):
            log.append([one])
            time.sleep(0.01)
        await_ids(root, {f"o{i}" for i in range(20)})
        assert any(".parts/" in path for path, _ in Store(root).walk("log/w"))
    assert [".parts/" in path for path, _ in Store(root).walk("log/w")] == [False]
    assert read_ids(root) == [f"o{i}" for i in range(20)]
    columns = list(ColumnReader(root, "w").columns(max_bytes=10**9))
    assert sum(len(found.labels.labels) for found, _ in columns) == 20
    assert LogLookup(root, "w").find("o3") is None  # an outcome without its prediction


def test_a_cursor_goes_on_in_a_segment_that_has_become_whole(root: str) -> None:
    """Nothing is read twice, nothing is missed."""
    reader, cursor, seen = LogReader(root, "w"), {}, []
    log = LogWriter(root, "w")
    for round_ in range(4):
        log.append(outcomes(5, f"r{round_}-"))
        if round_ == 3:
            log.close()
        await_ids(root, {f"r{r}-{i}" for r in range(round_ + 1) for i in range(5)})
        time.sleep(0.6)  # the reader looks twice a second
        entries, cursor = reader.read(cursor)
        seen += [entry.id for entry in entries]
    assert seen == [f"r{r}-{i}" for r in range(4) for i in range(5)]


def test_who_waits_waits_for_the_store(root: str, server: Server) -> None:
    """Where that is wanted; and is told when the store does not take it, which loses nothing."""

    async def write(log: LogWriter, name: str) -> None:
        log.append(outcomes(1, name))
        await log.synced()

    log = LogWriter(root, "w", sync="each")
    asyncio.run(write(log, "a"))
    assert read_ids(root) == ["a0"]
    server.stop()
    try:
        with pytest.raises(OSError, match="object store"):
            asyncio.run(write(log, "b"))
        assert log.unsynced_s > 0
    finally:
        server.start()
    log.append(outcomes(1, "c"))
    await_ids(root, {"a0", "b0", "c0"}, within_s=30)
    log.close()
    assert read_ids(root) == ["a0", "b0", "c0"]


def _write_and_die(root: str, name: str) -> None:
    log = LogWriter(root, "w")
    log.append(outcomes(50, name))
    os.kill(os.getpid(), 9)


def test_what_a_killed_writer_left_is_shipped_by_the_next(root: str) -> None:
    """Its spool is on the node; a writer that lives keeps its own."""
    living = LogWriter(root, "w")
    living.append(outcomes(2, "l"))
    process = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(root, "k"))
    process.start()
    process.join(20)
    assert process.exitcode == -9
    with LogWriter(root, "w") as next_one:
        next_one.append(outcomes(1, "n"))
        wanted = {*(f"k{i}" for i in range(50)), "l0", "l1", "n0"}
        await_ids(root, wanted)
    living.append(outcomes(3, "m"))
    living.close()
    await_ids(root, {*wanted, "m0", "m1", "m2"})
    assert not list(Path(next_one.folder).glob("*.jsonl"))


def test_a_part_that_is_sent_again_changes_nothing(root: str, tmp_path: Path) -> None:
    """Whether or not the answer to the first was lost, and whoever read in between."""
    store, spool = Store(root), tmp_path / "spool"
    spool.mkdir()
    lines = [to_line(one) for one in outcomes(6)]
    segment = spool / "0001-a.jsonl"
    mirror = Mirror(store, tmp_path / "mirror", "w")
    segment.write_bytes(b"".join(lines[:2]) + lines[2][:5])  # a line that is being written
    Shipper(store, spool, "w").ship(segment.name)
    mirror.refresh(at_once=True)
    assert (mirror.folder / segment.name).read_bytes() == b"".join(lines[:2])
    segment.write_bytes(b"".join(lines[:5]))
    again = Shipper(store, spool, "w")  # knows nothing of what was shipped
    again.ship(segment.name)
    mirror.refresh(at_once=True)
    assert (mirror.folder / segment.name).read_bytes() == b"".join(lines[:5])
    segment.write_bytes(b"".join(lines))
    again.finish(segment.name)
    again.finish(segment.name)  # another writer of the node was faster
    mirror.refresh(at_once=True)
    assert (mirror.folder / segment.name).read_bytes() == b"".join(lines)
    assert store.walk("log/w") == ((segment.name, len(b"".join(lines))),)


def test_one_of_many_writes_an_object(root: str) -> None:
    """Whoever is first; the others are told. The journal rests on it."""
    store, barrier = Store(root), threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create("one", str(number).encode())

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert sum(won) == 1
        assert store.read("one") == str(won.index(True)).encode()
        store.drop("one")
    decision = make_decision("d", window="x", time=START)
    journal = Journal(root, "w")
    assert (journal.decide(decision), journal.decide(decision)) == (True, False)
    assert journal.decisions() == (decision,)


def test_a_store_that_is_away_is_said(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an error of the system, with the object's name."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    objects._s3_client.cache_clear()
    with pytest.raises(OSError, match="one cannot be written"):
        Store(root).create("one", b"")
    objects._s3_client.cache_clear()


DRIVER = """
import sys
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.jobs import Jobs
from raywf.loop.job_log import keep_output
spine, stores = SpineSettings(path="a.csv", label="y"), StoreSettings(root=sys.argv[1])
keep_output(Workflow(name="w", task="binary", spine=spine, stores=stores))
print("snapshot 17", flush=True)
raise ValueError("what was wrong")
"""


def test_what_a_job_prints_is_in_the_bucket_to_its_last_line(root: str, tmp_path: Path) -> None:
    """Its driver ships the rest when Python ends, while there is a client of S3 still."""
    config = json.dumps({"metadata": {"job_submission_id": "w-1"}})
    with (tmp_path / "driver.log").open("ab") as file:
        command = [sys.executable, "-c", DRIVER, root]
        environ = {**os.environ, "RAY_JOB_CONFIG_JSON_ENV_VAR": config}
        done = subprocess.run(command, stdout=file, stderr=file, env=environ, timeout=120, check=False)
    printed = (tmp_path / "driver.log").read_text()
    spine = SpineSettings(path="a.csv", label="y")
    kept = read_kept(Workflow(name="w", task="binary", spine=spine, stores=StoreSettings(root=root)), "w-1")
    assert (done.returncode, kept) == (1, printed)
    assert printed.endswith("ValueError: what was wrong\n")
