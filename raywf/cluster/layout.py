"""A cluster's file to what it makes: its nodes, who reaches the dashboard, whether tokens are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from raywf.core.errors import SettingsError

Kind = Literal["ray up", "RayCluster", "RayService", "RayJob", "RayCronJob"]
_CLUSTER_AT: dict[str, tuple[str, ...]] = {
    "RayCluster": ("spec",),
    "RayService": ("spec", "rayClusterConfig"),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
_CLOUDS = {"aws": "aws", "gcp": "gcp", "azure": "azure", "local": "on-premise"}
_MAX_WORKERS = 2  # Ray's own, of a cluster; a type without limit of its own has the cluster's
_PINNED = re.compile(r"pip install\b.*\bray(\[[\w,]+\])?==\d")
_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - looked for, not listened on


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """Nodes that are alike; `cpus` None where Ray finds out itself, `limit` the most there can be of them."""

    name: str
    is_head: bool
    node_type: str
    cpus: float | None
    spot: bool
    least: int
    limit: int
    pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a file makes. `dashboard` is the address it listens on, `images` the containers' images.

    `nightly` has the commands that install a Ray of no release, `ungrouped` AWS' types without a security
    group, `open_ports` what the file itself opens to every address.
    """

    kind: Kind
    name: str
    cloud: str
    region: str
    nodes: tuple[NodeLine, ...]
    max_workers: int
    dashboard: str
    has_tokens: bool
    images: tuple[str, ...]
    has_pinned_wheel: bool = False
    nightly: tuple[str, ...] = ()
    ungrouped: tuple[str, ...] = ()
    open_ports: tuple[str, ...] = ()

    @property
    def workers(self) -> tuple[NodeLine, ...]:
        """The lines of workers."""
        return tuple(node for node in self.nodes if not node.is_head)

    @property
    def is_open(self) -> bool:
        """Whether the dashboard listens on every address."""
        return self.dashboard in _ALL_ADDRESSES


def read_layouts(documents: Sequence[Mapping[str, Any]]) -> tuple[Layout, ...]:
    """Return the layout of each cluster in a file's YAML documents; those of other kinds make no nodes.

    Raises:
        SettingsError: if there is no cluster in it.
    """
    found = []
    for document in documents:
        if "provider" in document:
            found.append(_of_ray_up(document))
        elif document.get("kind") in _CLUSTER_AT:
            found.append(_of_kuberay(document))
    if not found:
        kinds = ", ".join(str(d.get("kind", "?")) for d in documents)
        raise SettingsError(
            f"no cluster in it: neither 'provider', as for ray up, nor a kind of KubeRay's: {kinds}"
        )
    return tuple(found)


def _of_ray_up(config: Mapping[str, Any]) -> Layout:
    provider = config.get("provider") or {}
    start = " ".join(map(str, config.get("head_start_ray_commands") or ()))
    types = config.get("available_node_types") or {}
    head = str(config.get("head_node_type", ""))
    most = int(config.get("max_workers", _MAX_WORKERS))
    nodes = [
        _of_type(name, {"max_workers": most} | kind, is_head=name == head) for name, kind in types.items()
    ]
    if not nodes and provider.get("type") == "local":
        nodes = _of_hosts(provider, start)
    docker = config.get("docker") or {}
    images = [docker[key] for key in ("image", "head_image", "worker_image") if docker.get(key)]
    return Layout(
        kind="ray up",
        name=str(config.get("cluster_name", "")),
        cloud=_CLOUDS.get(str(provider.get("type")), str(provider.get("type"))),
        region=str(provider.get("region") or provider.get("location") or ""),
        nodes=tuple(nodes),
        max_workers=most,
        # without commands of its own a cloud's file gets Ray's, which open it
        dashboard=_dashboard(start, "0.0.0.0" if types and not start else "127.0.0.1"),  # noqa: S104
        has_tokens=all(_has_tokens(config.get(f"{role}_start_ray_commands")) for role in ("head", "worker")),
        images=tuple(images),
        has_pinned_wheel=any(_PINNED.search(command) for command in _installs(config)),
        nightly=_nightly(config),
        ungrouped=_ungrouped(types) if provider.get("type") == "aws" else (),
        open_ports=_open_ports(provider),
    )


def _has_tokens(commands: Sequence[object] | None) -> bool:
    """Return whether every start of Ray asks for a token; a variable of another command's is not Ray's."""
    starts = [str(command) for command in commands or () if "ray start" in str(command)]
    return bool(starts) and all("RAY_AUTH_MODE=token" in command for command in starts)


def _of_type(name: str, kind: Mapping[str, Any], *, is_head: bool) -> NodeLine:
    config = kind.get("node_config") or {}
    arm = config.get("azure_arm_parameters") or {}
    cpus = (kind.get("resources") or {}).get("CPU")
    least = int(kind.get("min_workers") or 0)
    return NodeLine(
        name=name,
        is_head=is_head,
        node_type=str(config.get("InstanceType") or config.get("machineType") or arm.get("vmSize") or ""),
        cpus=None if cpus is None else float(cpus),
        spot=_is_spot(config),
        least=1 if is_head else least,
        limit=1 if is_head else int(kind["max_workers"]),
        pool=str((kind.get("labels") or {}).get("pool", "")),
    )


def _is_spot(config: Mapping[str, Any]) -> bool:
    market = (config.get("InstanceMarketOptions") or {}).get("MarketType")
    scheduling = config.get("scheduling") or {}
    if isinstance(scheduling, list):  # Ray's own example has a list of one
        scheduling = {k: v for part in scheduling for k, v in part.items()}
    google = scheduling.get("provisioningModel") == "SPOT" or bool(scheduling.get("preemptible"))
    azure = str((config.get("azure_arm_parameters") or {}).get("priority", "")).lower() == "spot"
    return market == "spot" or google or azure


def _of_hosts(provider: Mapping[str, Any], start: str) -> list[NodeLine]:
    count = len(provider.get("worker_ips") or ())
    given = re.search(r"--num-cpus[= ](\d+)", start)
    cpus = float(given[1]) if given else None
    rest = NodeLine(
        name="workers", is_head=False, node_type="", cpus=None, spot=False, least=count, limit=count
    )
    head = replace(rest, name="head", is_head=True, cpus=cpus, least=1, limit=1, pool="system")
    return [head, rest]


def _dashboard(start: str, otherwise: str) -> str:
    found = re.search(r"--dashboard-host[= ](\S+)", start)
    return found[1] if found else otherwise


def _installs(config: Mapping[str, Any]) -> list[str]:
    keys = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    return [str(command) for key in keys for command in config.get(key) or ()]


def _nightly(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return commands that install a Ray of no release; a file without set-up commands has Ray's own."""
    commands = _installs(config)
    found = [c for c in commands if "ray-wheels" in c or re.search(r"ray\S*(\.dev|nightly)", c)]
    loose = [c for c in commands if re.search(r"pip install\b.*\bray(\[[\w,]+\])?(?![\w=\[/.-])", c)]
    if config.get("available_node_types") and "setup_commands" not in config:
        found.append("no setup_commands: Ray's own install a nightly wheel")
    return tuple(dict.fromkeys([*found, *loose]))


def _ungrouped(types: Mapping[str, Any]) -> tuple[str, ...]:
    def is_bare(kind: Mapping[str, Any]) -> bool:
        config = kind.get("node_config") or {}
        return not config.get("SecurityGroupIds") and "NetworkInterfaces" not in config

    return tuple(name for name, kind in types.items() if is_bare(kind or {}))


def _open_ports(provider: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ports that the file's own rules open to every address."""
    rules = (provider.get("security_group") or {}).get("IpPermissions") or ()
    found = []
    for rule in rules:
        ranges = [*(rule.get("IpRanges") or ()), *(rule.get("Ipv6Ranges") or ())]
        if any(r.get("CidrIp", r.get("CidrIpv6")) in ("0.0.0.0/0", "::/0") for r in ranges):
            first, last = rule.get("FromPort", "all"), rule.get("ToPort", "all")
            found.append(str(first) if first == last else f"{first} to {last}")
    return tuple(found)


def _of_kuberay(document: Mapping[str, Any]) -> Layout:
    kind = document["kind"]
    spec: Any = document
    for key in _CLUSTER_AT[kind]:
        spec = (spec or {}).get(key)
    spec = spec or {}
    head = spec.get("headGroupSpec") or {}
    meta = document.get("metadata") or {}
    groups = (head, *(spec.get("workerGroupSpecs") or ()))
    lines = [_of_group(group, is_head=group is head) for group in groups]
    if not spec.get("enableInTreeAutoscaling"):
        lines = [_without_scaling(line, group) for line, group in zip(lines, groups, strict=True)]
    auth = spec.get("authOptions") or {}
    return Layout(
        kind=kind,
        name=str(meta.get("name") or meta.get("generateName") or ""),
        cloud="kuberay",
        region="",
        nodes=tuple(lines),
        max_workers=sum(line.limit for line in lines if not line.is_head),
        # KubeRay's default: every address of the pod, which only a network policy narrows
        dashboard=str((head.get("rayStartParams") or {}).get("dashboard-host", "the pod's addresses")),
        has_tokens=auth.get("mode") == "token",
        images=tuple(_images(groups)),
        open_ports=("the head's service",) if head.get("serviceType") in ("LoadBalancer", "NodePort") else (),
    )


def _pod(group: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (group.get("template") or {}).get("spec") or {}
    return found


def _images(groups: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    images = (str(c.get("image", "")) for group in groups for c in _pod(group).get("containers") or ())
    return dict.fromkeys(images)


def _of_group(group: Mapping[str, Any], *, is_head: bool) -> NodeLine:
    containers: Any = _pod(group).get("containers") or ({},)
    resources = containers[0].get("resources") or {}
    asked = (resources.get("limits") or resources.get("requests") or {}).get("cpu")
    start = group.get("rayStartParams") or {}
    own = start.get("num-cpus")
    tolerated = {t.get("key") for t in _pod(group).get("tolerations") or ()}
    least = int(group.get("minReplicas") or 0)
    return NodeLine(
        name="head" if is_head else str(group.get("groupName", "")),
        is_head=is_head,
        node_type=f"pod of {_cores(asked):g} CPUs" if asked is not None else "pod",
        cpus=float(own) if own is not None else _cores(asked) if asked is not None else None,
        spot="spot" in tolerated,
        least=1 if is_head else least,
        limit=1 if is_head else int(group.get("maxReplicas", least)),
        pool=str((group.get("labels") or {}).get("pool", "")),
    )


def _without_scaling(line: NodeLine, group: Mapping[str, Any]) -> NodeLine:
    count = 1 if line.is_head else int(group.get("replicas", line.least))
    return replace(line, least=count, limit=count)


def _cores(quantity: object) -> float:
    """Return Kubernetes' CPU quantity as a number.

    >>> [_cores(x) for x in ("500m", "2", 4)]
    [0.5, 2.0, 4.0]
    """
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)
