"""`raywf score`: a snapshot or a table through the model, in the cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from raywf.cli.options import show, workflow_options
from raywf.cli.progress import counted
from raywf.core.settings import Workflow
from raywf.core.store import absolute

if TYPE_CHECKING:
    from raywf.loop.score import Asked, Scored


def score_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what is scored, by what, and into which folder."""
    options = (
        click.option("--snapshot", metavar="ID", help="The snapshot to score; default: the newest."),
        click.option(
            "--input", metavar="PATH", help="Score a Parquet or CSV file, a folder or a glob instead."
        ),
        click.option(
            "--version", default="champion", show_default=True, help="The model's version or an alias."
        ),
        click.option(
            "--output", metavar="FOLDER", required=True, help="Where the Parquet parts go; a new folder."
        ),
        click.option(
            "--keep",
            type=click.Choice(["keys", "all"]),
            default="keys",
            show_default=True,
            help="Which columns of the input stand beside the answers: the keys and the event time, or all.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@workflow_options
@score_options
def score(workflow: Workflow, *, as_json: bool, **given: Any) -> None:
    """Score a snapshot or a table, each row once.

    Interrupted, the same command goes on with what is missing; finished, it does nothing.
    """
    asked = read_asked(given)
    from raywf.loop.score import score as scored

    with counted("scoring", "parts") as tell:
        made = scored(workflow, asked, tell=lambda p: tell(p.parts, p.of, f"{p.rows:,} rows"))
    manifest = made.manifest
    result = {
        "run": manifest.id,
        "output": made.output,
        "version": manifest.run.version,
        "rows": manifest.rows,
        "parts": len(manifest.parts),
        "kept_parts": made.kept_parts,
        "was_finished": made.was_finished,
        "seconds": round(made.seconds, 3),
    }
    show(result, as_json=as_json, lines=describe(made))


def describe(made: Scored) -> list[str]:
    """Return what a run came to, as lines of text."""
    manifest = made.manifest
    what = f"{manifest.rows:,} rows in {len(manifest.parts)} parts at {made.output}"
    by = f"by version {manifest.run.version}, run {manifest.id}"
    if made.was_finished:
        return [f"was finished before, nothing to do: {what}, {by}"]
    before = f", {made.kept_parts} of them from before" if made.kept_parts else ""
    return [f"{what}{before}, {by}, {made.seconds:.1f} s"]


def read_asked(given: dict[str, Any]) -> Asked:
    """Return what the options of `score_options` ask for; paths are made absolute.

    Raises:
        click.UsageError: if both a snapshot and an input are given.
    """
    if given["snapshot"] and given["input"]:
        raise click.UsageError("--snapshot and --input exclude each other")
    from raywf.loop.score import Asked

    return Asked(**{**given, "output": absolute(given["output"])})


def score_arguments(options: Sequence[str]) -> tuple[str, ...]:
    """Return a job's arguments of the options, checked, with each path as it is from any folder.

    >>> score_arguments(["--output", "/data/scores", "--version", "3"])
    ('--version=3', '--output=/data/scores', '--keep=keys')
    """
    context = _options.make_context("raywf job submit score", list(options))
    given = {name: value for name, value in context.params.items() if value is not None}
    if {"snapshot", "input"} <= given.keys():
        raise click.UsageError("--snapshot and --input exclude each other")
    paths = {name: absolute(value) for name, value in given.items() if name in {"input", "output"}}
    names = ("snapshot", "input", "version", "output", "keep")
    return tuple(f"--{name}={ {**given, **paths}[name] }" for name in names if name in given)


@click.command(add_help_option=False)
@score_options
def _options(**_: Any) -> None:
    """Read the options without doing anything."""
