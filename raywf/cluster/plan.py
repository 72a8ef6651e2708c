"""Settings to a plan: which groups of nodes a cluster has, on which machines and how many."""

from __future__ import annotations

from dataclasses import dataclass, replace

from raywf.core.cluster_settings import CLOUDS, Cloud, ClusterSettings, PoolSettings
from raywf.core.errors import SettingsError
from raywf.cost.table import find_node_type, load_table

RAY_VERSION = "2.60.0"  # the one that pyproject.toml pins; a test compares
RAY_IMAGE = f"rayproject/ray:{RAY_VERSION}-py311-cpu"
OWN_IMAGE = "registry.example.com/raywf:REPLACE"  # of cluster/Dockerfile
REGIONS: dict[Cloud, str] = {"aws": "us-west-2", "gcp": "us-central1", "azure": "eastus"}
_MACHINES: dict[Cloud, tuple[str, str, str]] = {  # of the pools system, serve and train
    "aws": ("m7i.xlarge", "m7i.xlarge", "m7i.2xlarge"),
    "gcp": ("n2-standard-4", "n2-standard-4", "n2-standard-8"),
    "azure": ("Standard_D4s_v5", "Standard_D4s_v5", "Standard_D8s_v5"),
}
_POD_CPUS = {"system": 2, "serve": 2, "train": 4}
_POD_GIB_PER_CPU = 4
_FALLBACK_SHARE = 4  # one node on demand for so many spot nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Nodes that are alike: their pool (the label that Ray gives them), machine, size and number.

    Of groups that could hold the same task, the autoscaler takes the one of the higher `priority` that the
    cloud has machines of.
    """

    name: str
    pool: str
    node_type: str
    cpus: int
    memory_gib: int
    min_nodes: int
    max_nodes: int
    idle_s: int
    spot: bool = False
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a cluster is to be; the head is in no group of workers."""

    cloud: Cloud
    region: str
    settings: ClusterSettings
    head: Group
    workers: tuple[Group, ...]

    @property
    def image(self) -> str:
        """The container image that every node runs."""
        return self.settings.image or (OWN_IMAGE if self.cloud == "kuberay" else RAY_IMAGE)

    def group(self, name: str) -> Group:
        """Return the group of workers of that name."""
        return next(group for group in self.workers if group.name == name)


def make_plan(settings: ClusterSettings, *, prices: str | None = None) -> Plan:
    """Return what the settings say, with raywf's choice of machines where they say nothing.

    `prices` is the user's price file, which may add machine types.

    >>> plan = make_plan(ClusterSettings(cloud="aws", max_workers=50))
    >>> [(g.name, g.node_type, g.max_nodes, g.spot) for g in plan.workers][1:]
    [('train-spot', 'm7i.2xlarge', 46, True), ('train-on-demand', 'm7i.2xlarge', 11, False)]

    Raises:
        SettingsError: without a cloud, for a machine type of unknown size, and where there is no room.
    """
    cloud = settings.cloud
    if cloud is None:
        raise SettingsError(f"cluster.cloud is not given; give it, or --cloud, as one of {', '.join(CLOUDS)}")
    head = _group("system", settings, cloud, prices)
    head = replace(head, min_nodes=0, max_nodes=0)
    if cloud == "on-premise":
        workers: tuple[Group, ...] = (_machines_at_hand(settings, prices),)
    else:
        serve = _group("serve", settings, cloud, prices)
        workers = (serve, *_train_groups(settings, cloud, prices, settings.max_workers - serve.max_nodes))
    region = settings.region or REGIONS.get(cloud, "")
    return Plan(cloud=cloud, region=region, settings=settings, head=head, workers=workers)


def _train_groups(
    settings: ClusterSettings, cloud: Cloud, prices: str | None, room: int
) -> tuple[Group, ...]:
    pool = settings.train
    most = pool.max_nodes or room
    if most < 1 or pool.min_nodes > room:
        raise SettingsError(
            f"cluster.max_workers leaves {max(0, room)} nodes to train beside {settings.max_workers - room} "
            "that serve; raise it, or lower cluster.serve.max_nodes"
        )
    made = replace(_group("train", settings, cloud, prices), max_nodes=most)
    if not settings.spot:
        return (made,)
    spot = replace(made, name="train-spot", spot=True, priority=1)
    few = max(1, most // _FALLBACK_SHARE)
    return (spot, replace(made, name="train-on-demand", min_nodes=0, max_nodes=few))


def _machines_at_hand(settings: ClusterSettings, prices: str | None) -> Group:
    count = max(1, len(settings.hosts) - 1)
    return replace(_group("train", settings, "on-premise", prices), min_nodes=count, max_nodes=count)


def _group(pool: str, settings: ClusterSettings, cloud: Cloud, prices: str | None) -> Group:
    wanted: PoolSettings = getattr(settings, pool)
    node_type = wanted.node_type or _machine(cloud, pool)
    idle = wanted.idle_minutes or settings.idle_minutes
    cpus, memory = _size(wanted, node_type, cloud, pool, prices)
    return Group(
        name=pool,
        pool=pool,
        node_type=node_type,
        cpus=cpus,
        memory_gib=memory,
        min_nodes=wanted.min_nodes,
        max_nodes=wanted.max_nodes or settings.max_workers,
        idle_s=round(60 * idle),
    )


def _machine(cloud: Cloud, pool: str) -> str:
    if cloud not in _MACHINES:
        return ""
    return dict(zip(("system", "serve", "train"), _MACHINES[cloud], strict=True))[pool]


def _size(
    wanted: PoolSettings, node_type: str, cloud: Cloud, pool: str, prices: str | None
) -> tuple[int, int]:
    """Return CPUs and memory of a node; on premise Ray finds them itself."""
    if cloud == "on-premise":
        return wanted.cpus or 0, 0
    if cloud == "kuberay":
        cpus = wanted.cpus or _POD_CPUS[pool]
        return cpus, _POD_GIB_PER_CPU * cpus
    if wanted.cpus is not None:
        return wanted.cpus, 0
    try:
        found = find_node_type(load_table(prices), node_type, cloud=cloud)
    except SettingsError as err:
        raise SettingsError(
            f"cluster.{pool}.node_type: how many CPUs {node_type!r} has is unknown; give cluster.{pool}.cpus "
            "or a row in a file that cost.prices names"
        ) from err
    return found.vcpus, int(found.memory_gib)
