"""The cluster file for AWS through Ray's own node provider, against EC2 and IAM as moto plays them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from ray.autoscaler._private.aws import utils as aws_utils
from ray.autoscaler._private.aws.config import _get_subnets_or_die, bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    TAG_RAY_CLUSTER_NAME,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_USER_NODE_TYPE,
)

from raywf.cluster.plan import make_plan
from raywf.cluster.render import render
from raywf.core.cluster_settings import ClusterSettings
from raywf.serving.environment import EVERY_NODE

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "cluster" / "iam" / "aws-head.json"
REGION, SSH_FROM = "us-west-2", "198.51.100.7/32"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An account of nobody's, seen by Ray's own clients; keys that Ray makes land in a home of the test's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of-a-test")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        with mock_aws():
            forget_clients()
            yield boto3.resource("ec2", region_name=REGION)
        forget_clients()


@pytest.fixture(autouse=True)
def no_nodes_yet(cloud: Any) -> None:
    """End what the test before has left."""
    for instance in cloud.instances.all():
        instance.terminate()


def forget_clients() -> None:
    """Drop what Ray keeps of an account: the next test has another one."""
    aws_utils.client_cache.cache_clear()
    aws_utils.resource_cache.cache_clear()
    _get_subnets_or_die.cache_clear()


@pytest.fixture(scope="module")
def group(cloud: Any) -> str:
    """A security group as cluster/README.md has it made: its own traffic, and SSH from one address."""
    (vpc,) = cloud.vpcs.filter(Filters=[{"Name": "is-default", "Values": ["true"]}])
    made = vpc.create_security_group(GroupName="raywf", Description="raywf")
    own = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": made.id}]}
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": SSH_FROM}]}
    made.authorize_ingress(IpPermissions=[own, ssh])
    return str(made.id)


@pytest.fixture(scope="module")
def profile(cloud: Any) -> str:
    """The head's instance profile, with the rights of the policy file and no others."""
    iam = boto3.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName="raywf-head", AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))
    iam.put_role_policy(RoleName="raywf-head", PolicyName="nodes", PolicyDocument=POLICY.read_text())
    iam.create_instance_profile(InstanceProfileName="raywf-head")
    iam.add_role_to_instance_profile(InstanceProfileName="raywf-head", RoleName="raywf-head")
    return "raywf-head"


@pytest.fixture(scope="module")
def config(cloud: Any, group: str, profile: str) -> dict[str, Any]:
    """What `ray up` makes of the file before it starts anything."""
    settings = ClusterSettings(cloud="aws", security_group=group, identity=profile, max_workers=50)
    (text,) = render(make_plan(settings), EVERY_NODE).values()
    prepared = prepare_config(yaml.safe_load(text))
    validate_config(prepared)
    found: dict[str, Any] = bootstrap_aws(prepared)
    return found


def start(config: dict[str, Any], node_type: str, count: int = 1) -> AWSNodeProvider:
    """Start nodes as `ray up` does the head and the autoscaler does workers."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    is_head = node_type == config["head_node_type"]
    tags = {
        TAG_RAY_NODE_KIND: NODE_KIND_HEAD if is_head else NODE_KIND_WORKER,
        TAG_RAY_USER_NODE_TYPE: node_type,
        TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{'head' if is_head else 'worker'}",
        TAG_RAY_LAUNCH_CONFIG: "of-the-file",
    }
    for _ in range(count):  # of one call for several, which names a least of one, moto makes the least
        node = copy.deepcopy(config["available_node_types"][node_type]["node_config"])
        provider.create_node(node, dict(tags), 1)
    return provider


def instances(cloud: Any, **tags: str) -> list[Any]:
    """Return the instances that are there, by their tags."""
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
    found = cloud.instances.filter(Filters=[*filters, {"Name": "instance-state-name", "Values": ["running"]}])
    return list(found)


def tags_of(instance: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.tags}


def test_the_file_makes_no_role_and_no_group_of_ray_s(cloud: Any, config: dict[str, Any], group: str) -> None:
    """Ray's own role may do anything with EC2 and S3, its own group opens port 22 to the internet."""
    roles = [role["RoleName"] for role in boto3.client("iam").list_roles()["Roles"]]
    assert roles == ["raywf-head"]
    assert {g.group_name for g in cloud.security_groups.all()} == {"default", "raywf"}
    assert config["head_node"] == {}


@pytest.mark.parametrize(
    ("node_type", "machine", "lifecycle"),
    [
        ("system", "m7i.xlarge", None),
        ("serve", "m7i.xlarge", None),
        ("train-spot", "m7i.2xlarge", "spot"),
        ("train-on-demand", "m7i.2xlarge", None),
    ],
)
def test_a_node_is_what_its_type_says(
    cloud: Any, config: dict[str, Any], group: str, node_type: str, machine: str, lifecycle: str | None
) -> None:
    """Machine, market, image, disk, metadata service, group, and the tags by which Ray finds it again."""
    start(config, node_type)
    (made,) = instances(cloud)
    assert (made.instance_type, made.instance_lifecycle) == (machine, lifecycle)
    assert [g["GroupId"] for g in made.security_groups] == [group]
    assert made.metadata_options["HttpTokens"] == "required"
    assert {v.encrypted for v in made.volumes.all()} == {True}
    tags = tags_of(made)
    assert (tags[TAG_RAY_CLUSTER_NAME], tags[TAG_RAY_USER_NODE_TYPE]) == ("raywf", node_type)
    assert tags["Name"] == f"ray-raywf-{'head' if node_type == 'system' else 'worker'}"


def test_only_the_head_may_ask_aws_for_anything(cloud: Any, config: dict[str, Any]) -> None:
    """By its profile; a trial's code on a worker finds no credentials."""
    for node_type in config["available_node_types"]:
        start(config, node_type)
    with_profile = [tags_of(i)[TAG_RAY_USER_NODE_TYPE] for i in instances(cloud) if i.iam_instance_profile]
    assert with_profile == ["system"]


def test_nothing_is_open_to_every_address(cloud: Any, config: dict[str, Any]) -> None:
    """Neither the dashboard nor Serve nor SSH, by the groups that the nodes are in."""
    start(config, "system")
    start(config, "train-spot", count=3)
    used = {g["GroupId"] for instance in instances(cloud) for g in instance.security_groups}
    rules = [rule for found in used for rule in cloud.SecurityGroup(found).ip_permissions]
    addresses = {r["CidrIp"] for rule in rules for r in rule["IpRanges"]}
    assert addresses == {SSH_FROM}
    assert {rule.get("FromPort") for rule in rules if rule["IpRanges"]} == {22}


def test_labels_reach_the_autoscaler(config: dict[str, Any]) -> None:
    """They are Ray's, given when a node starts, and not the cloud's tags."""
    types = config["available_node_types"]
    assert {name: kind["labels"]["pool"] for name, kind in types.items()} == {
        "system": "system",
        "serve": "serve",
        "train-spot": "train",
        "train-on-demand": "train",
    }


def test_ray_down_leaves_nothing(cloud: Any, config: dict[str, Any]) -> None:
    """All nodes of the cluster are terminated, not stopped, and another cluster's are left alone."""
    provider = start(config, "system")
    start(config, "serve", count=2)
    start(config, "train-spot", count=3)
    start(config | {"cluster_name": "other"}, "serve")
    workers = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_WORKER})
    heads = provider.non_terminated_nodes({TAG_RAY_NODE_KIND: NODE_KIND_HEAD})
    assert (len(workers), len(heads)) == (5, 1)
    provider.terminate_nodes([*workers, *heads])
    assert provider.non_terminated_nodes({}) == []
    assert {tags_of(i)[TAG_RAY_CLUSTER_NAME] for i in instances(cloud)} == {"other"}
    assert {cloud.Instance(node).state["Name"] for node in (*workers, *heads)} == {"terminated"}


@pytest.fixture
def as_head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Do something with the actions of the policy file alone; moto knows neither resources nor conditions."""
    policy = json.loads(POLICY.read_text())
    for statement in policy["Statement"]:
        statement["Resource"] = "*"
    iam = boto3.client("iam")
    name = f"head-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="nodes", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    forget_clients()
    yield lambda act: set_initial_no_auth_action_count(0)(act)()
    forget_clients()


def test_the_policy_s_rights_are_enough(config: dict[str, Any], as_head: Any) -> None:
    """The head's autoscaler starts, marks, lists and ends nodes with them."""

    def work() -> list[str]:
        provider = start(config, "train-spot", count=2)
        nodes = provider.non_terminated_nodes({})
        provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
        provider.terminate_nodes(nodes)
        return nodes

    assert len(as_head(work)) == 2


@pytest.mark.parametrize("client", ["iam", "ec2"])
def test_the_policy_s_rights_are_few(as_head: Any, client: str) -> None:
    """Neither roles nor security groups can be looked at or changed with them."""

    def work() -> Any:
        made = boto3.client(client, region_name=REGION)
        return made.list_roles() if client == "iam" else made.describe_security_groups()

    with pytest.raises(ClientError, match=r"(?i)not authorized"):
        as_head(work)
