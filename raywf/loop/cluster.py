"""Connects this process to the Ray cluster that a workflow uses."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

import ray
from ray.data import DataContext

from raywf.core.errors import SettingsError
from raywf.core.settings import Workflow
from raywf.loop.local import cluster_address, find_local

_ANSWER_S = 10.0


def connect(workflow: Workflow) -> None:
    """Connect this process to the workflow's cluster; start Ray in the process where there is none.

    Raises:
        SettingsError: if `cluster.address` is given and cannot be reached.
    """
    if not ray.is_initialized():
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        local = find_local(workflow)
        address = cluster_address(workflow)
        if address is None and local is not None:
            os.environ.update(local.environ)
            address = local.address
        if address is None:
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of this process alone, on loopback
            ray.init(
                address="local",
                num_cpus=workflow.cluster.cpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
        else:
            join_cluster(address)
    quiet()


def join_cluster(address: str) -> None:
    """Connect this process to a cluster that is up.

    Raises:
        SettingsError: if it cannot be reached.
    """
    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as err:  # a ConnectionError is an OSError
        raise SettingsError(f"the Ray cluster at {address!r} cannot be reached: {err}") from err
    quiet()


def _knock(address: str) -> None:
    """Connect once where the address is a host and a port: Ray itself tries for a quarter of an hour.

    Raises:
        OSError: if nothing answers there.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()


def quiet() -> None:
    """Let Ray's libraries say in this process what is wrong and nothing else."""
    for name in ("ray.data", "ray.tune", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context: Any = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
