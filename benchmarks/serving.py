"""Requests a second and their times: raywf with everything on, bare Starlette, MLflow and BentoML.

``python benchmarks/serving.py [--seconds 8] [--rounds 3] [--peers starlette,mlflow,bentoml,raywf_synced]``
serves the same LightGBM model of 200 trees by each of them in turn on this machine, asked for one row by 1, 8
and 32 connections of wrk (``apt install wrk``). raywf has one replica behind HAProxy, with an API key
checked, each row checked and each answer in the outcome log, which raywf_synced waits for (``sync: each``);
Starlette (uvicorn with uvloop, one process) only parses JSON and predicts; ``mlflow models serve`` has two
workers, BentoML its defaults in an environment of its own.
At 32 connections the contenders take turns `--rounds` times, and the ratios are of the medians. Arrow bodies
of 1,000 rows are compared with the same predictor in this process, on the same table.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import pyarrow as pa  # noqa: E402
from automl_runners.environments import peer_python  # noqa: E402 the folder is a set of scripts
from pyarrow import ipc  # noqa: E402

from raywf.core.clock import format_time  # noqa: E402
from raywf.models.bundle import load_bundle  # noqa: E402
from raywf.serving.environment import free_ports  # noqa: E402
from raywf.testing import SMALL_ROW, small_bundle, small_table  # noqa: E402

TREES, ROWS = 200, 1000
CONNECTIONS = (1, 8, 32)
ARROW = "application/vnd.apache.arrow.stream"
CACHE = Path.home() / ".cache" / "raywf-bench" / "serving"


@dataclass
class Contender:
    """Something that serves: where, how a row is asked for, and what it showed."""

    name: str
    url: str
    path: str
    body: dict[str, Any]
    headers: tuple[str, ...] = ()
    rps: dict[int, list[float]] = field(default_factory=dict)
    times: dict[int, tuple[float, float]] = field(default_factory=dict)

    def measure(self, connections: int, seconds: float) -> None:
        """Ask for so long; a request that fails ends the benchmark."""
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "-s",
            str(HERE / "serving_peers/ask.lua"),
        ]
        given = {"BODY": json.dumps(self.body), "HEADERS": "\n".join(self.headers)}
        done = subprocess.run(
            [*command, self.url + self.path],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 60,
            env={**os.environ, **given},
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if found["failed"]:
            raise RuntimeError(f"{self.name}: {found['failed']} of {found['requests']} requests failed")
        self.rps.setdefault(connections, []).append(found["rps"])
        self.times[connections] = found["p50_ms"], found["p99_ms"]
        print(f"{self.name:>10} {connections:>3} connections: {found}", file=sys.stderr, flush=True)


@contextmanager
def process(command: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server and end it with all its children."""
    log = open(folder / f"{Path(command[0]).name}-{time.time():.0f}.log", "wb")  # noqa: SIM115
    made = subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, **environment}, cwd=folder, start_new_session=True
    )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.pid, signal.SIGKILL)
        made.wait(30)
        log.close()


def until_up(ask: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def post(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: bytes = answer.read()
    return found


@contextmanager
def starlette(bundle: Path, folder: Path) -> Iterator[Contender]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "starlette_app:app", "--port", str(port)]
    command += ["--app-dir", str(HERE / "serving_peers"), "--no-access-log", "--log-level", "warning"]
    made = Contender("starlette", f"http://127.0.0.1:{port}", "/v1/predict", {"features": dict(SMALL_ROW)})
    with process(command, folder, BENCH_BUNDLE=str(bundle)):
        yield _ready(made)


@contextmanager
def mlflow(bundle: Path, folder: Path) -> Iterator[Contender]:
    (port,) = free_ports(1)
    model = folder / "mlflow-model"
    if not model.exists():
        script = str(HERE / "serving_peers" / "mlflow_model.py")
        subprocess.run([sys.executable, script, str(bundle), str(model)], check=True, capture_output=True)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    command += ["--port", str(port), "--workers", "2"]
    split = {"columns": list(SMALL_ROW), "data": [list(SMALL_ROW.values())]}
    made = Contender("mlflow", f"http://127.0.0.1:{port}", "/invocations", {"dataframe_split": split})
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it runs uvicorn by name
    with process(command, folder, PATH=path):
        yield _ready(made)


@contextmanager
def bentoml(bundle: Path, folder: Path) -> Iterator[Contender]:
    (port,) = free_ports(1)
    python = peer_python(CACHE, "bentoml")
    site = next((python.parent.parent / "lib").glob("python3*/site-packages"))
    ours = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    (site / "raywf-bench.pth").write_text(f"{HERE.parent}\n{ours}\n")  # the predictor's own libraries
    command = [str(python), "-m", "bentoml", "serve", "bento_service:Served", "--port", str(port)]
    command += ["--working-dir", str(HERE / "serving_peers")]
    made = Contender("bentoml", f"http://127.0.0.1:{port}", "/predict", {"features": dict(SMALL_ROW)})
    with process(command, folder, BENCH_BUNDLE=str(bundle), BENTOML_DO_NOT_TRACK="True"):
        yield _ready(made)


def _ready(made: Contender) -> Contender:
    body, headers = json.dumps(made.body).encode(), {"content-type": "application/json"}
    headers |= dict(header.split(": ", 1) for header in made.headers)
    until_up(lambda: post(made.url + made.path, body, headers))
    made_warm = Contender(made.name, made.url, made.path, made.body, made.headers)
    made_warm.measure(8, 3)
    return made


@contextmanager
def raywf(bundle: Path, folder: Path, *, sync: str = "interval") -> Iterator[Contender]:
    """Serve by a cluster of another process, so that each contender starts from nothing."""
    command = [
        sys.executable,
        str(HERE / "serving_peers" / "raywf_driver.py"),
        str(bundle),
        str(folder),
        sync,
    ]
    errors = open(folder / "raywf.err", "ab")  # noqa: SIM115 lives as long as the process
    made = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert made.stdout is not None
        line = next((one for one in made.stdout if one.startswith(">>> ")), "")
        if not line:
            raise RuntimeError((folder / "raywf.err").read_text()[-3000:])
        up = json.loads(line[4:])
        key = f"authorization: Bearer {up['key']}"
        name = "raywf" if sync == "interval" else "raywf_synced"
        yield _ready(Contender(name, up["url"], "/v1/predict", {"features": dict(SMALL_ROW)}, (key,)))
    finally:
        assert made.stdin is not None
        made.stdin.close()
        made.wait(60)


def arrow_rows(contender: Contender, bundle: Path, seconds: float) -> dict[str, float]:
    """Return the rows a second of Arrow bodies and of the predictor in this process, in turns."""
    snapshot = small_table(ROWS, np.random.default_rng(1))
    at = snapshot.column_names.index("departure")
    texts = [format_time(when) for when in snapshot.column(at).to_pylist()]
    table = snapshot.set_column(at, "departure", pa.array(texts))
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body = sink.getvalue()
    headers = {"content-type": ARROW} | dict(h.split(": ", 1) for h in contender.headers)
    predictor = load_bundle(bundle)
    parts = urlsplit(contender.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)

    def ask() -> None:
        connection.request("POST", contender.path, body=body, headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"an Arrow body was refused: {answer.read()[:300]!r}")
        answer.read()

    ways: dict[str, Callable[[], Any]] = {
        "http": ask,
        "in_process": lambda: predictor.predict_table(snapshot),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            way()
            end, count, start = time.monotonic() + seconds / 5, 0, time.perf_counter()
            while time.monotonic() < end:
                way()
                count += 1
            rates[name].append(count * ROWS / (time.perf_counter() - start))
    found = {f"arrow_rows_per_s_{name}": round(median(rate), 1) for name, rate in rates.items()}
    found["arrow_rows_ratio"] = round(median(rates["http"]) / median(rates["in_process"]), 3)
    return found


def replica_mb() -> float:
    """Return the largest replica's resident memory."""
    found = [p.memory_info().rss for p in psutil.process_iter(["cmdline"]) if _is_replica(p)]
    return round(max(found, default=0) / 1e6, 1)


def _is_replica(one: psutil.Process) -> bool:
    return "ServeReplica:raywf-bench" in " ".join(one.info["cmdline"] or ())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="starlette,mlflow,bentoml,raywf_synced")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not there: apt install wrk")
    starts: dict[str, Any] = {
        "raywf": raywf,
        "raywf_synced": partial(raywf, sync="each"),
        "starlette": starlette,
        "mlflow": mlflow,
        "bentoml": bentoml,
    }
    names = ["raywf", *options.peers.split(",")]
    shown: dict[str, Contender] = {}
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rwf-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        bundle = folder / "bundle"
        small_bundle(bundle, rounds=TREES)
        for turn in range(options.rounds):
            for which in names:
                with starts[which](bundle, folder) as contender:
                    for connections in CONNECTIONS if turn == 0 else (CONNECTIONS[-1],):
                        contender.measure(connections, options.seconds)
                    if which == "raywf" and turn == 0:
                        facts |= arrow_rows(contender, bundle, options.seconds)
                        facts["replica_mb"] = replica_mb()
                before = shown.setdefault(which, contender)
                if before is not contender:
                    before.rps[32] += contender.rps[32]
    print(json.dumps(_summary(shown) | facts))
    return 0


def _summary(shown: dict[str, Contender]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ours = median(shown["raywf"].rps[32])
    for name, contender in shown.items():
        if name != "raywf":
            found[f"ratio_{name}_c32"] = round(ours / median(contender.rps[32]), 3)
        for connections in CONNECTIONS:
            p50, p99 = contender.times[connections]
            found[f"{name}_c{connections}"] = {
                "rps": median(contender.rps[connections]),
                "p50_ms": p50,
                "p99_ms": p99,
            }
    return found


if __name__ == "__main__":
    sys.exit(main())
