"""The endpoint as a Serve application for config files: ``import_path: raywf.loop.application:build``."""

from __future__ import annotations

from pathlib import Path

from ray import serve

from raywf.core.errors import SettingsError
from raywf.core.loader import load_workflow
from raywf.registry.registry import open_registry
from raywf.serving.app import Endpoint
from raywf.serving.deploy import MAX_CONSTRUCTOR_TRIES, MAX_ONGOING, MAX_QUEUED


def build(args: dict[str, str]) -> serve.Application:
    """Return the endpoint of the workflow whose file is ``args["workflow"]``, a path on the cluster's nodes.

    The model version is not an argument: replicas resolve the registry's champion alias and follow it, so
    that whoever applies the file again (``serve deploy``, KubeRay's operator) does not roll a model back.

    Raises:
        SettingsError: if ``workflow`` is missing, another argument is given, or the file is wrong.
    """
    if set(args) != {"workflow"}:
        raise SettingsError(f"the application takes one argument, 'workflow', got {sorted(args)!r}")
    workflow = load_workflow(Path(args["workflow"]))
    deployment = serve.deployment(
        Endpoint,
        name="endpoint",
        num_replicas=workflow.serving.replicas,
        ray_actor_options={"num_cpus": workflow.serving.replica_cpus},
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        max_surge_percent=100,
        health_check_period_s=2.0,
        health_check_timeout_s=30.0,
        max_constructor_retry_count=MAX_CONSTRUCTOR_TRIES,
    )
    return deployment.bind(workflow, open_registry(workflow))
