"""Brings the endpoint up on the Ray cluster that this process is connected to, and down again.

See `raywf.serving.environment` for what has to be set before Ray starts and for what listens where.
"""

from __future__ import annotations

import os
import socket
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import BackpressureConfig, HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from raywf.core.addresses import LOOPBACK
from raywf.core.errors import ServingError
from raywf.core.pools import selector
from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import Workflow
from raywf.core.source import ModelSource
from raywf.serving.app import Endpoint
from raywf.serving.keys import KeyBook
from raywf.serving.scaling import autoscaling
from raywf.serving.spread import room_for_replicas, spread
from raywf.serving.swap import broadcast, call_replicas

MAX_ONGOING = 100
MAX_QUEUED = 1000
MAX_CONSTRUCTOR_TRIES = 3
HEALTHY_S = 60.0
_ASK_S = 10.0


def app_name(workflow: Workflow) -> str:
    """Return the Serve application's name."""
    return f"raywf-{workflow.name}"


def url(settings: ServingSettings) -> str:
    """Return the address that a client on this machine uses."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 compared, not bound
    return f"http://{host}:{settings.port}{settings.route.rstrip('/')}"


def deploy(workflow: Workflow, source: ModelSource) -> str:
    """Start the endpoint, wait until it is healthy, and return its URL.

    Deploying again replaces the replicas one by one, new before old where there is a place for one more. To
    change the model use `raywf.serving.swap`.

    Raises:
        ServingError: if the endpoint does not come up, the host does not fit the cluster's addresses, or
            others than this machine could call it without a key.

    """
    settings = workflow.serving
    _check_addresses(settings)
    _check_keys(workflow)
    _check_grpc_port(workflow)
    options = HTTPOptions(
        host=settings.host, port=settings.port, request_timeout_s=settings.request_timeout_s
    )
    logging_config = LoggingConfig(enable_access_log=False, log_level="WARNING")
    try:
        serve.start(http_options=options, logging_config=logging_config)
        serve.run(
            application(workflow, source),
            name=app_name(workflow),
            route_prefix=settings.route,
            logging_config=logging_config,
        )
    except (RuntimeError, ValueError, RayError, RayServeException) as err:
        raise ServingError(f"{app_name(workflow)} did not come up: {err}") from err
    deadline = time.monotonic() + HEALTHY_S
    _wait_until_healthy(url(settings), deadline)
    broadcast(app_name(workflow), "served", deadline=deadline)  # the first such call costs a replica most
    return url(settings)


def application(workflow: Workflow, source: ModelSource) -> Any:
    """Return the endpoint as a Serve application, not yet run.

    On a cluster where several nodes may have replicas none gets more than its share: Ray by itself puts all
    on one now and then, and its loss would take them all.
    """
    settings = workflow.serving
    scaled = autoscaling(settings)
    labels = selector("serve", labelled=workflow.cluster.pools)
    nodes = ray.nodes() if ray.is_initialized() else []
    room = room_for_replicas(nodes, labels=labels, cpus=settings.replica_cpus)
    placed = spread(settings.max_replicas or settings.replicas, room)
    deployment = serve.deployment(
        Endpoint,
        name="endpoint",
        num_replicas=settings.replicas if scaled is None else None,
        autoscaling_config=scaled,
        ray_actor_options={"num_cpus": settings.replica_cpus}
        | ({"label_selector": labels} if labels else {}),
        max_replicas_per_node=placed.per_node,
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        max_surge_percent=placed.surge_percent,
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        max_constructor_retry_count=MAX_CONSTRUCTOR_TRIES,
    )
    return deployment.bind(workflow, source)


def undeploy(workflow: Workflow) -> None:
    """Take the endpoint down; no error where it is not up.

    Raises:
        ServingError: if the cluster does not answer.

    """
    try:
        if app_name(workflow) in serve.status().applications:
            serve.delete(app_name(workflow))
    except (RuntimeError, RayError, RayServeException) as err:
        raise ServingError(f"{app_name(workflow)} was not taken down: {err}") from err


def status(workflow: Workflow) -> dict[str, Any]:
    """Return the app's state, its URL and each replica's version as plain values.

    Raises:
        ServingError: if the cluster does not answer.

    """
    try:
        app = serve.status().applications.get(app_name(workflow))
    except (RuntimeError, RayError, RayServeException) as err:
        raise ServingError(f"Ray Serve does not answer: {err}") from err
    if app is None:
        return {"app": app_name(workflow), "status": "DOWN", "url": None, "replicas": []}
    running = str(app.status.value) == "RUNNING"
    replicas = broadcast(app_name(workflow), "served", deadline=time.monotonic() + _ASK_S) if running else []
    return {
        "app": app_name(workflow),
        "status": str(app.status.value),
        "message": app.message,
        "url": url(workflow.serving),
        "replicas": [asdict(replica) for replica in replicas],
    }


def _check_addresses(settings: ServingSettings) -> None:
    if settings.host not in LOOPBACK or os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") != "1":
        return
    nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    outside = [address for address in nodes if address not in LOOPBACK]
    if outside:
        raise ServingError(
            f"serving.host is {settings.host!r}, but HAProxy dials replicas at {outside[0]}: start Ray with "
            "the variables of raywf.serving.environment.serve_env, or set serving.host to '0.0.0.0'"
        )


def _check_keys(workflow: Workflow) -> None:
    settings = workflow.serving
    if settings.may_be_open or settings.oidc is not None:
        return
    if KeyBook(workflow.stores.root, workflow.name).read() is None:
        raise ServingError(
            f"serving.host is {settings.host!r} and {workflow.name} has no API key, so that whoever reaches "
            "the port could call it: make one with `raywf keys add NAME`, or set serving.open_to_all: true"
        )


def _check_grpc_port(workflow: Workflow) -> None:
    """Refuse a port that another listens on: replicas share theirs, and would share the other's calls too."""
    settings = workflow.serving
    if settings.grpc_port is None:
        return
    with socket.socket() as probe:
        probe.settimeout(1)
        is_taken = probe.connect_ex((urlsplit(url(settings)).hostname, settings.grpc_port)) == 0
        if is_taken and not _may_be_ours(workflow, settings.grpc_port):
            raise ServingError(
                f"serving.grpc_port {settings.grpc_port} is in use by another; choose a free one"
            )


def _may_be_ours(workflow: Workflow, port: int) -> bool:
    """Return whether the workflow's own replicas may be who listens: False only where all say otherwise."""
    state = status(workflow)["status"]
    if state != "RUNNING":
        return bool(state != "DOWN")
    answers = call_replicas(app_name(workflow), "grpc_port", deadline=time.monotonic() + _ASK_S)
    return any(not (answer is None or isinstance(answer, int)) or answer == port for answer in answers)


def _wait_until_healthy(base: str, deadline: float) -> None:
    reason = "no answer"
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{base}/healthz", timeout=5) as response:  # noqa: S310 our own http URL
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError) as err:
            reason = str(err)
        time.sleep(0.1)
    shared = "workflows of one cluster answer at the host and port of the one that was up first"
    raise ServingError(f"{base}/healthz is not healthy after {HEALTHY_S:.0f} s: {reason}; {shared}")
