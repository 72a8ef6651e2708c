"""The running system: endpoint, monitor and controller on the workflow's cluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import ray

from raywf.core.codec import encode
from raywf.core.errors import ServingError
from raywf.core.ids import stable_id
from raywf.core.own import workflow_metric
from raywf.core.settings import Workflow
from raywf.loop.cluster import connect
from raywf.loop.controller import Controller
from raywf.loop.local import cluster_address, endpoint_file, endpoint_store, find_local, start_local
from raywf.loop.references import RegistryReferences
from raywf.monitor.actor import MonitorActor
from raywf.policy.rollout import Move
from raywf.policy.schedule import check_schedule
from raywf.registry.registry import open_registry
from raywf.serving.deploy import deploy, status, undeploy
from raywf.serving.deploy import url as endpoint_url

NAMESPACE = "raywf"


def up(workflow: Workflow) -> str:
    """Bring endpoint, monitor and controller up and return the endpoint's URL.

    Monitor and controller are started anew, so that changed settings hold; an endpoint that runs with these
    settings is left alone. Without `cluster.address` and RAY_ADDRESS a cluster is started on this machine and
    outlives this process.

    Raises:
        SettingsError: if the code of the user's metric cannot be read.
        RegistryError: if there is no champion to serve.
        ServingError: if the endpoint does not come up.
    """
    check_schedule(workflow.retrain)
    metric = workflow_metric(workflow)
    registry = open_registry(workflow)
    registry.resolve("champion")
    if cluster_address(workflow) is None:
        start_local(workflow)
    connect(workflow)
    url = _served(workflow)
    if url is None:
        _remember(workflow, {"url": endpoint_url(workflow.serving)})  # what runs meanwhile is of no settings
        try:
            url = deploy(workflow, registry)
        except BaseException:  # what did not come up must not keep others' cluster up
            endpoint_store(workflow).drop(endpoint_file(workflow))
            raise
        _remember(workflow, {"url": url, "settings": _settings_id(workflow)})
    references = RegistryReferences(workflow, registry)
    watching = _actor(MonitorActor, monitor_name(workflow), workflow, references, metric)
    controller = _actor(Controller, controller_name(workflow), workflow, registry, watching)
    ray.get(controller.ping.remote(), timeout=60)
    return url


def _served(workflow: Workflow) -> str | None:
    """Return the URL of an endpoint that runs with these settings, or None."""
    store = endpoint_store(workflow)
    if not store.exists(endpoint_file(workflow)):
        return None
    known = json.loads(store.read(endpoint_file(workflow)))
    if known.get("settings") != _settings_id(workflow):
        return None
    try:
        found = status(workflow)
    except ServingError:
        return None
    well = found["status"] == "RUNNING" and all(r["ok"] for r in found["replicas"])
    return str(known["url"]) if well else None


def _remember(workflow: Workflow, endpoint: dict[str, str]) -> None:
    endpoint_store(workflow).write(endpoint_file(workflow), json.dumps(endpoint).encode())


def _settings_id(workflow: Workflow) -> str:
    return stable_id(encode(workflow))


def down(workflow: Workflow) -> bool:
    """Take down what `up` brought up on the cluster of the user; return whether anything was up."""
    connect(workflow)
    found = [a for a in (controller(workflow), monitor(workflow)) if a is not None]
    for actor in found:
        ray.kill(actor)
    undeploy(workflow)
    endpoint_store(workflow).drop(endpoint_file(workflow))
    return bool(found)


def state(workflow: Workflow) -> dict[str, Any]:
    """Return what is up, as plain values; connects to the cluster where there is one."""
    if cluster_address(workflow) is None and find_local(workflow) is None:
        return {"status": "DOWN", "url": None, "replicas": []}
    connect(workflow)
    found = status(workflow)
    store = endpoint_store(workflow)
    if found["url"] is not None and store.exists(endpoint_file(workflow)):
        known = json.loads(store.read(endpoint_file(workflow)))
        found["url"] = known["url"]  # the port may have been given on a command line
    watching = monitor(workflow)
    if watching is not None:
        problem = ray.get(watching.error.remote(), timeout=20)
        found["monitor"] = {"error": problem} if problem else ray.get(watching.counts.remote(), timeout=20)
    deciding = controller(workflow)
    if deciding is not None:
        skip, error = ray.get([deciding.last_skip.remote(), deciding.error.remote()], timeout=20)
        found["controller"] = {"waits": "; ".join(skip.reasons) if skip else None, "error": error}
    return found


def last_move(workflow: Workflow) -> Move | None:
    """Return what the controller last found of the rollout under way; None where nothing is up."""
    if cluster_address(workflow) is None and find_local(workflow) is None:
        return None
    connect(workflow)
    deciding = controller(workflow)
    found: Move | None = None if deciding is None else ray.get(deciding.last_move.remote(), timeout=20)
    return found


def event_now(workflow: Workflow) -> datetime:
    """Return the present instant of event time, by the workflow's clock; the monitor knows the log's."""
    watching = monitor(workflow) if workflow.monitor.clock == "log" else None
    known = None if watching is None else ray.get(watching.watermark.remote(), timeout=20)
    return known or datetime.now(UTC)


def monitor(workflow: Workflow) -> Any:
    """Return the monitor actor's handle, or None."""
    return _find(monitor_name(workflow))


def controller(workflow: Workflow) -> Any:
    """Return the controller actor's handle, or None."""
    return _find(controller_name(workflow))


def monitor_name(workflow: Workflow) -> str:
    """Return the name of the workflow's monitor actor."""
    return f"{workflow.name}-monitor"


def controller_name(workflow: Workflow) -> str:
    """Return the name of the workflow's controller actor."""
    return f"{workflow.name}-controller"


def _actor(kind: type, name: str, *arguments: Any) -> Any:
    """Start an actor anew, with the present settings: it keeps nothing that the log and journal do not."""
    former = _find(name)
    if former is not None:
        ray.kill(former)
    options = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": -1,
        "max_concurrency": 4,  # a monitor that still reads its log must not hold other answers
        "num_cpus": 0,
    }
    return ray.remote(kind).options(**options).remote(*arguments)


def _find(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None
