"""The reckoned bill beside the cloud's: what of both is of the same machines, and how far they are apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from raywf.cost.bill import Bill, Charged
from raywf.cost.split import Share

_Kind = tuple[str, str, bool]  # day, node type, spot or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Machines of a type and market on one day: what was reckoned and what was billed for them."""

    day: str
    node_type: str
    spot: bool
    by: str
    reckoned_usd: float
    billed_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """Both bills: `pairs` are of the same machines, `only_reckoned` and `only_billed` are of one side.

    `elsewhere_usd` is billed for machines of other clusters, or of types that this one did not have then.
    """

    pairs: tuple[Pair, ...]
    only_reckoned: tuple[Pair, ...]
    only_billed: tuple[Pair, ...]
    elsewhere_usd: float
    other_usd: float
    columns: dict[str, str]

    @property
    def reckoned_usd(self) -> float:
        """All that was reckoned."""
        return fsum(pair.reckoned_usd for pair in (*self.pairs, *self.only_reckoned))

    @property
    def billed_usd(self) -> float:
        """All that was billed for this cluster."""
        return fsum(pair.billed_usd for pair in (*self.pairs, *self.only_billed))

    @property
    def difference(self) -> float | None:
        """How far what was reckoned is above what was billed, as a share of that; None without a bill."""
        return (self.reckoned_usd - self.billed_usd) / self.billed_usd if self.billed_usd else None


def reconcile(shares: Iterable[Share], bill: Bill, *, cluster: str) -> Reconciled:
    """Compare by the machine's id and day where nodes tell theirs, else by type, market and day.

    A line with the tag of another cluster is not of this one. Where any line has a cluster's tag, one without
    is of this cluster only by its id; where none has, every machine of the same type is taken for it.
    """
    ours, ids = _reckoned(shares)
    by_id: dict[_Kind, list[float]] = defaultdict(lambda: [0.0, 0.0])
    by_type: dict[_Kind, float] = defaultdict(float)
    elsewhere = 0.0
    left = dict(ours)
    for charged, usd in sorted(bill.usd.items()):
        if charged.resource in ids:
            kind = (charged.day, *ids[charged.resource])
            by_id[kind][1] += usd
            by_id[kind][0] += left.pop((kind, charged.resource), 0.0)
        elif _is_ours(charged, bill, cluster):
            by_type[charged.day, charged.node_type, charged.spot] += usd
        else:
            elsewhere += usd
    reckoned: dict[_Kind, float] = defaultdict(float)
    for (kind, _), usd in left.items():
        reckoned[kind] += usd
    billed = {k: usd for k, usd in by_type.items() if k in reckoned or bill.tagged}
    elsewhere += fsum(usd for k, usd in by_type.items() if k not in billed)
    return Reconciled(
        pairs=(
            *(_pair(kind, "id", *both) for kind, both in sorted(by_id.items())),
            *_pairs({k: (usd, billed[k]) for k, usd in reckoned.items() if k in billed}),
        ),
        only_reckoned=_pairs({k: (usd, 0.0) for k, usd in reckoned.items() if k not in billed}),
        only_billed=_pairs({k: (0.0, usd) for k, usd in billed.items() if k not in reckoned}),
        elsewhere_usd=elsewhere,
        other_usd=bill.other_usd,
        columns=bill.columns,
    )


def by_kind(pairs: Sequence[Pair]) -> tuple[tuple[str, float, float], ...]:
    """Return type and market with what was reckoned and billed, over all days."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for pair in pairs:
        both = sums[f"{pair.node_type or 'unknown type'} {'spot' if pair.spot else 'on demand'}"]
        both[0] += pair.reckoned_usd
        both[1] += pair.billed_usd
    return tuple((name, reckoned, billed) for name, (reckoned, billed) in sorted(sums.items()))


def _reckoned(
    shares: Iterable[Share],
) -> tuple[dict[tuple[_Kind, str], float], dict[str, tuple[str, bool]]]:
    """Return USD by kind and machine's id, and each machine's type and market."""
    ours: dict[tuple[_Kind, str], float] = defaultdict(float)
    ids: dict[str, tuple[str, bool]] = {}
    for share in shares:
        span = share.node.span
        kind = (share.day, share.node.node_type, span.spot)
        ours[kind, span.resource_id] += share.usd
        if span.resource_id:
            ids[span.resource_id] = (share.node.node_type, span.spot)
    return ours, ids


def _is_ours(charged: Charged, bill: Bill, cluster: str) -> bool:
    return charged.cluster == cluster if bill.tagged else True


def _pairs(both: Mapping[_Kind, tuple[float, float]]) -> tuple[Pair, ...]:
    return tuple(_pair(kind, "type", *usd) for kind, usd in sorted(both.items()))


def _pair(kind: _Kind, by: str, reckoned: float, billed: float) -> Pair:
    day, node_type, spot = kind
    return Pair(day=day, node_type=node_type, spot=spot, by=by, reckoned_usd=reckoned, billed_usd=billed)
