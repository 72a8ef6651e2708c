"""`raywf evidence`: how a version does, window by window, with and without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.clock import format_time
from raywf.core.records import Drift, Evidence
from raywf.core.settings import Workflow

if TYPE_CHECKING:
    from raywf.loop.evidence import Windows
    from raywf.monitor.estimate import Estimate
    from raywf.monitor.since import Moved

_MOVED = 0.1  # the index from which on a feature counts as moved, see `stability_index`
_MUCH = 0.05  # of the rows, that are missing or new


@click.command()
@workflow_options
@click.argument("version", default="champion")
@click.option(
    "--last", type=click.IntRange(min=1), default=20, show_default=True, help="Windows shown, the newest."
)
@click.option("--by", metavar="COLUMN", help="Also by the values of a column, of all rows in these windows.")
@click.option(
    "--beside",
    type=click.Choice(["training", "previous"]),
    default="training",
    show_default=True,
    help="What 'moved most' compares a window with: training, or the window before.",
)
def evidence(
    workflow: Workflow, version: str, *, last: int, by: str | None, beside: str, as_json: bool
) -> None:
    """Show the windows of VERSION (a number or an alias; default: the champion), from the log itself."""
    from raywf.loop.evidence import read_windows

    found = read_windows(workflow, version, by=by, last=last, since=beside == "previous")
    lines = [*describe(found, last=last), *([] if by is None else describe_slices(found, by))]
    show(found, as_json=as_json, lines=lines)


def describe_slices(found: Windows, by: str) -> list[str]:
    """Return the slices of a column as lines of text, each beside its loss at the promotion."""
    if not found.slices:
        why = "no row's window is within monitor.horizon" if found.windows else "no row yet"
        return ["", f"by {by}: {why}"]
    rows = [
        [
            one.value,
            f"{one.rows:,}",
            f"{one.labelled / one.rows:.0%}",
            _with_interval(one.metric, one.metric_low, one.metric_high),
            _with_interval(one.loss, one.loss_low, one.loss_high),
            "-" if one.promised is None else f"{one.promised:.4f}",
        ]
        for one in found.slices
    ]
    return ["", *table([by, "rows", "labelled", found.metric, "loss", "at promotion"], rows)]


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} ({low:.4f} to {high:.4f})"


def describe(found: Windows, *, last: int) -> list[str]:
    """Return the windows as lines of text."""
    if not found.windows:
        return [f"version {found.version}: no window in the log yet"]
    first = max(0, len(found.windows) - last)
    moved = found.moved or found.windows  # a window tells of itself beside training
    each = zip(found.windows[first:], found.settled[first:], moved[first:], strict=True)
    rows = [_row(*one) for one in each]
    shown = "" if first == 0 else f", the last {last}"
    last_header = "moved since" if found.moved else "moved most"
    headers = ["from", "rows", "labelled", found.metric, "loss", "value", "unlike", last_header]
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
    lines += _service(found, first)
    if found.attribution is not None:
        lines += ["", "since the promotion:", *(f"  {line}" for line in found.attribution.told())]
    return lines


def _service(found: Windows, first: int) -> list[str]:
    """Return how the windows from one on were served, of those that tell."""
    pairs = zip(found.windows[first:], found.usd[first:], strict=True)
    rows = [
        [
            format_time(window.start),
            f"{window.answered:,}",
            f"{window.refused:,}",
            f"{window.failed:,}",
            _milliseconds(window.p50_s),
            _milliseconds(window.p99_s),
            "-" if usd is None else f"{usd:.2g}" if usd < 1 else f"{usd:,.2f}",
        ]
        for window, usd in pairs
        if window.answered is not None
    ]
    if not rows:
        return []
    return ["", *table(["requests from", "answered", "refused", "failed", "median", "99%", "USD"], rows)]


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{1e3 * seconds:,.0f} ms"


def _row(window: Evidence, settled: Estimate | None, moved: Evidence | Moved | None) -> list[str]:
    labelled = window.labelled
    value = window.value_mean
    return [
        format_time(window.start),
        f"{window.rows:,}",
        f"{labelled / window.rows:.0%}",
        _quality(window, settled),
        _loss(window),
        "-" if value is None else f"{value:.4g}",
        "-" if window.unlike is None else f"{window.unlike / window.rows:.1%}",
        "-" if moved is None else _moved(moved),
    ]


def _quality(window: Evidence, settled: Estimate | None) -> str:
    if settled is not None:
        return f"~{settled.value:.4f} ({settled.low:.4f} to {settled.high:.4f})"
    return _with_interval(window.metric, window.metric_low, window.metric_high)


def _loss(window: Evidence) -> str:
    if window.labelled:
        return f"{window.loss_sum / window.labelled:.4f}"
    return "-" if window.estimated_loss is None else f"~{window.estimated_loss:.4f}"


def _moved(window: Evidence | Moved) -> str:
    """Name what moved most, with its stability index: features, or answers and labels as such."""
    ends = (end for end in (window.answers, window.labels) if end is not None)
    moved = [d for d in (*window.drift, *ends) if d.stands_out and d.psi >= _MOVED]
    moved.sort(key=lambda d: (-d.psi, d.column))
    return ", ".join(_moved_by(d) for d in moved[:3]) or "-"


def _moved_by(drift: Drift) -> str:
    """Name what moved with its index, and with what is missing or new where that is much of it."""
    told = [f"{drift.column} {drift.psi:.2f}"]
    before = drift.missing_before
    if before is not None and abs(drift.missing - before) >= _MUCH:
        told.append(f"missing {before:.0%} to {drift.missing:.0%}")
    if drift.unlike is not None and drift.unlike >= _MUCH:
        told.append(f"unlike {drift.unlike:.0%}")
    return told[0] if not told[1:] else f"{told[0]} ({', '.join(told[1:])})"
