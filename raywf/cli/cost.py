"""`raywf cost`: what searches cost, and what one will cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.settings import Workflow
from raywf.cost.allot import Parts
from raywf.cost.money import format_usd

if TYPE_CHECKING:
    from raywf.loop.estimate import Estimate
    from raywf.loop.spending import CostLine, SearchCost

_WHAT = {
    "done": "trials that were done",
    "stopped": "trials stopped early, as losers or by the budget",
    "failed": "trials that failed",
    "idle": "held by no trial: start-up, ensemble, refits, slots that waited",
    "unfinished": "searches that were cut off or gave no model",
}

_CLUSTER_VIEWS = ("version", "day", "workflow")


@click.command()
@workflow_options
@click.option(
    "--by",
    default="version",
    show_default=True,
    type=click.Choice(["version", "day", "sweep", "family", "trial", "workflow"]),
    help="What to add up by; trial: the 20 dearest, workflow: all of the store. "
    "With --cluster: version, day or workflow.",
)
@click.option("--estimate", "ahead", is_flag=True, help="What the next search costs at its budget, instead.")
@click.option(
    "--nodes", type=click.IntRange(min=1), help="With --estimate: on so many nodes of cost.node_type."
)
@click.option(
    "--cluster", "whole", is_flag=True, help="What the cluster's nodes cost, and what held them, instead."
)
@click.option(
    "--bill",
    type=click.Path(exists=True, dir_okay=False),
    help="The nodes' cost beside a billing export (AWS CUR or FOCUS, CSV), instead.",
)
@click.option("--advice", is_flag=True, help="What would make the cluster cheaper, instead.")
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="With --cluster and --advice: of how many days.",
)
@click.option("--predictions", type=click.IntRange(min=1), help="With --cluster: so many, not counted.")
def cost(workflow: Workflow, by: str, *, as_json: bool, **asked: Any) -> None:
    """Show what searches cost and where the money went, or what the whole cluster does."""
    _check(by, asked)
    if asked["ahead"]:
        from raywf.loop.estimate import estimate

        found = estimate(workflow, nodes=asked["nodes"])
        show(found, as_json=as_json, lines=_estimate_lines(found))
    elif asked["whole"] or asked["bill"] or asked["advice"]:
        value, lines = _of_cluster(workflow, by, asked)
        show(value, as_json=as_json, lines=lines)
    else:
        _show_searches(workflow, by, as_json=as_json)


def _check(by: str, asked: dict[str, Any]) -> None:
    """Refuse options that do not go together."""
    if asked["nodes"] is not None and not asked["ahead"]:
        raise click.UsageError("--nodes goes with --estimate; --cluster shows the nodes that there were")
    modes = {"--estimate": "ahead", "--cluster": "whole", "--bill": "bill", "--advice": "advice"}
    given = [name for name, key in modes.items() if asked[key]]
    if len(given) > 1:
        raise click.UsageError(f"one of {' and '.join(given)}, not both")
    if asked["whole"] and by not in _CLUSTER_VIEWS:
        raise click.UsageError(f"--cluster goes by {', '.join(_CLUSTER_VIEWS)}, not by {by}")
    if asked["predictions"] is not None and not asked["whole"]:
        raise click.UsageError("--predictions goes with --cluster")


def _of_cluster(workflow: Workflow, by: str, asked: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    from raywf.cli.bill import show_advice, show_bill, show_cluster

    if asked["bill"]:
        return show_bill(workflow, asked["bill"])
    if asked["advice"]:
        return show_advice(workflow, days=asked["days"])
    return show_cluster(workflow, by, days=asked["days"], predictions=asked["predictions"])


def _show_searches(workflow: Workflow, by: str, *, as_json: bool) -> None:
    from raywf.loop.spending import VIEWS, read_spending

    searches = tuple(s for s in read_spending(workflow) if by == "workflow" or s.workflow == workflow.name)
    parts, lines = sum((s.parts for s in searches), Parts()), VIEWS[by](searches)
    title = workflow.stores.root if by == "workflow" else workflow.name
    value = {"usd": parts.usd, "searches": len(searches), "parts": parts, "by": by, "lines": _values(lines)}
    shown = _report(title, by, lines, searches) if searches else _nothing(workflow)
    show(value, as_json=as_json, lines=shown)


def _nothing(workflow: Workflow) -> list[str]:
    return [
        f"no search of {workflow.name} yet in {workflow.stores.root}; next: raywf run, raywf cost --estimate"
    ]


def _values(lines: tuple[CostLine, ...]) -> list[dict[str, Any]]:
    return [
        {"name": x.name, "usd": x.parts.usd, "searches": x.searches, "parts": x.parts, "note": x.note}
        for x in lines
    ]


def _report(title: str, by: str, lines: tuple[CostLine, ...], searches: tuple[SearchCost, ...]) -> list[str]:
    whole = sum((s.parts for s in searches), Parts())
    named = [name for name in _WHAT if getattr(whole, name) > 0]
    amounts = [format_usd(getattr(whole, name)) for name in named]
    width = max(map(len, amounts), default=0)
    counted = by != "trial" and any(x.searches > 1 for x in lines)
    shared = named if by != "trial" else []
    rows = [
        (
            x.name,
            *([x.searches] if counted else []),
            format_usd(x.parts.usd),
            *(_percent(x.parts, name) for name in shared),
            x.note,
        )
        for x in lines
    ]
    return [
        f"{title}: {format_usd(whole.usd)} in {len(searches)} search{'' if len(searches) == 1 else 'es'}",
        *(
            f"  {amount:>{width}}  {_percent(whole, name):>4}  {name:<10}  {_WHAT[name]}"
            for name, amount in zip(named, amounts, strict=True)
        ),
        "",
        *table([by, *(["searches"] if counted else []), "cost", *shared, ""], rows),
    ]


def _percent(parts: Parts, name: str) -> str:
    return f"{getattr(parts, name) / parts.usd:.0%}" if parts.usd else "-"


def _estimate_lines(found: Estimate) -> list[str]:
    whole = found.nodes is not None and found.cpus < found.cluster_cpus
    rows = [
        (
            o.terms,
            format_usd(o.usd_per_hour),
            f"{o.seconds:.0f} s",
            format_usd(o.usd),
            *([format_usd(o.nodes_usd or 0.0)] if whole else []),
            *([format_usd(o.month_usd)] if o.month_usd is not None else []),
            o.basis,
        )
        for o in found.offers
    ]
    headers = ["price", "per hour", "at most", "a search", *(["whole nodes"] if whole else [])]
    headers += ["per 30 days"] if found.offers[0].month_usd is not None else []
    where = f"{found.nodes} x {found.node_type}" if found.nodes else "this machine"
    return [
        f"a search of {found.workflow} on {found.cpus} of the {found.cluster_cpus} CPUs of {where}",
        *table([*headers, "basis"], rows),
        *(["searches are recorded at the first price; cost.spot chooses"] if len(rows) > 1 else []),
    ]
