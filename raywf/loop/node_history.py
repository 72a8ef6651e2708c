"""Which nodes the cluster had and when: pieces below ``cluster/<workflow>/<day>``, written once each.

A piece holds nodes as one controller saw them. It is written when a node comes or goes and once an hour, so
that a controller which is killed with its nodes forgets an hour of them at most. Read together, the pieces of
a node join to one span.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import ray

from raywf.core.codec import decode, encode
from raywf.core.ids import stable_id
from raywf.core.pools import LABEL
from raywf.core.records import NodeSpan, ReplicaSpan
from raywf.core.settings import Workflow
from raywf.core.store import Store

WRITTEN_EVERY = timedelta(hours=1)
_TYPES = ("node-type", "ray.io/instance-type", "node.kubernetes.io/instance-type")
_READERS = 16  # an object store answers each slowly and many at once
_RESTARTED = 2 * WRITTEN_EVERY  # what a killed controller had not written yet, and the time to its next
_FOLDER = "cluster"
_Span = TypeVar("_Span", NodeSpan, ReplicaSpan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one file holds."""

    nodes: tuple[NodeSpan, ...] = ()
    replicas: tuple[ReplicaSpan, ...] = ()


class NodeRecorder:
    """Keeps a workflow's node history; `tick` is for one thread."""

    def __init__(
        self,
        workflow: Workflow,
        *,
        look: Callable[[], Sequence[Mapping[str, Any]]] = ray.nodes,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._workflow, self._look, self._now = workflow, look, now
        self._store = Store(workflow.stores.root)
        self._alive: dict[str, NodeSpan] = {}
        self._unwritten: dict[str, NodeSpan] = {}  # came or went and could not be written yet
        self._replicas: ReplicaSpan | None = None
        self._written: datetime | None = None

    def tick(self) -> None:
        """Look at the nodes, and write a piece if that is due.

        Raises:
            OSError: if the store refuses; the next call writes what this one could not.
        """
        now = self._now()
        seen = {node["NodeID"]: span_of(node, now) for node in self._look() if node["Alive"]}
        spans = {
            key: replace(self._alive[key], end=now) if key in self._alive else span
            for key, span in seen.items()
        }
        self._unwritten |= {key: span for key, span in self._alive.items() if key not in spans}
        self._unwritten |= {key: span for key, span in spans.items() if key not in self._alive}
        self._alive = spans
        self._replicas = self._serving(now)
        due = self._written is None or now - self._written >= WRITTEN_EVERY
        changed = self._unwritten | (spans if due else {})
        changed = {key: spans.get(key, span) for key, span in changed.items()}
        if changed:
            nodes = tuple(changed[key] for key in sorted(changed))
            self._write(Piece(nodes=nodes, replicas=(self._replicas,)), now)
            self._unwritten.clear()
            self._written = now if due else self._written

    def _write(self, piece: Piece, now: datetime) -> None:
        data = json.dumps(encode(piece)).encode()
        name = f"{now:%H%M%S}-{stable_id(data.decode())}.json"
        self._store.create(f"{_FOLDER}/{self._workflow.name}/{now:%Y-%m-%d}/{name}", data)

    def _serving(self, now: datetime) -> ReplicaSpan:
        serving, pools = self._workflow.serving, self._workflow.cluster.pools
        return ReplicaSpan(
            workflow=self._workflow.name,
            start=self._replicas.start if self._replicas else now,
            end=now,
            cpus=serving.replicas * serving.replica_cpus,
            pool="serve" if pools else "",
            whole_pool=pools and serving.replica_cpus == 0,
        )


def span_of(node: Mapping[str, Any], now: datetime) -> NodeSpan:
    """Return what an entry of ``ray.nodes()`` says of a node that is seen for the first time.

    The cluster's own files call groups of spot nodes ``...-spot``: it holds where no label tells the market.
    """
    labels: Mapping[str, str] = node.get("Labels") or {}
    resources: Mapping[str, float] = node.get("Resources") or {}
    group, market = labels.get("ray.io/node-group", ""), labels.get("ray.io/market-type", "")
    return NodeSpan(
        node_id=node["NodeID"],
        start=now,
        end=now,
        cpus=float(resources.get("CPU", 0)),
        gpus=float(resources.get("GPU", 0)),
        spot=market == "spot" if market else group.endswith("-spot"),
        node_type=next((labels[name] for name in _TYPES if labels.get(name)), ""),
        group=group,
        pool=labels.get(LABEL, ""),
        region=labels.get("ray.io/availability-region", ""),
        resource_id=labels.get("instance-id", ""),
    )


def read_history(root: str, start: datetime, end: datetime) -> Piece:
    """Return the nodes and replicas that any workflow of a store saw between two instants, cut to these."""
    store, day = Store(root), timedelta(days=1)
    first, last = f"{start - day:%Y-%m-%d}", f"{end + day:%Y-%m-%d}"  # a span goes on in the next piece
    paths = [
        f"{folder}/{name}"
        for workflow in store.list(_FOLDER)
        for date in store.list(f"{_FOLDER}/{workflow}")
        if first <= date <= last
        for folder in (f"{_FOLDER}/{workflow}/{date}",)
        for name in store.list(folder)
    ]
    with ThreadPoolExecutor(_READERS) as readers:
        pieces = list(readers.map(lambda path: decode(Piece, json.loads(store.read(path))), paths))
    nodes = joined_nodes(span for piece in pieces for span in piece.nodes)
    replicas = _joined_replicas(span for piece in pieces for span in piece.replicas)
    return Piece(nodes=_cut(nodes, start, end), replicas=_cut(replicas, start, end))


def joined_nodes(spans: Iterable[NodeSpan]) -> tuple[NodeSpan, ...]:
    """Return a span a node, from the first time that anyone saw it to the last; the earliest first."""
    found: dict[str, NodeSpan] = {}
    for span in spans:
        known = found.get(span.node_id, span)
        found[span.node_id] = replace(known, start=min(known.start, span.start), end=max(known.end, span.end))
    return tuple(sorted(found.values(), key=lambda s: (s.start, s.node_id)))


def _joined_replicas(spans: Iterable[ReplicaSpan]) -> tuple[ReplicaSpan, ...]:
    """Return a span for each time that replicas held so much, over a controller's restarts too."""
    found: list[ReplicaSpan] = []
    for span in sorted(spans, key=lambda s: (s.workflow, s.cpus, s.pool, s.whole_pool, s.start)):
        last = found[-1] if found else None
        same = last is not None and replace(span, start=last.start, end=last.end) == last
        if last is not None and same and span.start - last.end <= _RESTARTED:
            found[-1] = replace(last, end=max(last.end, span.end))
        else:
            found.append(span)
    return tuple(found)


def _cut(spans: Sequence[_Span], start: datetime, end: datetime) -> tuple[_Span, ...]:
    return tuple(
        replace(span, start=max(span.start, start), end=min(span.end, end))
        for span in spans
        if span.start < end and span.end > start
    )
