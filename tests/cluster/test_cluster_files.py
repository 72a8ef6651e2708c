"""The cluster files against Ray's own checks, KubeRay's schemas and Ray Serve's, without a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from metadata_service import metadata_service
from ray._private import ray_constants
from ray._private.label_utils import parse_node_labels_string
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from raywf.cluster.plan import RAY_VERSION
from raywf.cluster.render import ALWAYS, MANIFESTS
from raywf.cluster.review import review
from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import CostSettings
from raywf.serving.environment import EVERY_NODE, serve_env

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "cluster"
DATA = Path(os.environ.get("RAYWFTEST_DATA", ROOT.parent / "shared" / "data"))
UP = ("aws.yaml", "gcp.yaml", "azure.yaml", "on-premise.yaml")
CLUSTER_AT = {  # where a kind has its cluster
    "RayCluster": ("spec",),
    "RayService": ("spec", "rayClusterConfig"),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
WITH_CLUSTER = [name for name in MANIFESTS if name.startswith("ray")]
# ports, sockets and addresses of one machine: the cluster's nodes take Ray's defaults
OF_ONE_MACHINE = re.compile(r"_PORT$|_LOC$|(?<!IMPORT)_PATH$|_BASE$|_FILE$|_NBTHREAD$|WINDOWS_OR_OSX")


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def documents() -> list[Any]:
    paths = [FOLDER / "kuberay" / name for name in MANIFESTS]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def the(kind: str, end: str) -> Any:
    """Return the one document of a kind whose name ends so."""
    (found,) = [d for d in documents() if d["kind"] == kind and d["metadata"].get("name", "").endswith(end)]
    return found


def cluster_of(manifest: Any) -> Any:
    for key in CLUSTER_AT[manifest["kind"]]:
        manifest = manifest[key]
    return manifest


def groups(manifest: Any) -> Iterator[Any]:
    cluster = cluster_of(manifest)
    yield from (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])


def schema(manifest: Any) -> Draft202012Validator:
    path = DATA / "kuberay-crds" / f"{manifest['kind'].lower()}s.schema.json"
    if not path.exists():
        pytest.skip(f"no KubeRay schemas in {path.parent}; RAYWFTEST_DATA names its parent")
    return Draft202012Validator(json.loads(path.read_text()))


@pytest.mark.parametrize("name", UP)
def test_ray_up_would_take_it(name: str) -> None:
    """By Ray's own checks, as it stands and with Ray's defaults filled in."""
    validate_config(read(name))
    prepared = prepare_config(read(name))
    validate_config(prepared)
    assert "ray-wheels" not in json.dumps(prepared)
    assert not re.search(r"dashboard-host=(?!127\.0\.0\.1)", json.dumps(prepared))


@pytest.mark.parametrize("path", [(), ("available_node_types", "serve"), ("docker",), ("auth",)])
def test_an_unknown_key_is_caught(path: tuple[str, ...]) -> None:
    """The check above can fail, at every level."""
    config = read("aws.yaml")
    here = config
    for key in path:
        here = here[key]
    here["instance_typ"] = {}
    with pytest.raises(ValidationError, match="'instance_typ' was unexpected"):
        validate_config(config)


@pytest.mark.parametrize("away", [False, True])
def test_ray_takes_the_labels_that_a_machine_of_aws_gives_itself(
    away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a shell makes them of the file's command, beside the pool's, and none where none are told."""
    (option,) = re.findall(r"--labels=.*$", read("aws.yaml")["worker_start_ray_commands"][-1])
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with metadata_service() as service:
        service.away = away
        asking = option.replace("--cloud aws", f"--cloud aws --endpoint {service.address}")
        printed = subprocess.run(
            ["bash", "-c", f"printf %s {asking}"], capture_output=True, text=True, check=True
        )
    monkeypatch.setenv(ray_constants.LABELS_ENVIRONMENT_VARIABLE, '{"pool":"train"}')
    made = ResourceAndLabelSpec(labels=parse_node_labels_string(printed.stdout.removeprefix("--labels=")))
    made._resolve_labels(None)
    told = {"instance-id": "i-0123456789abcdef0", "node-type": "m7i.2xlarge"}
    assert made.labels == {"pool": "train"} | ({} if away else told)


def test_every_variable_of_serve_is_one_for_every_node_or_of_one_machine() -> None:
    """What raywf sets on one machine is set on a cluster's nodes, ports and sockets excepted."""
    found = serve_env(ServingSettings(host="0.0.0.0"))
    assert {name: value for name, value in found.items() if not OF_ONE_MACHINE.search(name)} == EVERY_NODE


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_manifests_fit_their_schema(name: str) -> None:
    """KubeRay 1.7 would take them."""
    manifest = read(f"kuberay/{name}")
    errors = schema(manifest).iter_errors(manifest)
    assert [f"{e.json_path}: {e.message}" for e in errors] == []


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_an_unknown_kuberay_key_is_caught(name: str) -> None:
    """The check above can fail, deep inside too."""
    manifest = read(f"kuberay/{name}")
    cluster_of(manifest)["workerGroupSpecs"][0]["minReplica"] = 1
    assert any("minReplica" in error.message for error in schema(manifest).iter_errors(manifest))


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_the_command_checks_by_the_same_schema(name: str, tmp_path: Path) -> None:
    """`raywf cluster check --crds` finds the manifest good, and what is wrong in it."""
    manifest = read(f"kuberay/{name}")
    schema(manifest)
    crds = DATA / "kuberay-crds"
    assert review(FOLDER / "kuberay" / name, CostSettings(), crds=crds).is_good
    cluster_of(manifest)["headGroupSpec"]["rayStartParam"] = {}
    (tmp_path / name).write_text(yaml.safe_dump(manifest))
    (error, *_) = review(tmp_path / name, CostSettings(), crds=crds).findings
    assert (error.level, "'rayStartParam' was unexpected" in error.text) == ("error", True)


def test_azure_machines_have_parameters_that_ray_s_template_knows() -> None:
    """Azure refuses a deployment with any other."""
    spec = find_spec("ray.autoscaler._private")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    known = json.loads((Path(folder) / "_azure" / "azure-vm-template.json").read_text())["parameters"]
    for kind in read("azure.yaml")["available_node_types"].values():
        asked = kind["node_config"]["azure_arm_parameters"]
        types = {"string": str, "int": int, "object": dict}
        assert {
            name for name, value in asked.items() if not isinstance(value, types[known[name]["type"]])
        } == set()


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_clusters_ask_for_tokens(name: str) -> None:
    """Of the one secret that is made beside them, under the key that the operator looks for."""
    auth = cluster_of(read(f"kuberay/{name}"))["authOptions"]
    assert auth == {"mode": "token", "secretName": the("Secret", "-token")["metadata"]["name"]}
    assert list(the("Secret", "-token")["stringData"]) == ["auth_token"]


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_clusters_scale_by_the_second_autoscaler(name: str) -> None:
    """Each group with its limits, in the pool that its label says."""
    cluster = cluster_of(read(f"kuberay/{name}"))
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] <= group["maxReplicas"]
        assert group["groupName"].startswith(group["labels"]["pool"])


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_pods_are_bounded_and_without_rights(name: str) -> None:
    """Requests are limits, none runs as root, and only the head has an account of Kubernetes'."""
    for group in groups(read(f"kuberay/{name}")):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"]["runAsNonRoot"]
        assert ("groupName" in group) == ("automountServiceAccountToken" in pod)


@pytest.mark.parametrize("name", WITH_CLUSTER)
def test_pods_have_the_variables_and_stores(name: str) -> None:
    """From the settings that are made beside them."""
    made = {(d["kind"], d["metadata"]["name"]) for d in documents() if d["kind"] in ("ConfigMap", "Secret")}
    for group in groups(read(f"kuberay/{name}")):
        sources = group["template"]["spec"]["containers"][0]["envFrom"]
        refs = {
            ("ConfigMap" if "configMapRef" in s else "Secret", *(v["name"] for v in s.values()))
            for s in sources
        }
        assert refs <= made
        assert ("ConfigMap", "raywf-ray") in refs


def test_the_variables_are_raywf_s() -> None:
    """All of them; the mode and the token are KubeRay's to set."""
    assert the("ConfigMap", "-ray")["data"] == {
        k: v for k, v in (ALWAYS | EVERY_NODE).items() if k != "RAY_AUTH_MODE"
    }


def test_ports_are_those_of_ray_serve_and_raywf() -> None:
    """A container's, and those that the network policy opens."""
    serve = ServingSettings().port
    known = {
        "gcs-server": ray_constants.DEFAULT_PORT,
        "dashboard": ray_constants.DEFAULT_DASHBOARD_PORT,
        "as-metrics": AUTOSCALER_METRIC_PORT,
        "metrics": 8080,  # KubeRay starts Ray with it
        "serve": serve,
    }
    clusters = [read(f"kuberay/{name}") for name in WITH_CLUSTER]
    pods = [group["template"]["spec"]["containers"][0] for manifest in clusters for group in groups(manifest)]
    assert {(p["name"], p["containerPort"]) for pod in pods for p in pod["ports"]} == set(known.items())
    rules = the("NetworkPolicy", "")["spec"]["ingress"]
    assert {p["port"] for rule in rules for p in rule.get("ports", ())} <= set(known.values())
    assert [r["from"] for r in rules if "ports" not in r] == [
        [{"podSelector": the("NetworkPolicy", "")["spec"]["podSelector"]}]
    ]


def test_head_and_replicas_are_not_drained_at_once() -> None:
    """A budget for each, by the labels that KubeRay gives pods."""
    serve, head = the("PodDisruptionBudget", "-serve")["spec"], the("PodDisruptionBudget", "-head")["spec"]
    assert (serve["maxUnavailable"], serve["selector"]["matchLabels"]["ray.io/group"]) == (1, "serve")
    assert (head["maxUnavailable"], head["selector"]["matchLabels"]["ray.io/node-type"]) == (0, "head")
    labels = next(groups(read("kuberay/raycluster.yaml")))["template"]["metadata"]["labels"]
    own = {k: v for k, v in serve["selector"]["matchLabels"].items() if not k.startswith("ray.io/")}
    assert own.items() <= labels.items()


def test_the_serve_config_is_one_that_ray_takes() -> None:
    """The text within the manifest fits Ray Serve's own model, and has no model version to roll back to."""
    text = read("kuberay/rayservice.yaml")["spec"]["serveConfigV2"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = config.applications
    assert application.args == {"workflow": "/etc/raywf/workflow.yaml"}
    assert "user_config" not in text


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-search.yaml", "raycronjob.yaml"])
def test_jobs_run_commands_that_there_are(name: str) -> None:
    """With a deadline, once, and on a cluster that ends with them."""
    manifest = read(f"kuberay/{name}")
    spec = manifest["spec"]["jobTemplate"] if manifest["kind"] == "RayCronJob" else manifest["spec"]
    assert spec["entrypoint"].split()[:2] in (["raywf", "run"], ["raywf", "search"])
    assert (spec["backoffLimit"], spec["shutdownAfterJobFinishes"]) == (0, True)
    assert spec["activeDeadlineSeconds"] > 0
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_SIGNAL"] == "SIGINT"


def test_images_are_pinned() -> None:
    """Ray's by its version; of raywf's own the registry and the tag are the user's to name."""
    texts = [path.read_text() for path in (*FOLDER.rglob("*.yaml"), FOLDER / "Dockerfile")]
    named = re.findall(r"rayproject/ray:(\S+)|rayVersion: (\S+)", "".join(texts))
    assert {image or version for image, version in named} == {f"{RAY_VERSION}-py311-cpu", RAY_VERSION}
    own = {
        image for text in texts for image in re.findall(r"^ +image: (?!rayproject)(\S+)", text, re.MULTILINE)
    }
    assert own == {"registry.example.com/raywf:REPLACE"}


def test_only_serve_listens_on_every_address() -> None:
    """Ray's dashboard runs code for whoever reaches it."""
    for path in (*FOLDER.rglob("*.yaml"), FOLDER / "Dockerfile"):
        settings = re.sub(r"#.*", "", path.read_text())
        assert not re.search(r"dashboard-host\W+(?!127\.0\.0\.1)\S", settings), path.name
        assert set(re.findall(r".*0\.0\.0\.0.*", settings)) <= {
            "    http_options: {host: 0.0.0.0, port: 8000}"
        }
