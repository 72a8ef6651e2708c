"""`raywf explain`: a finished search or a registered version, in the terminal or as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from raywf.cli.leaderboard import SHOWN, draw
from raywf.cli.options import show, table, workflow_options
from raywf.core.explanation import Explanation, ImportanceReport, ParameterRange, Slice, SliceReport
from raywf.core.settings import Workflow
from raywf.report.words import names_of, rows_of

_RATE = 0.05
_BAR = 30


@click.command()
@workflow_options
@click.argument("target", metavar="[VERSION|SWEEP_ID]", required=False)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write an HTML page to this file.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=50),
    default=2_000,
    show_default=True,
    help="Rows at most that importance is measured on.",
)
@click.option("--learning-curve", is_flag=True, help="Also fit the heaviest member on shares of the rows.")
def explain(
    workflow: Workflow,
    target: str | None,
    report: Path | None,
    *,
    rows: int,
    learning_curve: bool,
    as_json: bool,
) -> None:
    """Explain a version, an alias such as champion, or a sweep; by default the newest sweep."""
    if report is not None and not report.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(report.parent)!r}", param_hint="--report")
    from raywf.loop.explain import Wanted
    from raywf.loop.explain import explain as explained

    wanted = Wanted(rows=rows, learning_curve=learning_curve, say=lambda text: click.echo(text, err=True))
    made = explained(workflow, target, wanted=wanted)
    tail = []
    if report is not None:
        from raywf.report.explanation import write_explanation

        tail = ["", f"report: {write_explanation(report, made)}"]
    show(made, as_json=as_json, lines=[*describe(made), *tail])


def describe(made: Explanation) -> list[str]:
    """Return an explanation as lines of text."""
    title = f"version {made.version}, of " if made.version else ""
    board = draw(made.sweep, made.standings)
    lines = [title + board[0], *board[1:]]
    if made.slices is not None:
        lines += _slices(made.slices, made.sweep.metric)
    if made.importance is not None:
        lines += _importance(made.importance, made.sweep.metric)
    if made.progress:
        lines += [
            "",
            "score after so many trials, out of fold on a sample of the rows, and the seconds of their fits",
        ]
        steps = [(p.trials, f"{p.seconds:.1f}", p.best, p.ensemble) for p in made.progress]
        lines += table(["trials", "seconds", "best trial", "ensemble"], steps)
    if made.learning:
        lines += ["", f"{made.sweep.members[0].trial_id} fitted on shares of the first fold's rows"]
        points = [(f"{p.rows:,}", p.score, f"{p.seconds:.1f}") for p in made.learning]
        lines += table(["rows", made.sweep.metric, "seconds"], points)
    lines += _parameters(made.parameters)
    return [*lines, *(["", *(f"note: {text}" for text in made.notes)] if made.notes else [])]


def _slices(report: SliceReport, metric: str) -> list[str]:
    worse = sum(s.q < _RATE for s in report.slices)
    score = "-" if report.score is None else f"{report.score:.4f}"
    head = [
        "",
        f"slices out of fold: {report.rows:,} rows, {metric} {score}, loss {report.loss:.4f}",
        f"{len(report.slices)} looked at, {report.too_small} too small; {worse} worse than the rest "
        f"(false discovery rate {_RATE:.0%})",
    ]
    biased = any(s.label_mean is not None for s in report.slices)
    names = ["slice", "rows", metric, "loss", "+-", "beyond rest", "q"]
    rows = [_slice_row(s, biased=biased) for s in report.slices[:SHOWN]]
    return [*head, *table([*names, *(["label", "predicted", ""] if biased else [])], rows)]


def _slice_row(one: Slice, *, biased: bool) -> list[object]:
    same = f" (and {len(one.same)} more)" if one.same else ""
    row: list[object] = [
        f"{one.column}: {one.value}{same}",
        f"{one.rows:,}",
        one.score,
        one.loss,
        f"{one.margin:.4f}",
        f"{one.excess:+.4f}",
        f"{one.q:.3f}",
    ]
    off = one.bias_q is not None and one.bias_q < _RATE
    return [*row, one.label_mean, one.predicted_mean, "off" if off else ""] if biased else row


def _importance(report: ImportanceReport, metric: str) -> list[str]:
    head = [
        "",
        f"importance: {metric} lost from {report.score:.4f} when a column is shuffled {report.repeats} times",
        f"on {rows_of(report)}",
    ]
    most = max((i.drop for i in report.columns), default=0.0)
    rows = [
        (i.columns[0], f"{i.drop:+.4f}", f"{i.sd:.4f}", "#" * round(_BAR * max(0.0, i.drop) / most))
        for i in report.columns[:SHOWN]
        if most > 0
    ]
    joined = [(names_of(i), f"{i.drop:+.4f}", f"{i.sd:.4f}", "together") for i in report.groups]
    left = len(report.columns) - len(rows)
    return [
        *head,
        *table(["column", "lost", "sd", ""], [*rows, *joined]),
        *_more(left, "columns matter less"),
    ]


def _more(count: int, what: str) -> list[str]:
    return [f"{count} more {what}"] if count > 0 else []


def _parameters(ranges: Sequence[ParameterRange]) -> list[str]:
    if not ranges:
        return []
    rows = [(f"{r.family} ({r.trials} trials)", r.name, _span(r.values), _span(r.best)) for r in ranges]
    return ["", *table(["family", "parameter", "all", "best quarter"], rows)]


def _span(values: Sequence[float | str]) -> str:
    numbers = [v for v in values if isinstance(v, float)]
    texts = [v for v in values if isinstance(v, str)]
    span = [f"{numbers[0]:.4g} to {numbers[-1]:.4g}"] if len(numbers) > 1 else [f"{n:.4g}" for n in numbers]
    return ", ".join([*span, *texts])
