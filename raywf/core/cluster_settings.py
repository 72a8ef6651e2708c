"""Which Ray cluster a workflow runs on, and how the cluster's own files are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from raywf.core.codec import require

Cloud = Literal["aws", "gcp", "azure", "on-premise", "kuberay"]
CLOUDS: tuple[Cloud, ...] = ("aws", "gcp", "azure", "on-premise", "kuberay")
_PLAIN = re.compile(r"[\w.:/@+-]*", re.ASCII)  # these words stand in YAML and in commands as they are
_MOVING = ("latest", "nightly", "master")
_WORDS = (
    *("region", "image", "vm_image", "ssh_user", "security_group"),
    *("project", "subnetwork", "resource_group", "identity", "nfs"),
)
_NAME_CHARS = 30  # Google's names of machines have 63 characters, the node's kind and an id among them


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The nodes of one kind of work: their machine type (empty: one that suits the cloud) and their number.

    `cpus` is for machine types that no price table has; on Kubernetes it is the size of a pod. Without
    `max_nodes` the pool may have what the others leave of the cluster's `max_workers`.
    """

    node_type: str = ""
    cpus: int | None = None
    min_nodes: int = 0
    max_nodes: int | None = None
    idle_minutes: float | None = None

    def __post_init__(self) -> None:
        _require_plain(self.node_type, "node_type")
        require(self.cpus is None or self.cpus >= 1, "cpus", "at least 1", self.cpus)
        require(self.min_nodes >= 0, "min_nodes", "at least 0", self.min_nodes)
        enough = self.max_nodes is None or self.max_nodes >= max(1, self.min_nodes)
        require(enough, "max_nodes", "at least 1 and not below min_nodes", self.max_nodes)
        idle = self.idle_minutes
        require(idle is None or idle > 0, "idle_minutes", "above 0", idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Which Ray cluster to use (no address: one on this machine), and what `raywf cluster render` writes.

    With `pools` trials and their last fits go to nodes labelled ``pool: train`` alone, and replicas to those
    labelled ``pool: serve``, so that training takes nothing from serving.

    Names of what a cloud holds for you stay REPLACE in the files where they are not given: `security_group`
    (AWS), `project` (a Google project, an Azure subscription), `subnetwork` (Google), `resource_group`
    (Azure), `identity` (the head's instance profile, or service account), `nfs` ("server:/path" of the
    shared folder), `hosts` (on premise, the head first). `image` is the container's, `vm_image` the
    machine's.
    """

    address: str | None = None
    cpus: int | None = None
    pools: bool = False
    name: str = "raywf"
    cloud: Cloud | None = None
    region: str = ""
    max_workers: int = 20
    spot: bool = True
    idle_minutes: float = 5.0
    system: PoolSettings = field(default_factory=PoolSettings)
    serve: PoolSettings = field(default_factory=lambda: PoolSettings(min_nodes=1, max_nodes=4))
    train: PoolSettings = field(default_factory=PoolSettings)
    image: str = ""
    vm_image: str = ""
    disk_gb: int = 150
    ssh_user: str = "ubuntu"
    security_group: str = ""
    project: str = ""
    subnetwork: str = ""
    resource_group: str = ""
    identity: str = ""
    nfs: str = ""
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _WORDS:
            _require_plain(getattr(self, name), name)
        for host in self.hosts:
            _require_plain(host, "hosts")
        plain = self.name.replace("-", "")
        named = plain.isascii() and plain.isalnum() and plain.islower() and self.name[0].isalpha()
        require(
            named and len(self.name) <= _NAME_CHARS,
            "name",
            f"at most {_NAME_CHARS} lower-case letters, digits and '-', a letter first",
            self.name,
        )
        require(self.max_workers >= 1, "max_workers", "at least 1", self.max_workers)
        require(self.idle_minutes > 0, "idle_minutes", "above 0", self.idle_minutes)
        require(self.disk_gb >= 50, "disk_gb", "at least 50: the images have 20", self.disk_gb)
        require(
            not self.image or is_pinned(self.image),
            "image",
            "pinned by a version or a digest, since nodes that start later must run the same",
            self.image,
        )
        good = not self.nfs or ":/" in self.nfs
        require(good, "nfs", "server:/path", self.nfs)
        distinct = len(set(self.hosts)) == len(self.hosts)
        require(distinct, "hosts", "different addresses, the head's first", self.hosts)
        self._require_room()

    def _require_room(self) -> None:
        least = self.serve.min_nodes + self.train.min_nodes
        enough = least <= self.max_workers
        require(enough, "max_workers", f"at least {least}: the least nodes", self.max_workers)


def _require_plain(word: str, key: str) -> None:
    require(_PLAIN.fullmatch(word) is not None, key, "letters, digits and any of ._:/@+-", word)


def is_pinned(image: str) -> bool:
    """Return whether a container image is named by a version or a digest.

    >>> [is_pinned(x) for x in ("rayproject/ray:2.60.0-py311-cpu", "ray:nightly-py311", "host:5000/ray")]
    [True, False, False]
    """
    name = image.rsplit("/", 1)[-1]
    if "@sha256:" in name:
        return True
    tag = name.partition(":")[2]
    return bool(tag) and not any(word in tag for word in _MOVING)
