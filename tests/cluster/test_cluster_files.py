"""The cluster files against Ray's own schema and KubeRay's, without a server."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.util import validate_config
from ray.serve.schema import ServeDeploySchema

from raywf.core.serving_settings import ServingSettings
from raywf.serving.environment import serve_env

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster"
DATA = Path(os.environ.get("RAYWFTEST_DATA", ROOT.parent / "shared" / "data"))
MANIFESTS = {"rayservice.yaml": "rayservices", "rayjob.yaml": "rayjobs"}
# ports, sockets and addresses of one machine: the cluster's nodes take Ray's defaults
OF_ONE_MACHINE = re.compile(r"_PORT$|_LOC$|_PATH$|_BASE$|_FILE$|_NBTHREAD$|WINDOWS_OR_OSX")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def schema(kind: str) -> Draft202012Validator:
    path = DATA / "kuberay-crds" / f"{kind}.schema.json"
    if not path.exists():
        pytest.skip(f"no KubeRay schemas in {path.parent}; RAYWFTEST_DATA names its parent")
    return Draft202012Validator(json.loads(path.read_text()))


def wanted_environment() -> set[str]:
    found = serve_env(ServingSettings(host="0.0.0.0"))
    return {f"{name}={value}" for name, value in found.items() if not OF_ONE_MACHINE.search(name)}


def test_the_aws_file_fits_ray_s_schema() -> None:
    """Ray's own check of `ray up` takes it."""
    validate_config(read("aws.yaml"))


@pytest.mark.parametrize("path", [(), ("available_node_types", "serve"), ("docker",), ("auth",)])
def test_an_unknown_aws_key_is_caught(path: tuple[str, ...]) -> None:
    """The check above can fail, at every level."""
    config = read("aws.yaml")
    here = config
    for key in path:
        here = here[key]
    here["instance_typ"] = {}
    with pytest.raises(ValidationError, match="'instance_typ' was unexpected"):
        validate_config(config)


def test_aws_workers_that_train_are_spot_and_the_others_are_not() -> None:
    """Drivers and replicas stay; trials may be lost."""
    types = read("aws.yaml")["available_node_types"].values()
    spot = {t["labels"]["pool"] for t in types if "InstanceMarketOptions" in t["node_config"]}
    assert spot == {"train"}


def test_aws_nodes_are_in_a_group_of_the_user() -> None:
    """A type without one would get Ray's default group, which opens port 22 to the internet."""
    types = read("aws.yaml")["available_node_types"].values()
    assert all(t["node_config"]["SecurityGroupIds"] for t in types)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_aws_nodes_start_ray_with_tokens_and_raywf_s_environment(role: str) -> None:
    """Each variable that raywf sets on one machine is set on every node."""
    command = read("aws.yaml")[f"{role}_start_ray_commands"][-1].replace('"', "")
    missing = {pair for pair in wanted_environment() | {"RAY_AUTH_MODE=token"} if pair not in command}
    assert missing == set()


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_manifests_fit_their_schema(name: str) -> None:
    """KubeRay 1.7 would take them."""
    errors = schema(MANIFESTS[name]).iter_errors(read(f"kuberay/{name}"))
    assert [f"{e.json_path}: {e.message}" for e in errors] == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_an_unknown_kuberay_key_is_caught(name: str) -> None:
    """The check above can fail, deep inside too."""
    manifest = read(f"kuberay/{name}")
    cluster = manifest["spec"].get("rayClusterConfig") or manifest["spec"]["rayClusterSpec"]
    cluster["workerGroupSpecs"][0]["minReplica"] = 1
    assert any("minReplica" in error.message for error in schema(MANIFESTS[name]).iter_errors(manifest))


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_clusters_ask_for_tokens(name: str) -> None:
    """Without a token, whoever reaches the dashboard runs code."""
    spec = read(f"kuberay/{name}")["spec"]
    cluster = spec.get("rayClusterConfig") or spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_service_s_pods_have_raywf_s_environment() -> None:
    """Each variable that raywf sets on one machine is set in every pod."""
    cluster = read("kuberay/rayservice.yaml")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pairs = {f"{e['name']}={e['value']}" for e in group["template"]["spec"]["containers"][0]["env"]}
        assert wanted_environment() <= pairs


def test_the_serve_config_is_one_that_ray_takes() -> None:
    """The text within the manifest fits Ray Serve's own model, and has no model version to roll back to."""
    text = read("kuberay/rayservice.yaml")["spec"]["serveConfigV2"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = config.applications
    assert application.args == {"workflow": "/etc/raywf/workflow.yaml"}
    assert "user_config" not in text


def test_no_file_opens_the_dashboard_to_every_address() -> None:
    """Ray's dashboard runs code for whoever reaches it; only Serve's own port may listen everywhere."""
    for path in (*FOLDER.rglob("*.yaml"), FOLDER / "Dockerfile"):
        settings = re.sub(r"#.*", "", path.read_text())
        assert not re.search(r"dashboard-host\W+(?!127\.0\.0\.1)\S", settings), path.name
        assert set(re.findall(r".*0\.0\.0\.0.*", settings)) <= {
            "    http_options: {host: 0.0.0.0, port: 8000}"
        }


def test_versions_are_those_of_the_constraints() -> None:
    """Image and manifests name the Ray that raywf is pinned to."""
    pinned = re.search(r"(?m)^ray==(\S+)$", (ROOT / "constraints.txt").read_text())
    assert pinned
    files = (*FOLDER.rglob("*.yaml"), FOLDER / "Dockerfile")
    named = re.findall(r"(?:rayproject/ray:|rayVersion: )([\d.]+)", "".join(f.read_text() for f in files))
    assert set(named) == {pinned[1]}
    assert len(named) == 4
