"""What Ray's own autoscaler would start for a search, by the cluster files: no cluster, no cloud."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

FOLDER = Path(__file__).resolve().parents[2] / "cluster"


def launched(name: str, trials: int, *, unavailable: tuple[str, ...] = (), cpus: int = 1) -> dict[str, int]:
    """Return how many nodes of each type are started for trials that wait, beside one head and the least."""
    config = AutoscalingConfig(yaml.safe_load((FOLDER / name).read_text()), skip_content_hash=True)
    waiting = [ResourceRequestUtil.make({"CPU": cpus}) for _ in range(trials)]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(waiting),
        recoverable_resource_availabilities=dict.fromkeys(unavailable, 0.0),
    )
    reply = ResourceDemandScheduler().schedule(request)
    return {each.instance_type: each.count for each in reply.to_launch}


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "azure.yaml"])
def test_trials_come_to_spot_nodes(name: str) -> None:
    """One that serves is there in any case and takes four of them."""
    assert launched(name, 36) == {"serve": 1, "train-spot": 4}


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml", "azure.yaml"])
def test_without_spot_nodes_some_come_on_demand(name: str) -> None:
    """As soon as the cloud has said that it has none; no more of them than the file allows."""
    found = launched(name, 400, unavailable=("train-spot",))
    assert found["train-on-demand"] == 4


def test_no_more_nodes_than_allowed() -> None:
    """Of a type, and in all."""
    found = launched("aws.yaml", 10_000)
    assert found["train-spot"] == 16
    assert sum(found.values()) <= 21


def test_nothing_is_started_for_nothing() -> None:
    """Only the least nodes."""
    assert launched("aws.yaml", 0) == {"serve": 1}


def test_the_head_takes_no_trial() -> None:
    """It has no CPU: a trial that fits nowhere else stays where it is."""
    assert launched("aws.yaml", 1, cpus=32) == {"serve": 1}


def test_few_trials_may_come_to_a_node_that_serves() -> None:
    """A limit that cluster/README.md tells of: Ray takes the node that is filled best, whatever its pool."""
    assert launched("aws.yaml", 8) == {"serve": 2}
