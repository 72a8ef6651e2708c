"""`raywf drift`: how far the columns of one table lie from those of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, table
from raywf.core.loader import load_workflow

if TYPE_CHECKING:
    from raywf.core.drift import ColumnDrift, TableDrift


@click.command()
@click.argument("reference")
@click.argument("current")
@click.option("-f", "--file", default="workflow.yaml", show_default=True, help="The snapshots' workflow.")
@click.option(
    "--address",
    metavar="ADDRESS",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="Do the work as tasks of this Ray cluster; default: in this process.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="The effect from which on a column counts as drifted.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="The share of false discoveries allowed among the columns that count as drifted.",
)
@click.option(
    "--top", type=click.IntRange(min=1), default=20, show_default=True, help="Columns shown at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result, all columns, as JSON.")
def drift(
    reference: str,
    current: str,
    file: str,
    *,
    address: str | None,
    threshold: float,
    rate: float,
    top: int,
    as_json: bool,
) -> None:
    """Compare CURRENT with REFERENCE: CSV or Parquet paths, folders, globs or snapshots' ids."""
    from raywf.loop.drift import DriftOptions, compare_tables, find_side

    sides = [find_side(text, lambda: load_workflow(file)) for text in (reference, current)]
    options = DriftOptions(threshold=threshold, rate=rate, address=address)
    found = compare_tables(sides[0], sides[1], options)
    show(found, as_json=as_json, lines=describe(found, top=top))


def describe(found: TableDrift, *, top: int) -> list[str]:
    """Return a comparison as lines of text."""
    shown = found.columns[:top]
    left = len(found.columns) - len(shown)
    return [
        f"{found.current} ({found.rows:,} rows) beside {found.reference} ({found.reference_rows:,} rows)",
        f"{len(found.drifted)} of {len(found.columns)} columns drifted: effect {found.threshold:g} or more, "
        f"false discovery rate {found.rate:.0%}",
        "",
        *table(
            ["column", "kind", "", "effect", "psi", "js", "distance", "q", "missing", "unknown", "outside"],
            [_row(c, drifted=c.column in found.drifted) for c in shown],
        ),
        *([f"{left} more column{'s' if left > 1 else ''} moved less; --top shows more"] if left else []),
        *_named("only in the reference", found.gone),
        *_named("not in the reference", found.new),
        *_named("left out, lists or structures", found.left_out),
    ]


def _row(one: ColumnDrift, *, drifted: bool) -> list[object]:
    moved = one.missing != one.reference_missing
    missing = f"{one.reference_missing:.1%} to {one.missing:.1%}" if moved else f"{one.missing:.1%}"
    return [
        one.column,
        one.kind,
        "drifted" if drifted else "",
        f"{one.effect:.3f}",
        f"{one.psi:.3f}",
        f"{one.js:.3f}",
        None if one.distance is None else f"{one.distance:.3f}",
        f"{one.q:.2g}",
        missing,
        None if one.unknown is None else f"{one.unknown:.1%}",
        f"{one.outside:.1%}" if one.kind != "category" else None,
    ]


def _named(what: str, names: tuple[str, ...]) -> list[str]:
    return [f"{what}: {', '.join(names)}"] if names else []
