"""The ways of an alert to a human: a webhook, Slack's, mail, a command. No address or password is logged."""

from __future__ import annotations

import json
import logging
import os
import smtplib
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx

from raywf.core.addresses import LOOPBACK
from raywf.core.alert_settings import AlertKind, AlertSettings, EmailSettings
from raywf.core.clock import format_time
from raywf.core.codec import encode
from raywf.core.errors import RaywfError, SettingsError

TIMEOUT_S = 10.0
_COMMAND_S = 30.0
_TALKATIVE = ("httpx", "httpcore")  # they log whole addresses, at INFO
_BARS = "▁▂▃▄▅▆▇█"
MOST_WINDOWS = 60


class ChannelError(RaywfError):
    """An alert could not be handed over; it is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What a human should know; the same `id` is told once by each channel.

    `windows` are the champion's newest windows in time order: start, end, rows, labelled, loss, metric.
    """

    id: str
    kind: AlertKind
    workflow: str
    title: str
    time: datetime
    reasons: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    windows: tuple[dict[str, Any], ...] = ()
    link: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        plain: dict[str, Any] = encode(self)
        return plain

    def as_text(self) -> str:
        """Return it as a person reads it, the loss by window as bars."""
        lines = [self.title, "", *self.reasons]
        losses = [window["loss"] for window in self.windows if window["loss"] is not None]
        if losses:
            first, last = losses[0], losses[-1]
            lines += ["", f"loss by window: {bars(losses)} ({first:.4f} to {last:.4f})"]
        if self.link:
            lines += ["", self.link]
        return "\n".join([*lines, "", f"raywf decisions  # {self.workflow}, {format_time(self.time)}"])


def bars(values: list[float]) -> str:
    """Return numbers as a row of bars, the newest of many.

    >>> bars([0.1, 0.2, 0.3])
    '▁▅█'
    """
    values = values[-MOST_WINDOWS:]
    low, high = min(values), max(values)
    if high == low:
        return _BARS[0] * len(values)
    return "".join(_BARS[int((value - low) / (high - low) * (len(_BARS) - 1) + 0.5)] for value in values)


Channel = Callable[[Alert], None]


def open_channels(settings: AlertSettings) -> dict[str, Channel]:
    """Return the channels that are set, by name; each raises `ChannelError` where it cannot hand over."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    found: dict[str, Channel] = {}
    if settings.webhook:
        webhook = settings.webhook
        found["webhook"] = lambda alert: _post(webhook, alert.as_json(), of="webhook")
    if settings.slack:
        slack = settings.slack
        found["slack"] = lambda alert: _post(slack, {"text": alert.as_text()}, of="slack")
    if settings.email:
        email = settings.email
        found["email"] = lambda alert: _mail(email, alert)
    if settings.command:
        found["command"] = lambda alert: _run(settings.command, alert)
    return found


def beat(settings: AlertSettings) -> None:
    """Tell the dead-man's switch that all is well, where there is one.

    Raises:
        ChannelError: if it does not answer.
    """
    if settings.heartbeat:
        _ask("GET", settings.heartbeat, of="heartbeat")


def secret(text: str, *, of: str) -> str:
    """Return what a setting says or where it says that it is kept.

    Raises:
        SettingsError: if it is not there.
    """
    kind, _, name = text.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
        if not value:
            raise SettingsError(f"alerts.{of}: the environment variable {name} is not set where raywf runs")
        return value
    if kind == "file":
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as err:
            raise SettingsError(f"alerts.{of}: cannot read {name}: {err.strerror}") from err
    return text


def _post(address: str, body: dict[str, Any], *, of: str) -> None:
    _ask("POST", address, of=of, json=body)


def _ask(method: str, address: str, *, of: str, **more: Any) -> None:
    try:
        answer = httpx.request(method, secret(address, of=of), timeout=TIMEOUT_S, **more)
    except httpx.HTTPError as err:  # its text may hold the address
        raise ChannelError(f"alerts.{of} cannot be reached: {type(err).__name__}") from err
    except httpx.InvalidURL as err:
        raise ChannelError(f"alerts.{of} is no URL") from err
    if answer.status_code >= 300:
        raise ChannelError(f"alerts.{of} answered {answer.status_code}")


def _mail(settings: EmailSettings, alert: Alert) -> None:
    message = EmailMessage()
    message["Subject"], message["From"] = alert.title, settings.sender
    # the alert's own time is the event's, which may be weeks ago
    message["To"], message["Date"] = ", ".join(settings.to), format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{alert.id}@raywf>"  # a mail that comes twice is one for its reader
    message.set_content(alert.as_text())
    evidence = json.dumps(alert.as_json(), indent=1).encode()
    message.add_attachment(evidence, maintype="application", subtype="json", filename="evidence.json")
    try:
        with _connect(settings) as server:
            if settings.port != smtplib.SMTP_SSL_PORT and settings.host not in LOOPBACK:
                server.starttls(context=ssl.create_default_context())
            if settings.user is not None:
                server.login(settings.user, secret(settings.password or "", of="email.password"))
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as err:
        code = f" {err.smtp_code}" if isinstance(err, smtplib.SMTPResponseException) else ""
        raise ChannelError(f"alerts.email cannot be sent: {type(err).__name__}{code}") from err


def _connect(settings: EmailSettings) -> smtplib.SMTP:
    """Connect to the server, encrypted from the first byte on the port for that."""
    if settings.port == smtplib.SMTP_SSL_PORT:
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=TIMEOUT_S, context=context)
    return smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_S)


def _run(command: tuple[str, ...], alert: Alert) -> None:
    try:
        done = subprocess.run(
            command,
            input=json.dumps(alert.as_json()).encode(),
            timeout=_COMMAND_S,
            capture_output=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise ChannelError(f"alerts.command {command[0]!r} failed: {type(err).__name__}") from err
    if done.returncode:
        raise ChannelError(f"alerts.command {command[0]!r} ended with {done.returncode}")
