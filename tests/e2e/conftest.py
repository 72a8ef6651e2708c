"""Servers that stores are kept on: an S3 API and PostgreSQL, each a process of the tests' own."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import command_line
from servers import Bucket, start_s3

from raywf.serving.environment import free_ports


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """An empty bucket; this process and the command line's find its server by the environment."""
    (port,) = free_ports(1)
    process = start_s3(port)
    environ = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
            patch.setitem(command_line.ENVIRON, name, value)
        boto3.client("s3").create_bucket(Bucket="raywf")
        yield Bucket("raywf", process.pid)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL server's URI, behind a socket in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rwf-pg-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        import pgserver  # which asks for that folder when it is imported

    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)
