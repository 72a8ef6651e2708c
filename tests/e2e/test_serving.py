"""Serving on real Ray Serve behind HAProxy: garbage, swaps, kills, a registry that is away."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from raywf.core.records import Prediction
from raywf.outcomes import LogReader
from raywf.serving.guard import REFRESH_S
from raywf.serving.keys import Caller, KeyBook
from raywf.testing import SMALL_ROW, FolderSource

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from garbage import garbage  # noqa: E402 the folder is not a package

pytestmark = pytest.mark.timeout(280)
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


class Served:
    """A driver process with its cluster, and a client of its endpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, FolderSource(str(folder / "registry"))
        command = [sys.executable, str(HERE / "serving_driver.py"), str(folder)]
        errors = open(folder / "driver.err", "wb")  # noqa: SIM115 lives as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=ENV
        )
        up = self._read()
        self.url, self.metrics_url = up["url"], f"http://127.0.0.1:{up['metrics']}/metrics"

    def do(self, verb: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": verb, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def send(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers={"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def replicas(self) -> dict[str, str]:
        return {r["replica"]: r["version"] for r in self.do("status")["ok"]["replicas"]}

    def until(self, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.2)

    def logged(self) -> set[str]:
        entries, _ = LogReader(str(self.folder / "root"), "served").read()
        return {entry.id for entry in entries if isinstance(entry, Prediction)}

    def load(self, out: Path, *, seconds: float, connections: int) -> subprocess.Popen[str]:
        body = json.dumps({"features": dict(SMALL_ROW)})
        command = [sys.executable, str(ROOT / "benchmarks/load.py"), self.url, "--out", str(out)]
        command += ["--seconds", str(seconds), "--connections", str(connections), "--body", body]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(">>> "):
                return json.loads(line[4:])
        raise AssertionError((self.folder / "driver.err").read_text()[-3000:])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One cluster for this module; version 1 of three is the champion at first."""
    made = Served(tmp_path_factory.mktemp("served"))
    yield made
    made.close()


def test_garbage_is_refused_with_a_reason(served: Served) -> None:
    """A thousand bad requests: only 4xx with JSON, and the same replicas after."""
    before = served.replicas()
    wrong = []
    for method, path, body in garbage(1000):
        status, answer = served.send(method, path, body)
        if not 400 <= status < 500 or "error" not in answer:
            wrong.append((status, method, path, body[:200], answer))
    assert wrong == []
    assert served.replicas() == before
    assert served.send("POST", "/v1/predict", json.dumps({"features": dict(SMALL_ROW)}).encode())[0] == 200


def test_listens_on_loopback_only(served: Served) -> None:
    """The front is bound to loopback, and so is every replica's own port."""
    port = urlsplit(served.url).port
    pids = {int(name.rsplit(":", 1)[1]) for name in served.replicas()}
    text = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    fields = [line.split() for line in text.splitlines()]
    assert {f[3] for f in fields if f[3].endswith(f":{port}")} == {f"127.0.0.1:{port}"}
    replica_http = [
        f[3] for f in fields if any(f"pid={pid}," in f[-1] for pid in pids) and 20_000 <= _port(f[3]) < 30_000
    ]
    assert replica_http
    assert all(address.startswith("127.0.0.1:") for address in replica_http)


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def test_metrics_are_there_for_prometheus(served: Served) -> None:
    """Requests by route and status, rows by version, the version served: by replica."""
    for _ in range(20):
        served.send("POST", "/v1/predict", json.dumps({"features": dict(SMALL_ROW)}).encode())

    def told() -> str:
        with urllib.request.urlopen(served.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    served.until(lambda: "raywf_rows" in told())
    lines = [line for line in told().splitlines() if line.startswith("ray_raywf_")]
    kinds = {line.partition("{")[0] for line in lines}
    assert {"ray_raywf_requests_total", "ray_raywf_rows_total", "ray_raywf_version_served"} <= kinds, kinds
    assert any('route="/v1/predict"' in line and 'status="200"' in line for line in lines)
    assert {r for r in served.replicas() if any(f'replica="{r}"' in line for line in lines)}


def test_swap_from_driver_and_actor(served: Served) -> None:
    """Both reach every replica, and the endpoint answers with the new version."""
    assert served.do("swap", version="2")["ok"]["previous"] == "1"
    assert served.do("actor_swap", version="3")["ok"]["previous"] == "2"
    assert set(served.replicas().values()) == {"3"}
    assert served.send("GET", "/v1/model")[1]["version"] == "3"


def test_broken_bundle_is_refused_in_prepare(served: Served, tmp_path: Path) -> None:
    """A bundle with another digest changes nothing, and the alias stays."""
    before, former = served.replicas(), served.source.resolve("champion").version
    served.source.add(_bundle(served, "bundle-1"), version="bad")
    (Path(served.source.version("bad").uri) / "reference.json").write_text("{}")
    answer = served.do("swap", version="bad")
    assert "ServingError" in answer["error"]
    assert "changed" in answer["error"]
    assert served.replicas() == before
    assert served.source.resolve("champion").version == former
    assert served.send("GET", "/v1/model")[1]["last_refused"]["version"] == "bad"


def _bundle(served: Served, name: str) -> Any:
    from raywf.models.bundle import load_bundle

    return load_bundle(served.folder / name).bundle


def test_missed_swap_converges(served: Served) -> None:
    """The alias alone is enough: replicas follow it by themselves."""
    served.source.move("champion", "1")
    served.until(lambda: set(served.replicas().values()) == {"1"})


def test_killed_replica_loses_nothing_acknowledged(served: Served, tmp_path: Path) -> None:
    """Traffic goes on, what was answered is in the log, the new replica serves the alias's version."""
    before = served.replicas()
    out = tmp_path / "samples.jsonl"
    process = served.load(out, seconds=12, connections=8)
    time.sleep(3)
    served.source.move("champion", "2")
    served.do("swap", version="2")
    os.kill(int(next(iter(before)).rsplit(":", 1)[1]), signal.SIGKILL)
    killed = time.time()
    process.communicate(timeout=60)
    samples = [json.loads(line) for line in out.read_text().splitlines()]
    acknowledged = {s[3] for s in samples if s[2] == 200}
    assert acknowledged <= served.logged()
    late = [s for s in samples if s[0] > killed + 1]
    assert sum(s[2] == 200 for s in late) > 0.99 * len(late) > 10
    served.until(lambda: len(served.replicas()) == 2 and not set(served.replicas()) <= set(before))
    assert set(served.replicas().values()) == {"2"}


def test_new_replica_starts_from_the_cache(served: Served) -> None:
    """With the registry down, a replica that has to start serves the last good version."""
    before = served.replicas()
    served.source.set_down(True)
    try:
        for name in before:
            os.kill(int(name.rsplit(":", 1)[1]), signal.SIGKILL)
        served.until(lambda: served.do("status")["ok"]["status"] == "RUNNING" and _fresh(served, before))
        assert set(served.replicas().values()) == set(before.values())
        assert served.send("GET", "/v1/model")[1]["origin"] == "cache"
    finally:
        served.source.set_down(False)


def _fresh(served: Served, before: dict[str, str]) -> bool:
    now = served.replicas()
    return len(now) == len(before) and not set(now) & set(before)


def test_a_second_workflow(served: Served) -> None:
    """It answers below its own route, with a document of its own; a third one at its route is refused."""
    assert served.do("deploy_other")["ok"] == f"{served.url}/other"
    body = json.dumps({"features": dict(SMALL_ROW)}).encode()
    assert served.send("POST", "/other/v1/predict", body)[0] == 200
    assert served.send("POST", "/v1/predict", body)[0] == 200
    assert served.send("GET", "/other/openapi.json")[1]["servers"] == [{"url": "/other"}]
    assert served.send("GET", "/other/v1/model")[1]["workflow"] == "other"
    assert served.send("GET", "/v1/model")[1]["workflow"] == "served"
    assert "/other" in served.do("deploy_clash")["error"]


def test_overload_is_refused_and_passes(served: Served) -> None:
    """Requests that would wait for too long get 503 and are told when to come again; a replica is added."""
    rows = {"rows": [{"features": dict(SMALL_ROW)}] * 60}
    end = threading.Event()
    with ThreadPoolExecutor(24) as pool:
        calls = [pool.submit(_until_refused, served.url + "/other", rows, end) for _ in range(24)]
        served.until(lambda: len(served.do("other_status")["ok"]["replicas"]) == 2)
        end.set()
        found = [one for call in calls for one in call.result()]
    assert {status for status, _ in found} == {200, 503}
    assert {after for status, after in found if status == 503} == {"1"}
    served.until(lambda: served.send("POST", "/other/v1/predict", json.dumps(rows).encode())[0] == 200)


def _until_refused(url: str, body: dict[str, Any], end: threading.Event) -> set[tuple[int, str | None]]:
    """Call until the end; return the statuses and what they said of when to come again."""
    parts, found = urlsplit(url), set()
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    while not end.is_set():
        connection.request("POST", f"{parts.path}/v1/predict", body=json.dumps(body))
        answer = connection.getresponse()
        answer.read()
        found.add((answer.status, answer.getheader("retry-after")))
    return found


def test_a_workflow_is_removed_beneath_the_traffic_of_another(served: Served, tmp_path: Path) -> None:
    """No request of the other fails."""
    process = served.load(tmp_path / "samples.jsonl", seconds=8, connections=4)
    time.sleep(1)
    assert "error" not in served.do("undeploy_other")
    process.communicate(timeout=60)
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(samples) > 100
    assert {s[2] for s in samples} == {200}
    assert served.send("GET", "/other/healthz")[0] == 404
    assert served.send("GET", "/v1/model")[0] == 200


def test_ten_thousand_calls_without_a_good_key(served: Served) -> None:
    """From the first key on none, wrong, expired and under-scoped ones are refused; no file has a secret."""
    root, now = str(served.folder / "root"), datetime.now(UTC)
    book = KeyBook(root, "served")
    good = book.add(Caller(name="good", scopes=("predict",)), now=now)
    old = book.add(Caller(name="old", scopes=("predict",), expires=now), now=now)
    other = book.add(Caller(name="other", scopes=("outcomes",)), now=now)
    wrong = "rwf_" + "z" * 43
    time.sleep(3 * REFRESH_S)  # every replica has read the keys, whichever HAProxy asks
    before = served.logged()
    kinds = {None: 401, wrong: 401, old: 401, other: 403}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda key: _statuses(served.url, key, 1250), [*kinds, *kinds]))
    assert [set(statuses) for statuses in found] == [{status} for status in [*kinds.values()] * 2]
    assert sum(map(len, found)) == 10_000
    assert served.logged() == before
    assert set(_statuses(served.url, good, 20)) == {200}
    stored = [p for p in Path(served.folder).rglob("*") if p.is_file()]
    stored += [p for p in Path("/tmp/ray/session_latest/logs").rglob("*") if p.is_file()]
    texts = [p.read_bytes() for p in stored]
    assert [key for key in (good, old, other, wrong) if any(key.encode() in text for text in texts)] == []


def _statuses(url: str, key: str | None, count: int) -> list[int]:
    """Return how so many calls with a key are answered, one after the other over one connection."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    body, found = json.dumps({"features": dict(SMALL_ROW)}), []
    for _ in range(count):
        connection.request("POST", "/v1/predict", body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
        found.append(answer.status)
    connection.close()
    return found


def test_redeploy_and_down(served: Served) -> None:
    """Deploying again works while up; taken down it is down, twice too."""
    assert served.do("redeploy")["ok"] == served.url
    assert "error" not in served.do("undeploy")
    assert "error" not in served.do("undeploy")
    assert served.do("status")["ok"]["status"] == "DOWN"
