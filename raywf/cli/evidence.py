"""`raywf evidence`: how a version does, window by window, with and without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.clock import format_time
from raywf.core.records import Evidence
from raywf.core.settings import Workflow

if TYPE_CHECKING:
    from raywf.loop.evidence import Windows
    from raywf.monitor.estimate import Estimate

_MOVED = 0.1  # the index from which on a feature counts as moved, as in `measure_drift`


@click.command()
@workflow_options
@click.argument("version", default="champion")
@click.option(
    "--last", type=click.IntRange(min=1), default=20, show_default=True, help="Windows shown, the newest."
)
def evidence(workflow: Workflow, version: str, *, last: int, as_json: bool) -> None:
    """Show the windows of VERSION (a number or an alias; default: the champion), from the log itself."""
    from raywf.loop.evidence import read_windows

    found = read_windows(workflow, version)
    show(found, as_json=as_json, lines=describe(found, last=last))


def describe(found: Windows, *, last: int) -> list[str]:
    """Return the windows as lines of text."""
    if not found.windows:
        return [f"version {found.version}: no window in the log yet"]
    first = max(0, len(found.windows) - last)
    pairs = zip(found.windows[first:], found.settled[first:], strict=True)
    rows = [_row(window, settled) for window, settled in pairs]
    shown = "" if first == 0 else f", the last {last}"
    headers = ["from", "rows", "labelled", found.metric, "loss", "value", "moved most"]
    lines = [f"version {found.version}: {len(found.windows)} windows{shown}", "", *table(headers, rows)]
    if any(cells[3].startswith("~") for cells in rows):
        lines += ["", "~ estimated from scores and features, labels are to come"]
    if found.judged is not None:
        j = found.judged
        lines += [
            "",
            f"estimates of {j.windows} windows with labels were off by {j.mean_absolute:.4f} on average, "
            f"bias {j.bias:+.4f}, {j.covered:.0%} within their interval",
        ]
    if found.attribution is not None:
        lines += ["", "since the promotion:", *(f"  {line}" for line in found.attribution.told())]
    return lines


def _row(window: Evidence, settled: Estimate | None) -> list[str]:
    labelled = window.labelled
    value = window.value_mean
    return [
        format_time(window.start),
        f"{window.rows:,}",
        f"{labelled / window.rows:.0%}",
        _quality(window, settled),
        _loss(window),
        "-" if value is None else f"{value:.4g}",
        _moved(window),
    ]


def _quality(window: Evidence, settled: Estimate | None) -> str:
    if settled is not None:
        return f"~{settled.value:.4f} ({settled.low:.4f} to {settled.high:.4f})"
    if window.metric is None:
        return "-"
    if window.metric_low is None or window.metric_high is None:
        return f"{window.metric:.4f}"
    return f"{window.metric:.4f} ({window.metric_low:.4f} to {window.metric_high:.4f})"


def _loss(window: Evidence) -> str:
    if window.labelled:
        return f"{window.loss_sum / window.labelled:.4f}"
    return "-" if window.estimated_loss is None else f"~{window.estimated_loss:.4f}"


def _moved(window: Evidence) -> str:
    """Name the features that moved most, with their stability index."""
    moved = sorted((d for d in window.drift if d.psi >= _MOVED), key=lambda d: -d.psi)
    return ", ".join(f"{d.column} {d.psi:.2f}" for d in moved[:2]) or "-"
