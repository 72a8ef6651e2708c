"""`raywf backtest`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.clock import parse_time
from raywf.core.duration import format_duration, parse_duration
from raywf.core.metrics import find_metric
from raywf.core.settings import Workflow


@click.command()
@workflow_options
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="TEXT",
    help="When to retrain: never, raywf [KEY=VALUE ...], 'every 30d [full]', 'adwin [DELTA]', oracle; may be "
    "given several times. Default: never, every step, raywf and oracle.",
)
@click.option("--start", type=parse_time, help="When the first model is trained; default: a quarter in.")
@click.option("--until", type=parse_time, help="Where history ends; default: now.")
@click.option("--step", type=parse_duration, help="Time between two chances to decide; default: a twentieth.")
def backtest(
    workflow: Workflow,
    policies: tuple[str, ...],
    start: datetime | None,
    until: datetime | None,
    step: timedelta | None,
    *,
    as_json: bool,
) -> None:
    """Play the loop back on history: what would this policy have earned, and what would it have cost?

    Each training is real and done once for all policies; interrupted, the same command goes on.
    """
    from raywf.loop.backtest.past import read_past
    from raywf.loop.backtest.run import compare, plan_chances
    from raywf.loop.cluster import connect

    connect(workflow)
    past = read_past(workflow, until=until)
    chances = plan_chances(past, start=start, step=step)
    found = compare(past, _given(policies, chances), chances, say=lambda text: click.echo(text, err=True))
    show(found, as_json=as_json, lines=_lines(found))


def _given(policies: tuple[str, ...], chances: list[datetime]) -> list[str]:
    if policies:
        return list(policies)
    seconds = int((chances[1] - chances[0]).total_seconds())
    every = format_duration(timedelta(seconds=seconds))
    return ["never", f"every {every}", "raywf", "oracle"]


def _lines(found: Any) -> list[str]:
    metric = find_metric(found.metric)
    sign = -1.0 if metric is not None and metric.greater_is_better else 1.0
    rows = []
    for course in found.courses:
        gain = found.gain(course)
        rows.append(
            [
                course.policy,
                sign * course.loss,
                "-" if gain is None else f"{gain:.0%}",
                course.count("retrain"),
                course.count("retrain", "promoted"),
                course.count("probe"),
                sum(e.helped is False or e.stage == "rejected" for e in course.events),
                f"{course.cpu_s:.0f}",
                f"{course.cost_usd:.4f}",
            ]
        )
    head = ["policy", found.metric, "gain", "retrainings", "promoted", "looks", "in vain", "CPU-s", "USD"]
    first, last = found.chances[0], found.chances[-1]
    return [
        f"{found.workflow}: {found.rows:,} rows, {len(found.chances) - 1} steps from {first:%Y-%m-%d} to "
        f"{last:%Y-%m-%d}",
        *table(head, rows),
        "",
        "gain: of what the best policy gained over never",
        "in vain: rejected, or worse than the former model until the next chance",
    ]
