"""What `raywf cost` shows of the cluster itself: its bill, the cloud's beside it, and advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from raywf.cli.options import table
from raywf.cluster.plan import make_plan
from raywf.core.clock import format_time, parse_time
from raywf.core.settings import Workflow
from raywf.cost.advice import Advice, Past, advise
from raywf.cost.bill import Bill, read_bill
from raywf.cost.money import format_usd
from raywf.cost.reconcile import Pair, Reconciled, by_kind, reconcile
from raywf.loop.cluster_cost import VIEWS, BillLine, ClusterCost, by_node_type, read_cluster_cost
from raywf.loop.traffic import Traffic, count_traffic

_PRICED = {"aws", "gcp", "azure"}
_MEANING = {
    "trial": "trials of searches",
    "search": "a search's job besides its trials: start-up, ensemble, refits",
    "unfinished": "searches that were cut off or gave no model",
    "replica": "replicas that serve",
    "system": "nodes that offer no CPUs to work, as the head",
    "idle": "held by nobody",
}
Shown = tuple[dict[str, Any], list[str]]


def show_cluster(workflow: Workflow, by: str, *, days: int, predictions: int | None) -> Shown:
    """Return the bill by node type and market and by one thing more, as a value and as lines."""
    end = datetime.now(UTC)
    found = _read(workflow, end - timedelta(days=days), end)
    if not found.nodes:
        return {"usd": 0.0, "nodes": [], "lines": []}, _nothing(workflow)
    counted = _traffic(workflow, found, predictions)
    count = counted.predictions if predictions is None else predictions
    per_1000 = 1000 * found.split.usd / count if count else None
    nodes, lines = by_node_type(found), VIEWS[by](found)
    value = {
        "start": format_time(found.nodes[0].span.start),
        "end": format_time(found.end),
        "usd": found.split.usd,
        "parts": _parts(nodes),
        "nodes": [*nodes],
        "by": by,
        "lines": [*lines],
        "predictions": count,
        "usd_per_1000_predictions": per_1000,
        "unplaced_cpu_hours": found.split.unplaced_cpu_h,
        "notes": found.notes,
    }
    return value, _cluster_lines(found, by, nodes, lines, _per_1000(per_1000, count, counted))


def show_bill(workflow: Workflow, path: str) -> Shown:
    """Return the reckoned bill beside the cloud's, over the days of its file and of the nodes' history."""
    bill = read_bill(path)
    first, last = bill.days()
    found = _read(workflow, parse_time(first), parse_time(last) + timedelta(days=1))
    if not found.nodes:
        return {"pairs": [], "columns": bill.columns}, _nothing(workflow, f" between {first} and {last}")
    since = f"{found.nodes[0].span.start:%Y-%m-%d}"
    both = reconcile(found.split.shares, bill.since(since), cluster=workflow.cluster.name)
    value = {
        "since": since,
        "until": last,
        "reckoned_usd": both.reckoned_usd,
        "billed_usd": both.billed_usd,
        "difference": both.difference,
        "pairs": [*both.pairs],
        "only_reckoned": [*both.only_reckoned],
        "only_billed": [*both.only_billed],
        "elsewhere_usd": both.elsewhere_usd,
        "other_usd": both.other_usd,
        "columns": both.columns,
        "notes": found.notes,
    }
    return value, _bill_lines(both, bill, found, since=since, last=last)


def show_advice(workflow: Workflow, *, days: int) -> Shown:
    """Return what would save something, and what could not be said."""
    end = datetime.now(UTC)
    found = _read(workflow, end - timedelta(days=days), end)
    if not found.nodes:
        return {"advice": [], "skipped": []}, _nothing(workflow)
    counted = _traffic(workflow, found, None)
    past = Past(
        nodes=found.nodes,
        uses=found.uses,
        shares=found.split.shares,
        end=found.end,
        replicas=workflow.serving.replicas,
        most_replicas=workflow.serving.max_replicas or workflow.serving.replicas,
        largest_cpus=max(workflow.search.slot_cpus, workflow.serving.replica_cpus),
        traffic=None if counted.problem else counted.hours,
        no_traffic=counted.problem,
    )
    advice, skipped = advise(past, priced_as(workflow).cost)
    value = {"month_usd": past.month_usd, "advice": [*advice], "skipped": [*skipped], "notes": found.notes}
    title = f"{format_usd(past.month_usd)} a month, by {past.hours / 24:.1f} days of nodes"
    return value, [title, *_advice_lines(advice), *(f"not known: {reason}" for reason in skipped)]


def priced_as(workflow: Workflow) -> Workflow:
    """Return the workflow with prices of the cluster's cloud and region, where `cost` names none."""
    cluster, cost = workflow.cluster, workflow.cost
    if cost.cloud is not None or cluster.cloud not in _PRICED:
        return workflow
    region = cost.region or make_plan(cluster, prices=cost.prices).region
    return replace(workflow, cost=replace(cost, cloud=cluster.cloud, region=region))


def _read(workflow: Workflow, start: datetime, end: datetime) -> ClusterCost:
    types = None
    if workflow.cluster.cloud in _PRICED:
        plan = make_plan(workflow.cluster, prices=workflow.cost.prices)
        types = {group.pool: group.node_type for group in (plan.head, *plan.workers)}
    return read_cluster_cost(priced_as(workflow), start, end, types=types)


def _nothing(workflow: Workflow, when: str = "") -> list[str]:
    root = workflow.stores.root
    return [
        f"no node of the cluster is in the history of {root}{when}: raywf serve's controller writes it down"
    ]


def _traffic(workflow: Workflow, found: ClusterCost, predictions: int | None) -> Traffic:
    if predictions is not None:
        return Traffic(hours={})
    return count_traffic(workflow.stores.root, workflow.name, found.nodes[0].span.start, found.end)


def _per_1000(usd: float | None, count: int | None, counted: Traffic) -> str:
    if usd is None:
        why = counted.problem or "the log has no predictions of this time"
        return f"per 1,000 predictions: not known: {why}; --predictions N gives them"
    return f"per 1,000 predictions: {format_usd(usd)} of all nodes ({count:,} predictions)"


def _parts(lines: Sequence[BillLine]) -> dict[str, float]:
    return {name: sum(line.parts[name] for line in lines) for name in _MEANING}


def _cluster_lines(
    found: ClusterCost, by: str, nodes: Sequence[BillLine], lines: Sequence[BillLine], per_1000: str
) -> list[str]:
    parts = _parts(nodes)
    named = [name for name, usd in parts.items() if usd > 0]
    rows = [
        (line.name, line.nodes, f"{line.hours:.1f}", format_usd(line.usd), *_shares(line, named))
        for line in nodes
    ]
    unplaced = found.split.unplaced_cpu_h
    return [
        f"the cluster: {format_usd(found.split.usd)} in {found.days:.1f} days",
        *(f"  {format_usd(parts[name]):>10}  {name:<10}  {_MEANING[name]}" for name in named),
        per_1000,
        "",
        *table(["node type", "nodes", "hours", "cost", *named], rows),
        "",
        *table([by, "cost", *named], [(x.name, format_usd(x.usd), *_shares(x, named)) for x in lines]),
        *(f"note: {note}" for note in found.notes),
        *([f"note: {unplaced:.1f} CPU-hours were held while no node was seen"] if unplaced > 0.05 else []),
    ]


def _shares(line: BillLine, named: Sequence[str]) -> list[str]:
    return [f"{line.parts[name] / line.usd:.0%}" if line.usd else "-" for name in named]


def _bill_lines(both: Reconciled, bill: Bill, found: ClusterCost, *, since: str, last: str) -> list[str]:
    difference = "" if both.difference is None else f": {both.difference:+.1%}"
    rows = [
        (name, format_usd(ours), format_usd(theirs), f"{ours / theirs - 1:+.1%}" if theirs else "-")
        for name, ours, theirs in by_kind((*both.pairs, *both.only_reckoned, *both.only_billed))
    ]
    ways = sorted({pair.by for pair in both.pairs})
    by_type = "type" in ways and not bill.tagged
    return [
        f"{since} to {last}: {format_usd(both.reckoned_usd)} reckoned, "
        f"{format_usd(both.billed_usd)} billed{difference}",
        *table(["node type", "reckoned", "billed", "difference"], rows),
        f"columns: {', '.join(f'{key} = {name}' for key, name in both.columns.items())}",
        f"matched by {' and '.join(ways) or 'nothing'}, day by day",
        *(
            ["note: no line has a cluster's tag: machines of these types are all taken for it"]
            if by_type
            else []
        ),
        *_unmatched("reckoned, and not in the bill", both.only_reckoned),
        *_unmatched("billed for this cluster, and no node seen", both.only_billed),
        f"other lines: {format_usd(both.elsewhere_usd)} of other machines, "
        f"{format_usd(both.other_usd)} of what is no machine",
        *(f"note: {note}" for note in found.notes),
    ]


def _unmatched(what: str, pairs: Sequence[Pair]) -> list[str]:
    if not pairs:
        return []
    usd = sum(pair.reckoned_usd + pair.billed_usd for pair in pairs)
    days = sorted({pair.day for pair in pairs})
    return [f"{what}: {format_usd(usd)} on {len(days)} days, {days[0]} to {days[-1]}"]


def _advice_lines(advice: Sequence[Advice]) -> list[str]:
    if not advice:
        return ["nothing that saves $1 or 5 % a month"]
    lines = []
    for each in advice:
        saving = "" if each.saving_usd is None else f": saves {format_usd(each.saving_usd)} a month"
        lines += ["", f"{each.what}{saving}", f"  {each.figure}", f"  assumed: {each.assumption}"]
    return [*lines, "", "each by itself: what two of them save does not add up"]
