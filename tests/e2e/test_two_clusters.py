"""One workflow brought up on two clusters by mistake, its stores a bucket and a database: one decides."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from command_line import Project, post, until
from servers import Bucket
from test_cli_newcomer import CUSTOMER, QUICK, write_customers

from raywf.serving.environment import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SETTINGS = """\
name: churn
task: binary
spine: {path: %s, label: churn, keys: [customer], positive: "Yes"}
%s
serving: {port: %d, replicas: 1}
"""
_TAKEN_OVER_S = 300.0  # two minutes of silence are borne


class Cluster(Project):
    """A project folder on a machine of its own, as far as its files go, and its endpoint's URL."""

    url = ""

    def waits(self) -> str:
        """Return what its controller says that it waits for."""
        return str(self.raywf("serve", "status")["controller"]["waits"])

    def is_led(self) -> bool:
        """Whether another cluster's controller leads."""
        return "another controller leads" in self.waits()


@pytest.fixture
def two(bucket: Bucket, database: str, tmp_path: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """Two clusters that serve the same workflow."""
    write_customers(tmp_path / "customers.csv")
    found = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "workflow.yaml").write_text(
            SETTINGS % (tmp_path / "customers.csv", QUICK, free_ports(1)[0])
        )
        environ = {
            "XDG_CACHE_HOME": str(folder / "node"),
            "RAYWF_STORES__ROOT": f"s3://{bucket.name}/churn",
            "RAYWF_STORES__MLFLOW": database,
        }
        found.append(Cluster(folder, **environ))
    try:
        found[0].raywf("run")
        for one in found:
            one.url = one.raywf("serve", "up")["url"]
        yield found[0], found[1]
    finally:
        for one in found:
            one.try_raywf("serve", "down")


def ended(project: Project) -> Counter[str]:
    """Return how often each decision came to an end."""
    stages = [(d["decision"]["id"], e["stage"]) for d in project.raywf("decisions") for e in d["stages"]]
    return Counter(one for one, stage in stages if stage in {"promoted", "rejected", "failed"})


def test_one_decides(two: tuple[Cluster, Cluster]) -> None:
    """Both answer; each request for a retraining is served once; without the one that led the other does."""
    for one in two:
        assert post(f"{one.url}/v1/predict", {"features": CUSTOMER})[0] == 200
    until(lambda: sum(one.is_led() for one in two) == 1, "one leader", seconds=60)
    before = len(ended(two[0]))
    for one in two:
        one.raywf("retrain", "--reason", f"asked for at {one.folder.name}")
    until(lambda: len(ended(two[0])) == before + 2, "both retrainings' ends", seconds=240)

    assert set(ended(two[1]).values()) == {1}
    versions = Counter(v["decision_id"] for v in two[1].raywf("models", "list"))
    assert set(versions.values()) == {1}

    led, leader = sorted(two, key=lambda one: one.is_led(), reverse=True)
    leader.raywf("serve", "down")
    led.raywf("retrain", "--reason", "the other cluster is gone")
    until(lambda: len(ended(led)) == before + 3, "the third retraining's end", seconds=_TAKEN_OVER_S)
    assert set(ended(led).values()) == {1}
