"""`raywf demo`: the whole loop on a year of real flights."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from raywf.cli.options import table
from raywf.loop.local import starting_local, stop_local
from raywf.serving.environment import free_ports


@click.command()
@click.option(
    "--folder",
    default="demo-out",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where it is kept.",
)
@click.option("--port", default=0, show_default=True, help="HTTP port; 0: any free one.")
@click.option("--json", "as_json", is_flag=True, help="Print the last line only.")
def demo(folder: Path, port: int, *, as_json: bool) -> None:
    """Run the whole loop on the 2013 flights out of New York, about four minutes on two cores."""
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - begun:5.1f} s] {text}", err=as_json)

    from raywf.demo.flights import prepare

    os.environ.pop("RAY_ADDRESS", None)  # the demo is for this machine
    workflow = prepare(folder.absolute(), port=port or free_ports(1)[0])
    try:
        say("starting Ray on this machine")
        with starting_local(workflow):
            from raywf.demo.run import run_demo  # Ray Serve reads its environment when it is imported

        result = run_demo(workflow, folder.absolute(), say=say, started=begun)
    finally:
        stop_local(workflow)
    if not as_json:
        rows = [
            (
                f"{m.start:%b}",
                m.rows,
                f"{m.label_share:.0%}",
                m.static,
                m.live,
                f"{m.live - m.static:+.4f}",
                ", ".join(m.versions),
            )
            for m in result.months
        ]
        click.echo("")
        for line in table(["month", "flights", "late", "auc static", "auc live", "gain", "versions"], rows):
            click.echo(line)
        click.echo(f"\nreport: {result.summary['report']}\n")
    click.echo(json.dumps(result.summary))
