"""A Ray cluster that a module's tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import RayCluster


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """A head and two workers, with Ray's token authentication."""
    cluster = RayCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")))
    try:
        cluster.wait_for(1)
        for count in (2, 3):  # one after the other: each start wants a core for itself
            cluster.add_worker()
            cluster.wait_for(count)
        yield cluster
    finally:
        cluster.stop()
