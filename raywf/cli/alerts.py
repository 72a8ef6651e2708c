"""`raywf alerts test`: whether an alert would arrive."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import click

from raywf.cli.options import show, workflow_options
from raywf.core.errors import RaywfError, SettingsError
from raywf.core.settings import Workflow
from raywf.loop.channels import Alert, beat, open_channels


@click.group()
def alerts() -> None:
    """Alerts of a workflow: webhook, Slack, mail, a command; see `alerts` in workflow.yaml."""


@alerts.command()
@workflow_options
def test(workflow: Workflow, *, as_json: bool) -> None:
    """Send a test alert by each channel from here, and say which took it."""
    settings = workflow.alerts
    if not settings.has_channel:
        raise SettingsError(
            "no channel is set: give alerts.webhook, alerts.slack, alerts.email or alerts.command"
        )
    alert = Alert(
        id=f"test-{uuid.uuid4().hex[:8]}",
        kind="failed",
        workflow=workflow.name,
        title=f"raywf {workflow.name}: a test alert",
        time=datetime.now(UTC),
        reasons=("sent by `raywf alerts test`; nothing is wrong",),
        link=settings.link,
    )
    ways: dict[str, Callable[[], None]] = {
        name: partial(channel, alert) for name, channel in open_channels(settings).items()
    }
    if settings.heartbeat:
        ways["heartbeat"] = partial(beat, settings)
    problems: dict[str, str] = {}
    for name, way in ways.items():
        try:
            way()
        except RaywfError as err:
            problems[name] = str(err)
    lines = [f"{name}: {problems.get(name, 'taken')}" for name in ways]
    show({name: problems.get(name) for name in ways}, as_json=as_json, lines=lines)
    if problems:
        raise click.exceptions.Exit(1)
