"""Scores rows: ``python -m jobs.score WORKFLOW --output FOLDER`` and the other options of `raywf score`."""

from typing import Any

import click

from raywf.cli.score import describe, read_asked, score_options
from raywf.core.loader import load_workflow
from raywf.loop.job_log import keep_output
from raywf.loop.jobs import workflow_file
from raywf.loop.score import Progress, score


@click.command()
@click.argument("workflow")
@score_options
def main(workflow: str, **given: Any) -> None:
    """Score what is not scored yet, and print each part as it is done."""

    def tell(progress: Progress) -> None:
        print(f"{progress.parts} of {progress.of} parts, {progress.rows:,} rows", flush=True)

    settings = load_workflow(workflow_file(workflow), environ={})
    keep_output(settings)
    for line in describe(score(settings, read_asked(given), tell=tell)):
        print(line)


if __name__ == "__main__":
    main()
