"""Options that commands share, and how they print: results alone go to stdout."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import click

from raywf.core.codec import encode
from raywf.core.loader import load_workflow
from raywf.core.settings import Workflow
from raywf.loop.local import apply_environment

_OUT = f"{__name__}.out"


def workflow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--file``, ``--set`` and ``--json``; it gets `workflow` and `as_json`.

    What else is written to stdout meanwhile goes to stderr: Ray tells there of a worker that it lost.
    """

    @click.option("-f", "--file", default="workflow.yaml", show_default=True, help="The workflow's settings.")
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a setting: search.budget_s=30.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    @functools.wraps(command)
    def wrapped(file: str, overrides: tuple[str, ...], *, as_json: bool, **given: Any) -> Any:
        workflow: Workflow = load_workflow(file, overrides=overrides)
        apply_environment(workflow)
        click.get_current_context().meta[_OUT] = sys.stdout
        with redirect_stdout(sys.stderr):
            return command(workflow=workflow, as_json=as_json, **given)

    return wrapped


def show(value: Any, *, as_json: bool, lines: Sequence[str]) -> None:
    """Print the value as JSON, or the lines for people."""
    context = click.get_current_context(silent=True)
    out = None if context is None else context.meta.get(_OUT)
    for line in [json.dumps(encode(value), indent=2)] if as_json else lines:
        click.echo(line, file=out)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a plain table as lines, columns as wide as their content.

    >>> table(["a", "b"], [["x", 10]])
    ['a  b ', 'x  10']
    """
    cells = [[str(h) for h in headers], *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
