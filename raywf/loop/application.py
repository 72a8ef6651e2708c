"""The endpoint as a Serve application for config files: ``import_path: raywf.loop.application:build``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raywf.core.errors import SettingsError
from raywf.core.loader import load_workflow
from raywf.registry.registry import open_registry
from raywf.serving.deploy import application


def build(args: dict[str, str]) -> Any:
    """Return the endpoint of the workflow whose file is ``args["workflow"]``, a path on the cluster's nodes.

    The model version is not an argument: replicas resolve the registry's champion alias and follow it, so
    that whoever applies the file again (``serve deploy``, KubeRay's operator) does not roll a model back.

    Raises:
        SettingsError: if ``workflow`` is missing, another argument is given, or the file is wrong.
    """
    if set(args) != {"workflow"}:
        raise SettingsError(f"the application takes one argument, 'workflow', got {sorted(args)!r}")
    workflow = load_workflow(Path(args["workflow"]))
    return application(workflow, open_registry(workflow))
