"""The application that rayservice.yaml names by import path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve
from ray._common.utils import import_attr

from raywf.core.errors import SettingsError
from raywf.core.loader import load_workflow
from raywf.loop.application import build
from raywf.registry.registry import Registry
from raywf.serving.deploy import app_name

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = "name: churn\ntask: binary\nspine: {path: t.csv, label: y}\nserving: {replicas: 3}\n"


@pytest.fixture
def application() -> Any:
    manifest = yaml.safe_load((ROOT / "cluster/kuberay/rayservice.yaml").read_text())
    return yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"][0]


@pytest.fixture
def workflow_file(tmp_path: Path) -> str:
    (tmp_path / "workflow.yaml").write_text(SETTINGS)
    return str(tmp_path / "workflow.yaml")


def test_the_manifest_s_import_path_resolves(application: Any) -> None:
    """What the operator imports is the builder."""
    assert import_attr(application["import_path"]) is build


def test_the_manifest_s_name_is_the_one_that_raywf_looks_for(application: Any, workflow_file: str) -> None:
    """A swap finds the application by its name."""
    name = application["name"].replace("REPLACE", "churn")
    assert name == app_name(load_workflow(workflow_file))


def test_the_builder_makes_the_endpoint(workflow_file: str) -> None:
    """Replicas come from the settings; the model comes from the registry, not from the arguments."""
    made = build({"workflow": workflow_file})
    assert isinstance(made, serve.Application)
    deployment = made._bound_deployment
    assert deployment.num_replicas == 3
    workflow, source = deployment.init_args
    assert (workflow.name, type(source)) == ("churn", Registry)


@pytest.mark.parametrize("args", [{}, {"workflw": "a"}, {"workflow": "a", "version": "3"}])
def test_other_arguments_are_refused(args: dict[str, str]) -> None:
    """A model version in the arguments would be rolled back to."""
    with pytest.raises(SettingsError, match="takes one argument, 'workflow'"):
        build(args)
