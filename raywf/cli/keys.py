"""`raywf keys`: add, list and remove API keys; `raywf audit`: who did what."""

from __future__ import annotations

from datetime import timedelta

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.audit import Audit
from raywf.core.clock import WallClock, format_time
from raywf.core.duration import parse_duration
from raywf.core.errors import SettingsError
from raywf.core.settings import Workflow
from raywf.serving.keys import SCOPES, ApiKey, Caller, KeyBook, Scope


@click.group()
def keys() -> None:
    """Say who may call the endpoint. With the first key, calls without one are refused."""


@keys.command()
@workflow_options
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=("predict", "outcomes"),
    show_default=True,
    help="What it is for; may be given several times.",
)
@click.option("--expires", metavar="AGE", help="Refuse it after so long: 90d.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="At most so many requests a second."
)
def add(
    workflow: Workflow,
    name: str,
    scopes: tuple[Scope, ...],
    expires: str | None,
    rate: float | None,
    *,
    as_json: bool,
) -> None:
    """Make the key NAME and print it once: only its hash is kept."""
    now = WallClock().now()
    until = None if expires is None else now + _age(expires)
    caller = Caller(name=name, scopes=tuple(dict.fromkeys(scopes)), expires=until, rate=rate)
    token = _book(workflow).add(caller, now=now)
    _audit(workflow).note_command(f"keys add {name}", {"scopes": caller.scopes})
    click.echo(
        f"key {name} of {workflow.name} for {', '.join(caller.scopes)}; it is not shown again:", err=True
    )
    show({"name": name, "key": token}, as_json=as_json, lines=[token])


@keys.command(name="list")
@workflow_options
def list_(workflow: Workflow, *, as_json: bool) -> None:
    """List the keys, without their secrets."""
    found = _book(workflow).read()
    lines = table(["name", "for", "a second", "created", "expires"], [_row(key) for key in found or ()])
    if found is None:
        lines = ["no keys: whoever reaches the endpoint may call it"]
    show([_facts(key) for key in found or ()], as_json=as_json, lines=lines)


@keys.command()
@workflow_options
@click.argument("name")
def remove(workflow: Workflow, name: str, *, as_json: bool) -> None:
    """Take the key NAME away; replicas refuse it within seconds."""
    _book(workflow).remove(name)
    _audit(workflow).note_command(f"keys remove {name}")
    show({"removed": name}, as_json=as_json, lines=[f"key {name} of {workflow.name} is removed"])


@click.command()
@workflow_options
@click.option("-n", "--newest", type=click.IntRange(min=1), default=50, show_default=True, help="So many.")
def audit(workflow: Workflow, newest: int, *, as_json: bool) -> None:
    """Show who made and removed keys, moved versions and asked for retrainings; oldest first."""
    acts = _audit(workflow).acts(newest=newest)
    rows = [(format_time(act.time), act.who, act.by, act.what) for act in acts]
    lines = (
        table(["time", "who", "by", "what"], rows)
        if acts
        else [f"nothing was done to {workflow.name} by hand"]
    )
    show(acts, as_json=as_json, lines=lines)


def _book(workflow: Workflow) -> KeyBook:
    return KeyBook(workflow.stores.root, workflow.name)


def _audit(workflow: Workflow) -> Audit:
    return Audit(workflow.stores.root, workflow.name)


def _age(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as err:
        raise SettingsError(f"--expires: {err}") from None


def _facts(key: ApiKey) -> dict[str, object]:
    who = key.caller
    return {
        "name": who.name,
        "scopes": who.scopes,
        "rate": who.rate,
        "created": key.created,
        "expires": who.expires,
    }


def _row(key: ApiKey) -> tuple[object, ...]:
    who = key.caller
    until = None if who.expires is None else format_time(who.expires)
    return who.name, ", ".join(who.scopes), who.rate, format_time(key.created), until
