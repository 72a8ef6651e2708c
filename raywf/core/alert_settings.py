"""Whom raywf tells when a human should know, and of what; see `raywf.core.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from raywf.core.codec import require

AlertKind = Literal[
    "promoted", "rejected", "rolled_back", "failed", "helpless", "fallen", "monitor", "labels"
]
KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
_SCHEMES = ("http://", "https://", "env:", "file:")
_URL = "a URL, or env:NAME or file:PATH that holds it"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSettings:
    """Mail over SMTP, encrypted by STARTTLS except to this machine, on port 465 from the first byte on.

    `password` is ``env:NAME`` or ``file:PATH``, lest it stand in a file that others read.
    """

    to: tuple[str, ...]
    sender: str
    host: str = "localhost"
    port: int = 587
    user: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        good = len(self.to) > 0 and all("@" in one and one.isprintable() for one in self.to)
        require(good, "to", "mail addresses", self.to)
        require("@" in self.sender and self.sender.isprintable(), "sender", "a mail address", self.sender)
        require(1 <= self.port <= 65535, "port", "in [1, 65535]", self.port)
        kept = self.password is None or self.password.startswith(("env:", "file:"))
        require(kept, "password", "env:NAME or file:PATH that holds it", "a text")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Where alerts go and what they are about; without a channel there are none.

    `webhook` gets JSON, `slack` what Slack and those like it take, `command` JSON on its standard input.
    `helpless_after` so many retrainings in a row gave nothing better, a human is called; so too when the
    champion's loss is up and the policy sees nothing to do, when the monitor has not answered for
    `silent_after`, or predictions go on and no label came for `labels_after`. What goes on is told again
    every `repeat`. `heartbeat` is asked for every minute as long as all is well: a dead-man's switch
    elsewhere alerts when that stops. `link` stands below each alert.
    """

    webhook: str | None = None
    slack: str | None = None
    email: EmailSettings | None = None
    command: tuple[str, ...] = ()
    heartbeat: str | None = None
    kinds: tuple[AlertKind, ...] = tuple(kind for kind in KINDS if kind != "rejected")
    helpless_after: int = 3
    silent_after: timedelta = timedelta(minutes=10)
    labels_after: timedelta = timedelta(days=7)
    repeat: timedelta = timedelta(days=1)
    link: str | None = None

    def __post_init__(self) -> None:
        for name in ("webhook", "slack", "heartbeat"):
            value: str | None = getattr(self, name)
            # the value itself may be a secret, so it is not told
            require(value is None or value.startswith(_SCHEMES), name, _URL, "something else")
        require(self.helpless_after >= 1, "helpless_after", "at least 1", self.helpless_after)
        for name in ("silent_after", "labels_after", "repeat"):
            length = getattr(self, name)
            require(length > timedelta(0), name, "longer than nothing", length)

    @property
    def has_channel(self) -> bool:
        """Whether anybody is told."""
        return any((self.webhook, self.slack, self.email, self.command, self.heartbeat))
