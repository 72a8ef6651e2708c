"""An S3 server that can be halted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SERVER = """
import sys, time
from moto.server import ThreadedMotoServer
ThreadedMotoServer("127.0.0.1", int(sys.argv[1]), verbose=False).start()
print("up", flush=True)
time.sleep(1e6)
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of an S3 server."""

    name: str
    pid: int

    @contextmanager
    def away(self) -> Iterator[None]:
        """Halt the server: it takes connections and answers none."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def start_s3(port: int) -> subprocess.Popen[str]:
    """Start an S3 server, and return it once it answers."""
    command = [sys.executable, "-c", SERVER, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "up"
    return process
