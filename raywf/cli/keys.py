"""`raywf keys`: add, list and remove API keys."""

from __future__ import annotations

from datetime import timedelta

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.clock import WallClock, format_time
from raywf.core.duration import parse_duration
from raywf.core.errors import SettingsError
from raywf.core.settings import Workflow
from raywf.serving.keys import SCOPES, ApiKey, KeyBook, Scope


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
    scopes = tuple(dict.fromkeys(scopes))
    token = _book(workflow).add(name, scopes, now=now, expires=until, rate=rate)
    lines = [token]
    click.echo(f"key {name} of {workflow.name} for {', '.join(scopes)}; it is not shown again:", err=True)
    show({"name": name, "key": token}, as_json=as_json, lines=lines)


@keys.command(name="list")
@workflow_options
def list_(workflow: Workflow, *, as_json: bool) -> None:
    """List the keys, without their secrets."""
    found = _book(workflow).read()
    lines = table(["name", "for", "a second", "created", "expires"], [_row(key) for key in found or ()])
    if found is None:
        lines = ["no keys: whoever reaches the endpoint may call it"]
    plain = [
        dict(zip(("name", "scopes", "rate", "created", "expires"), _facts(k), strict=True))
        for k in found or ()
    ]
    show(plain, as_json=as_json, lines=lines)


@keys.command()
@workflow_options
@click.argument("name")
def remove(workflow: Workflow, name: str, *, as_json: bool) -> None:
    """Take the key NAME away; replicas refuse it within seconds."""
    _book(workflow).remove(name)
    show({"removed": name}, as_json=as_json, lines=[f"key {name} of {workflow.name} is removed"])


def _book(workflow: Workflow) -> KeyBook:
    return KeyBook(workflow.stores.root, workflow.name)


def _age(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as err:
        raise SettingsError(f"--expires: {err}") from None


def _facts(key: ApiKey) -> tuple[object, ...]:
    return key.name, key.scopes, key.rate, key.created, key.expires


def _row(key: ApiKey) -> tuple[object, ...]:
    until = None if key.expires is None else format_time(key.expires)
    return key.name, ", ".join(key.scopes), key.rate, format_time(key.created), until
