"""The `raywf` command: finds its subcommands lazily, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys

import click

from raywf import __version__
from raywf.core.errors import RaywfError

_COMMANDS = {
    "init": ("raywf.cli.init", "init", "Write a commented workflow.yaml."),
    "snapshot": ("raywf.cli.snapshot", "snapshot", "Build, list and show feature snapshots."),
    "search": ("raywf.cli.run", "search", "Search for the best model, without promoting it."),
    "run": ("raywf.cli.run", "run", "Snapshot, search, gate, register and promote."),
    "explain": ("raywf.cli.explain", "explain", "Explain a search or a version: trials, slices, importance."),
    "why": (
        "raywf.cli.why",
        "why",
        "Tell why a version came to be: alarm, job, trials, verdict, swap, cost.",
    ),
    "score": ("raywf.cli.score", "score", "Score a snapshot or a table in the cluster, each row once."),
    "evidence": (
        "raywf.cli.evidence",
        "evidence",
        "Show how a version does, window by window.",
    ),
    "drift": ("raywf.cli.drift", "drift", "Compare two tables or snapshots column by column."),
    "serve": ("raywf.cli.serve", "serve", "Bring the endpoint and its monitor up and down."),
    "keys": ("raywf.cli.keys", "keys", "Say who may call the endpoint: add, list, remove API keys."),
    "audit": ("raywf.cli.keys", "audit", "Show who did what by hand or over HTTP."),
    "models": ("raywf.cli.models", "models", "List, show, promote and roll back model versions."),
    "rollout": ("raywf.cli.rollout", "rollout", "Bring a version to live traffic step by step."),
    "retrain": ("raywf.cli.retrain", "retrain", "Ask the running system for a retraining."),
    "decisions": (
        "raywf.cli.retrain",
        "decisions",
        "Show the journal: what was decided, why, what came of it.",
    ),
    "backtest": ("raywf.cli.backtest", "backtest", "Play the loop back on history: compare policies."),
    "alerts": ("raywf.cli.alerts", "alerts", "Send a test alert by each channel."),
    "cost": ("raywf.cli.cost", "cost", "Show what searches and the cluster cost."),
    "cluster": ("raywf.cli.cluster", "cluster", "Write the files that make a cluster; say what one costs."),
    "job": ("raywf.cli.job", "job", "Submit jobs to the cluster, read their logs, stop them."),
    "doctor": ("raywf.cli.doctor", "doctor", "Say what is wrong on this machine and how to mend it."),
    "demo": ("raywf.cli.demo", "demo", "Run the whole loop on a year of real flights."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _help = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_m, _n, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="raywf")
@click.option("--debug", is_flag=True, help="Show the whole trace of an error.")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool) -> None:
    """Raywf keeps a model good: one workflow.yaml from tables to a served model that retrains itself."""
    ctx.obj = debug


def main() -> None:
    """Run the command line; a `RaywfError` becomes one line and exit 1, Ctrl-C exit 130."""
    try:
        sys.exit(_run(sys.argv[1:]))
    finally:
        _leave()


def _run(arguments: list[str]) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # Ray's gRPC tells of each fork otherwise
    try:
        code = cli.main(arguments, prog_name="raywf", standalone_mode=False)
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "interrupted; what is finished is kept: the same data and settings do not do it again",
            err=True,
        )
        return 130
    except RaywfError as err:
        if "--debug" in arguments:
            raise
        click.echo(f"raywf: {type(err).__name__}: {err}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _leave() -> None:
    """Prepare a quick end: Ray's exit handler would wait for late logs, the collector go over all imports."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        with contextlib.suppress(Exception):  # what the command came to matters, not how its cluster ended
            ray.shutdown()
    gc.freeze()
