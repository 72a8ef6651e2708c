"""A user's project folder for the tests: the `raywf` command as a process of its own, and what it answers."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

RAYWF = str(Path(sys.executable).parent / "raywf")
ENVIRON = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "RAYWF_"))},
    "OMP_NUM_THREADS": "1",
}


class Project:
    """A folder with a `workflow.yaml`, and what its commands see in their environment besides."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder, self.environ = folder, environ

    def try_raywf(self, *words: str, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder, however it ends."""
        command = [RAYWF, *words]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=ENVIRON | self.environ,
            cwd=self.folder,
            timeout=timeout_s,
            check=False,
        )

    def raywf(self, *words: str, timeout_s: float = 180) -> Any:
        """Run a command that has to succeed, and return its ``--json``."""
        done = self.try_raywf(*words, "--json", timeout_s=timeout_s)
        assert done.returncode == 0, f"raywf {' '.join(words)}: {done.stderr[-4000:]}"
        return json.loads(done.stdout)

    def edit(self, *changes: tuple[str, str]) -> None:
        """Replace each text of the workflow.yaml, which has to be there once."""
        file = self.folder / "workflow.yaml"
        text = file.read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        file.write_text(text)


def cluster_processes(folder: Path) -> list[psutil.Process]:
    """Return every process of the local cluster that a project's folder names."""
    state = json.loads((folder / ".raywf" / "cluster.json").read_text())
    starter = psutil.Process(state["pid"])
    return [starter, *starter.children(recursive=True)]


def command_of(process: psutil.Process) -> str:
    """Return a process's command line; empty if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def post(url: str, body: Any, *, timeout_s: float = 10) -> tuple[int, Any]:
    """Send JSON, and return the status and the answer; a refusal is an answer too.

    An answer that breaks off, as one of a process that was killed may, raises ConnectionError.
    """
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as err:
        with err:
            return err.code, json.loads(err.read() or b"null")
    except http.client.HTTPException as err:
        raise ConnectionError(f"the answer of {url} broke off: {err!r}") from err


def until(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:.0f} s"
        time.sleep(0.2)
