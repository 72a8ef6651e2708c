"""`raywf cluster check`: what a file makes, what of it is dangerous, what it costs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from raywf.cli.main import cli
from raywf.cluster.budget import reckon
from raywf.cluster.layout import read_layouts
from raywf.cluster.review import Review, review
from raywf.core.errors import SettingsError
from raywf.core.settings import CostSettings

FOLDER = Path(__file__).resolve().parents[3] / "cluster"
# a cluster's file as many begin it: nothing that Ray refuses, and nothing that is safe
CARELESS = """
cluster_name: mine
max_workers: 3
provider: {type: aws, region: us-east-1}
available_node_types:
  head: {resources: {}, node_config: {InstanceType: m7i.large}}
  work: {resources: {CPU: 8}, min_workers: 1, max_workers: 3, node_config: {InstanceType: m7i.2xlarge}}
head_node_type: head
"""


def config_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def reviewed(folder: Path, config: Any, **cost: Any) -> Review:
    path = folder / "cluster.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return review(path, CostSettings(**cost))


def texts(found: Review, level: str = "warning") -> str:
    return "\n".join(f.text for f in found.findings if f.level == level)


def ran(*words: str) -> Result:
    return CliRunner().invoke(cli, ["cluster", "check", *words])


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "azure.yaml", "kuberay/raycluster.yaml"])
def test_the_repository_s_files_are_good(name: str) -> None:
    """Nothing but the blanks that a user fills in."""
    found = review(FOLDER / name, CostSettings())
    assert found.is_good
    assert texts(found) == "REPLACE stands in it: put values of your own there"


def test_a_careless_file_is_warned_of(tmp_path: Path) -> None:
    """Dashboard, tokens, group, image, the head's CPUs and the wheel, each in a line."""
    found = texts(reviewed(tmp_path, CARELESS))
    for said in (
        "the dashboard listens on every address",
        "put RAY_AUTH_MODE=token before `ray start`",
        "without SecurityGroupIds (head, work): Ray makes a group that opens port 22",
        "neither an image nor a version of Ray is named",
        "Ray's own install a nightly wheel",
        "the head has an unknown number of CPUs",
    ):
        assert said in found


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("docker", "image"), "rayproject/ray:latest", "image 'rayproject/ray:latest' is not pinned"),
        (("docker", "head_image"), "rayproject/ray:nightly", "image 'rayproject/ray:nightly' is not pinned"),
        (
            ("head_start_ray_commands", 1),
            "RAY_AUTH_MODE=token ray start --head --dashboard-host=0.0.0.0",
            "every address",
        ),
        (("worker_start_ray_commands", 2), "ray start --address=$RAY_HEAD_IP:6379", "no token is asked for"),
        (("available_node_types", "system", "resources"), {"CPU": 4}, "the head has 4 CPUs for work"),
        (
            ("available_node_types", "serve", "node_config", "SecurityGroupIds"),
            [],
            "without SecurityGroupIds (serve)",
        ),
        (("setup_commands", 1), "pip install -U ray", "a Ray of no fixed version is installed"),
        (("setup_commands", 1), "pip install https://s3/ray-wheels/latest/ray.whl", "no fixed version"),
        (
            ("available_node_types", "system", "node_config", "InstanceMarketOptions"),
            {"MarketType": "spot"},
            "the head is a spot node",
        ),
        (
            ("provider", "security_group"),
            {"IpPermissions": [{"FromPort": 8265, "ToPort": 8265, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
            "open to every address: 8265",
        ),
    ],
)
def test_one_mistake_in_a_good_file_is_warned_of(tmp_path: Path, path: Any, value: Any, said: str) -> None:
    """And of nothing else: no error, one more warning."""
    config = config_of("aws.yaml")
    here: Any = config
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    found = reviewed(tmp_path, config)
    assert found.is_good
    assert said in texts(found)
    assert len(found.findings) == 2


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("instance_typ", {}, "'instance_typ' was unexpected"),
        ("max_workers", "many", "max_workers: 'many' is not of type 'integer'"),
        ("head_node_type", "sytem", "head_node_type: 'sytem' is none of available_node_types"),
        ("max_workers", 0, "max_workers: 0 is below the sum of min_workers, 1"),
        ("available_node_types", {"a": {"resources": {}}}, "'node_config' is a required property"),
    ],
)
def test_what_ray_refuses_is_an_error(tmp_path: Path, key: str, value: Any, said: str) -> None:
    """With the place in the file, and exit 1."""
    config = config_of("aws.yaml") | {key: value}
    assert said in texts(reviewed(tmp_path, config), "error")
    assert ran(str(tmp_path / "cluster.yaml")).exit_code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "line 1: not valid YAML"),
        ("- 1", "got no mapping"),
        ("", "got no mapping"),
        ("kind: ConfigMap", "no cluster in it"),
    ],
)
def test_a_file_of_no_cluster_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """In one line."""
    with pytest.raises(SettingsError, match=said):
        reviewed(tmp_path, text)
    with pytest.raises(SettingsError, match="cannot read"):
        review(tmp_path / "none.yaml", CostSettings())


def test_a_pinned_wheel_is_as_good_as_an_image(tmp_path: Path) -> None:
    """What starts later runs the same."""
    config = config_of("aws.yaml")
    del config["docker"]
    assert "neither an image nor" in texts(reviewed(tmp_path, config))
    config["setup_commands"].append("pip install 'ray[default]==2.60.0'")
    assert texts(reviewed(tmp_path, config)).count("\n") == 0


def test_costs_are_those_of_the_table() -> None:
    """The least: head and one that serves. The most: 20 workers, the dearest first."""
    (layout,) = read_layouts([config_of("aws.yaml")])
    found = reckon(layout, CostSettings())
    assert found.least == pytest.approx(0.2016 * 2)
    assert found.most == pytest.approx(0.2016 * 5 + 0.4032 * 4 + 0.15 * 12)
    assert found.most_on_demand == pytest.approx(0.2016 * 2 + 0.4032 * 19)
    assert found.missing == ()


def test_a_type_without_a_limit_has_the_cluster_s(tmp_path: Path) -> None:
    """As Ray fills it in."""
    config = yaml.safe_load(CARELESS)
    del config["available_node_types"]["work"]["max_workers"]
    (layout,) = reviewed(tmp_path, config).layouts
    assert [(n.least, n.limit) for n in layout.workers] == [(1, 3)]


def test_a_discount_and_own_prices_count(tmp_path: Path) -> None:
    """As everywhere else in raywf."""
    (tmp_path / "own.csv").write_text("node_type,vcpus,usd_per_hour\nm7i.xlarge,4,0.1\n")
    (layout,) = read_layouts([config_of("aws.yaml")])
    assert reckon(layout, CostSettings(discount=0.5)).least == pytest.approx(0.2016)
    assert reckon(layout, CostSettings(prices=str(tmp_path / "own.csv"))).least == pytest.approx(0.2)


def test_a_machine_without_a_price_is_named(tmp_path: Path) -> None:
    """With how to add it; the sums go on without it."""
    config = config_of("aws.yaml")
    config["available_node_types"]["serve"]["node_config"]["InstanceType"] = "x9.huge"
    found = reviewed(tmp_path, config)
    assert "no price of 'x9.huge' in us-west-2 (type serve): add a row to a file of columns" in texts(found)
    assert "cost.prices" in texts(found)
    assert found.budgets[0].least == pytest.approx(0.2016)


@pytest.mark.parametrize("region", ["eu-west-9", ""])
def test_a_region_without_prices_is_named(tmp_path: Path, region: str) -> None:
    """A file that names none gets the first region's."""
    config = config_of("aws.yaml")
    config["provider"]["region"] = region
    assert ("in eu-west-9" in texts(reviewed(tmp_path, config))) == bool(region)


def test_pods_cost_what_their_cpus_do() -> None:
    """By the settings of `cost`, spot ones by its spot price."""
    (layout,) = read_layouts([config_of("kuberay/rayservice.yaml")])
    found = reckon(layout, CostSettings(usd_per_cpu_hour=0.1))
    assert (found.least, found.most) == (pytest.approx(0.6), pytest.approx(1.0))


def test_manifests_without_autoscaling_have_fixed_numbers() -> None:
    """What minReplicas and maxReplicas say has no effect then."""
    manifest = copy.deepcopy(config_of("kuberay/raycluster.yaml"))
    manifest["spec"]["enableInTreeAutoscaling"] = False
    manifest["spec"]["workerGroupSpecs"][0]["replicas"] = 3
    (layout,) = read_layouts([manifest])
    assert [(n.least, n.limit) for n in layout.workers] == [(3, 3), (0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"authOptions": None}, "give authOptions: {mode: token}"),
        ({"headGroupSpec": {"serviceType": "LoadBalancer"}}, "open to every address: the head's service"),
    ],
)
def test_a_manifest_s_dangers_are_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """As those of a file for `ray up`."""
    manifest = config_of("kuberay/raycluster.yaml")
    for key, value in change.items():
        manifest["spec"][key] = {**manifest["spec"][key], **value} if value else value
    assert said in texts(reviewed(tmp_path, manifest))


def test_the_schema_of_a_custom_resource_is_taken_as_kubernetes_means_it(tmp_path: Path) -> None:
    """An unknown key is refused, a number or a text taken where the resource takes both."""
    schema = {
        "type": "object",
        "properties": {
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "properties": {
                    "port": {"x-kubernetes-int-or-string": True, "type": "integer"},
                    "headGroupSpec": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                        "properties": {},
                    },
                },
            },
        },
    }
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    (tmp_path / "ray.io_rayclusters.yaml").write_text(yaml.safe_dump(crd))
    path = tmp_path / "one.yaml"
    path.write_text(
        "{kind: RayCluster, metadata: {name: a}, spec: {port: http, headGroupSpec: {a: 1}, size: 3}}"
    )
    found = review(path, CostSettings(), crds=tmp_path)
    assert texts(found, "error") == "spec: Additional properties are not allowed ('size' was unexpected)"


def test_the_command_says_it_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made, how it is bought, who reaches it and what it costs; warnings exit with 0."""
    monkeypatch.chdir(tmp_path)
    told = ran(str(FOLDER / "aws.yaml"))
    assert told.exit_code == 0
    for said in (
        "ray up raywf: a head and 1 to 20 workers on aws us-west-2",
        "dashboard on the head's loopback, reached through a tunnel; tokens asked for",
        "opened to every address by this file: nothing",
        "train-spot       m7i.2xlarge  0 to 16  8              spot       $0.4032      $0.1500",
        "at least $0.40 an hour, $294.34 a month; at most $4.42 an hour, $3,227.18 a month",
        "were all on demand: at most $8.06 an hour",
        "0 errors, 1 warning",
    ):
        assert said in told.stdout


def test_the_command_says_it_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, for a program."""
    monkeypatch.chdir(tmp_path)
    found = json.loads(ran(str(FOLDER / "kuberay" / "rayjob.yaml"), "--json").stdout)
    assert found["layouts"][0]["kind"] == "RayJob"
    assert found["budgets"][0]["least"] == pytest.approx(0.1008)


def test_kuberay_s_schema_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the command says what it did not check."""
    monkeypatch.chdir(tmp_path)
    assert "--crds names the folder" in ran(str(FOLDER / "kuberay" / "rayservice.yaml")).stdout
