"""`raywf backtest`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.clock import format_time, parse_time
from raywf.core.duration import format_duration, parse_duration
from raywf.core.settings import Workflow

if TYPE_CHECKING:
    from raywf.loop.backtest.recorded import Agreement
    from raywf.loop.backtest.run import Backtest
    from raywf.loop.backtest.tune import Tuned

_POLICY = (
    "When to retrain: never, raywf [KEY=VALUE ...], 'every 30d [full]', 'adwin [DELTA]', oracle; may be "
    "given several times. Default: never, every step, raywf and oracle."
)


@click.command()
@workflow_options
@click.option("--policy", "policies", multiple=True, metavar="TEXT", help=_POLICY)
@click.option(
    "--start", type=parse_time, metavar="TIME", help="When the first model is trained; default: a quarter in."
)
@click.option("--until", type=parse_time, metavar="TIME", help="Where history ends; default: now.")
@click.option(
    "--step",
    type=parse_duration,
    metavar="DURATION",
    help="Time between two chances to decide; default: a twentieth.",
)
@click.option(
    "--parallel", type=click.IntRange(min=1), metavar="N", help="Policies played at once; default: CPUs / 2."
)
@click.option("--tune", is_flag=True, help="Try settings of retrain, and choose by the history's head.")
@click.option("--report", type=click.Path(path_type=Path), help="Write an HTML page too.")
@click.option("--served", is_flag=True, help="Play on the rows of the outcome log, not on the spine's.")
@click.option("--log", "from_log", is_flag=True, help="Play the recorded log back: the same decisions?")
def backtest(
    workflow: Workflow,
    policies: tuple[str, ...],
    start: datetime | None,
    until: datetime | None,
    step: timedelta | None,
    report: Path | None,
    parallel: int | None,
    *,
    tune: bool,
    served: bool,
    from_log: bool,
    as_json: bool,
) -> None:
    """Play the loop back on history: what would this policy have earned, and what would it have cost?

    Each training is real and done once for all policies; interrupted, the same command goes on.
    """
    if from_log:
        if policies or tune or served or report or start or until or step or parallel:
            raise click.UsageError(
                "--log plays back what was recorded; give it no other option of the backtest"
            )
        _show_log(workflow, as_json=as_json)
        return
    from raywf.loop.backtest.past import read_past
    from raywf.loop.backtest.run import compare, make_rules, plan_chances
    from raywf.loop.backtest.summary import summarise
    from raywf.loop.backtest.tune import tune as choose
    from raywf.loop.backtest.tune import variants
    from raywf.loop.cluster import connect
    from raywf.report.backtest import write_backtest

    if report is not None and not report.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(report.parent)!r}", param_hint="--report")
    # what is no policy is told before anything starts
    make_rules(policies or ["raywf"], workflow)
    connect(workflow)
    past = read_past(_as_served(workflow) if served else workflow, until=until)
    chances = plan_chances(past, start=start, step=step)
    between = timedelta(seconds=int((chances[1] - chances[0]).total_seconds()))
    given = list(policies) or ["never", f"every {format_duration(between)}", "raywf", "oracle"]
    given += [p for p in variants(between) if tune and p not in given]
    found = compare(past, given, chances, say=lambda text: click.echo(text, err=True), at_once=parallel)
    tuned = choose(found) if tune else ()
    if report is not None:
        write_backtest(report, found, tuned)
    lines = [*_lines(found), *_tuned_lines(tuned), *([f"report: {report}"] if report else [])]
    told = {"summary": summarise(found), "backtest": found, "tuned": tuned}
    show(told, as_json=as_json, lines=lines)


def _as_served(workflow: Workflow) -> Workflow:
    """Return the workflow with what it was asked as its history, in the columns of the champion."""
    from raywf.loop.backtest.served import served_workflow
    from raywf.loop.references import RegistryReferences
    from raywf.loop.why import find_version
    from raywf.registry.registry import CHAMPION, open_registry

    references = RegistryReferences(workflow, open_registry(workflow))
    reference = references.reference(find_version(workflow, CHAMPION).version)
    return served_workflow(workflow, reference)


def _lines(found: Backtest) -> list[str]:
    from raywf.report.backtest import heads_of_backtest, rows_of_backtest

    first, last = found.chances[0], found.chances[-1]
    return [
        f"{found.workflow}: {found.rows:,} rows, {len(found.chances) - 1} steps from {first:%Y-%m-%d} to "
        f"{last:%Y-%m-%d}",
        *table(heads_of_backtest(found), rows_of_backtest(found)),
        "",
        "gain: of what the best policy gained over never",
        "in vain: rejected, or worse than the former model until the next chance",
        "late: after the oracle's moments, the median of those that were not missed",
    ]


def _tuned_lines(tuned: Sequence[Tuned]) -> list[str]:
    from raywf.report.backtest import TUNED_HEADS, rows_of_tuned, tuned_warning

    return ["", *table(TUNED_HEADS, rows_of_tuned(tuned)), "", tuned_warning(tuned)] if tuned else []


def _show_log(workflow: Workflow, *, as_json: bool) -> None:
    from raywf.loop.backtest.recorded import replay_log
    from raywf.registry.registry import open_registry

    found = replay_log(workflow, open_registry(workflow))
    told = [a for a in found if a.recorded is not None or not a.holds]
    rows = [[format_time(a.replayed.time), *_sides(a), "yes" if a.holds else "NO"] for a in told]
    lines = [
        *table(["event time", "recorded", "played back", "same"], rows),
        "",
        f"{sum(a.holds for a in found)} of {len(found)} looks at the log agree with what was decided",
    ]
    show(found, as_json=as_json, lines=lines)


def _sides(one: Agreement) -> tuple[str, str]:
    return (
        f"{one.recorded.kind} ({one.recorded.cause})" if one.recorded else "-",
        f"{one.replayed.kind} ({one.replayed.cause})",
    )
