"""Settings to files: one source, what it refuses, and what the options of `raywf cluster render` change."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from raywf.cli.main import cli
from raywf.cluster.plan import RAY_VERSION, make_plan
from raywf.cluster.render import ALWAYS, render
from raywf.core.cluster_settings import CLOUDS, Cloud, ClusterSettings, PoolSettings
from raywf.core.codec import DecodeError, decode
from raywf.core.errors import SettingsError
from raywf.serving.environment import EVERY_NODE

ROOT = Path(__file__).resolve().parents[3]
FOLDERS: dict[Cloud, Path] = {"kuberay": ROOT / "cluster" / "kuberay"}
UP: tuple[Cloud, ...] = tuple(c for c in CLOUDS if c != "kuberay")


def made(cloud: Cloud, **settings: Any) -> dict[str, Any]:
    """Return the file for `ray up` as its reader sees it."""
    (text,) = render(make_plan(ClusterSettings(cloud=cloud, **settings)), EVERY_NODE).values()
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def ran(*words: str) -> Result:
    return CliRunner().invoke(cli, ["cluster", "render", *words])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_files_of_the_repository_are_what_the_renderer_makes(cloud: Cloud) -> None:
    """There is one source. If this fails: raywf cluster render --cloud CLOUD --output cluster/..."""
    files = render(make_plan(ClusterSettings(cloud=cloud)), EVERY_NODE)
    folder = FOLDERS.get(cloud, ROOT / "cluster")
    assert {name: (folder / name).read_text() for name in files} == files


def test_no_manifest_is_beside_those_of_the_renderer() -> None:
    """A file that nothing makes would be compared with nothing."""
    names = render(make_plan(ClusterSettings(cloud="kuberay")), EVERY_NODE).keys()
    assert {path.name for path in FOLDERS["kuberay"].iterdir()} == set(names)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_file_is_tidy(cloud: Cloud) -> None:
    """No line of a template's own, no trailing blanks, one newline at the end."""
    for name, text in render(make_plan(ClusterSettings(cloud=cloud, spot=False)), EVERY_NODE).items():
        assert not re.search(r"[ \t]+$|\{%|\{\{|\n\n\n", text, re.MULTILINE), name
        assert text == f"{text.rstrip()}\n", name
        assert max(map(len, text.splitlines())) <= 128, name


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_trials_are_on_spot_first_and_on_demand_where_there_is_none(cloud: Cloud) -> None:
    """Both hold the same tasks; the autoscaler takes the higher priority that the cloud has."""
    types = made(cloud, max_workers=50)["available_node_types"]
    spot, fallback = types["train-spot"], types["train-on-demand"]
    assert (spot["resources"], spot["labels"]) == (fallback["resources"], fallback["labels"])
    assert (spot["max_workers"], fallback["max_workers"]) == (46, 11)
    assert spot["priority"] > fallback.get("priority", 0)


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_without_spot_there_is_one_type_to_train_on(cloud: Cloud) -> None:
    """On demand, with all the room that there is."""
    types = made(cloud, spot=False)["available_node_types"]
    assert list(types) == ["system", "serve", "train"]
    assert types["train"]["max_workers"] == 16
    assert not re.search("(?i)market|SPOT", json.dumps(types["train"]))


@pytest.mark.parametrize("cloud", UP)
def test_every_node_has_tokens_and_serve_s_variables(cloud: Cloud) -> None:
    """On the head and on workers alike."""
    config = made(cloud)
    for role in ("head", "worker"):
        command = config[f"{role}_start_ray_commands"][-1].replace('"', "")
        assert {p for p in (ALWAYS | EVERY_NODE).items() if "=".join(p) not in command} == set()


@pytest.mark.parametrize("cloud", UP)
def test_the_dashboard_is_on_loopback(cloud: Cloud) -> None:
    """Ray's own commands for clouds open it to every address."""
    config = made(cloud)
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in json.dumps(config)


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_the_head_does_no_work(cloud: Cloud) -> None:
    """No CPU for tasks, one of its kind, and on demand."""
    config = made(cloud)
    head = config["available_node_types"][config["head_node_type"]]
    assert (head["resources"], head["max_workers"], head["labels"]) == ({"CPU": 0}, 0, {"pool": "system"})


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_workers_watch_for_their_cloud_s_notice(cloud: Cloud) -> None:
    """Before Ray starts, one watcher a machine, in the background; where no node is a spot node, none."""
    _, watcher, start = made(cloud)["worker_start_ray_commands"]
    assert f"cluster watch-spot --cloud {cloud} --address=$RAY_HEAD_IP:6379 <" in watcher
    assert watcher.startswith("RAY_AUTH_MODE=token setsid nohup flock -n")
    assert watcher.endswith(" &")
    assert "ray start" in start
    assert "watch-spot" not in json.dumps(made(cloud, spot=False))
    assert "watch-spot" not in json.dumps(made(cloud)["head_start_ray_commands"])


def test_nodes_of_aws_know_what_the_bill_calls_them() -> None:
    """The head too, from the metadata service when Ray starts."""
    config = made("aws")
    for role in ("head", "worker"):
        command = config[f"{role}_start_ray_commands"][-1]
        assert command.endswith(" --labels=$(python -m raywf.cli cluster labels --cloud aws)")


def test_settings_reach_the_file() -> None:
    """Names, sizes and times that are given stand where REPLACE or a choice of raywf's stood."""
    config = made(
        "aws",
        name="shop",
        region="eu-central-1",
        idle_minutes=2.5,
        security_group="sg-1",
        identity="head",
        nfs="10.0.0.9:/raywf",
        image="registry.example.com/ray@sha256:0a",
        train=PoolSettings(node_type="c7i.4xlarge", min_nodes=2, max_nodes=8, idle_minutes=1),
    )
    train = config["available_node_types"]["train-spot"]
    assert "REPLACE" not in json.dumps(config)
    assert (train["min_workers"], train["max_workers"], train["idle_timeout_s"]) == (2, 8, 60)
    assert (train["resources"], train["node_config"]["InstanceType"]) == ({"CPU": 16}, "c7i.4xlarge")
    assert (config["cluster_name"], config["idle_timeout_minutes"]) == ("shop", 2.5)
    assert "10.0.0.9:/raywf /mnt/raywf" in config["initialization_commands"][2]


def test_a_service_has_two_replicas_nodes_or_more() -> None:
    """One could not be drained; the settings may ask for more."""
    for least, nodes in ((1, (2, 4)), (3, (3, 4))):
        settings = ClusterSettings(cloud="kuberay", serve=PoolSettings(min_nodes=least, max_nodes=4))
        text = render(make_plan(settings), EVERY_NODE)["rayservice.yaml"]
        (group,) = yaml.safe_load(text)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        assert (group["minReplicas"], group["maxReplicas"]) == nodes


def test_machines_of_one_s_own() -> None:
    """The first is the head, all others are workers and stay."""
    config = made("on-premise", hosts=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert config["provider"] == {
        "type": "local",
        "head_ip": "10.0.0.1",
        "worker_ips": ["10.0.0.2", "10.0.0.3"],
    }
    assert config["max_workers"] == 2
    assert "--num-cpus=0 --labels=pool=system" in config["head_start_ray_commands"][-1]


def test_a_machine_without_a_price_needs_its_size(tmp_path: Path) -> None:
    """A price file or `cpus` says how many CPUs it has."""
    unknown = ClusterSettings(cloud="aws", train=PoolSettings(node_type="x9.huge"))
    with pytest.raises(
        SettingsError, match=r"cluster\.train\.node_type: how many CPUs 'x9\.huge' has is unknown"
    ):
        make_plan(unknown)
    (tmp_path / "own.csv").write_text("node_type,vcpus,usd_per_hour\nx9.huge,96,9\n")
    assert make_plan(unknown, prices=str(tmp_path / "own.csv")).group("train-spot").cpus == 96
    given = dataclasses.replace(unknown, train=PoolSettings(node_type="x9.huge", cpus=48))
    assert make_plan(given).group("train-spot").cpus == 48


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"name": "My_Cluster"}, "name must be at most 30 lower-case"),
        ({"name": "a" * 31}, "name must be at most 30"),
        ({"name": ""}, "name must be"),
        ({"max_workers": 0}, "max_workers must be at least 1"),
        ({"idle_minutes": 0}, "idle_minutes must be above 0"),
        ({"disk_gb": 10}, "disk_gb must be at least 50"),
        ({"image": "rayproject/ray:latest"}, "image must be pinned"),
        ({"image": "rayproject/ray"}, "image must be pinned"),
        ({"image": "rayproject/ray:nightly-py311"}, "image must be pinned"),
        ({"nfs": "10.0.0.9"}, "nfs must be server:/path"),
        ({"nfs": "10.0.0.9:/a; reboot"}, "nfs must be letters, digits and any of"),
        ({"ssh_user": "a\nb: c"}, "ssh_user must be letters"),
        ({"hosts": ["a", "$(reboot)"]}, "hosts must be letters"),
        ({"train": {"node_type": "m7i.large, x: 1"}}, "node_type must be letters"),
        ({"hosts": ["a", "a"]}, "hosts must be different"),
        ({"max_workers": 2, "serve": {"min_nodes": 3}}, "max_workers must be at least 3"),
        ({"serve": {"min_nodes": 3, "max_nodes": 2}}, "max_nodes must be at least 1 and not below min_nodes"),
        ({"train": {"cpus": 0}}, "cpus must be at least 1"),
        ({"train": {"idle_minutes": 0}}, "idle_minutes must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], match: str) -> None:
    """With the rule and the value."""
    with pytest.raises(DecodeError, match=match):
        decode(ClusterSettings, settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (ClusterSettings(), r"cluster\.cloud is not given; .* one of aws, gcp, azure, on-premise, kuberay"),
        (ClusterSettings(cloud="aws", max_workers=4), "leaves 0 nodes to train beside 4 that serve"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(settings: ClusterSettings, match: str) -> None:
    """Before a file is written."""
    with pytest.raises(SettingsError, match=match):
        make_plan(settings)


def test_the_version_is_the_one_that_is_pinned() -> None:
    """Wherever Ray's version stands."""
    pinned = re.search(r"(?m)^ray==(\S+)$", (ROOT / "constraints.txt").read_text())
    asked = re.search(r'"ray\[.*?\]==(\S+)"', (ROOT / "pyproject.toml").read_text())
    image = re.search(r"rayproject/ray:([\d.]+)-py311", (ROOT / "cluster" / "Dockerfile").read_text())
    assert {found and found[1] for found in (pinned, asked, image)} == {RAY_VERSION}


def test_options_go_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cluster:` in workflow.yaml says where, the command line what is different this time."""
    (tmp_path / "workflow.yaml").write_text(
        "name: w\ntask: binary\nspine: {path: a.csv, label: y}\n"
        "cluster: {cloud: gcp, max_workers: 9, train: {min_nodes: 1}, project: shop}\n"
    )
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(ran("--region", "europe-west4", "--no-spot").stdout)
    assert config["provider"]["availability_zone"] == "europe-west4-b"
    assert config["available_node_types"]["train"]["min_workers"] == 1
    assert (config["max_workers"], config["provider"]["project_id"]) == (9, "shop")


def test_output_is_a_file_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same text as the terminal's."""
    monkeypatch.chdir(tmp_path)
    written = ran("--cloud", "aws", "--output", "made/aws.yaml")
    assert (written.exit_code, written.stdout) == (0, "")
    assert (tmp_path / "made" / "aws.yaml").read_text() == ran("--cloud", "aws").stdout
    ran("--cloud", "kuberay", "--output", "pods")
    documents = [d for p in (tmp_path / "pods").iterdir() for d in yaml.safe_load_all(p.read_text())]
    assert len(list(yaml.safe_load_all(ran("--cloud", "kuberay").stdout))) == len(documents) == 13


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting out of range, by an option or by nothing at all."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(ran().exception, SettingsError)
    assert "there is no workflow.yaml here" in str(ran("--set", "cluster.cloud=aws").exception)
    assert "leaves 0 nodes" in str(ran("--cloud", "aws", "--max-workers", "3").exception)
