"""What a cloud tells a machine about itself: that it is taken back soon, and what the bill calls it.

Each cloud answers at an address that only the machine reaches: AWS' instance metadata service (version 2, by
a session's token), Google's metadata server, Azure's scheduled events.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Literal

from raywf.core.clock import parse_time

SpotCloud = Literal["aws", "gcp", "azure"]
SPOT_CLOUDS: tuple[SpotCloud, ...] = ("aws", "gcp", "azure")
LOOK_EVERY_S: dict[SpotCloud, float] = {"aws": 5.0, "gcp": 1.0, "azure": 1.0}  # as each cloud advises
_ADDRESSES: dict[SpotCloud, str] = {
    "aws": "http://169.254.169.254",
    "gcp": "http://metadata.google.internal",
    "azure": "http://169.254.169.254",
}
_SHORTEST = timedelta(seconds=30)  # from the notice: Google's, and Azure's least
_ANSWER_S = 5.0
_AZURE_ANSWER_S = 130.0  # the first question about events switches them on, which takes up to two minutes
_TOKEN_S = 21_600
_GONE = (404, 410)

Say = Callable[[str], None]


class Metadata:
    """Asks one cloud's metadata service; `address` is another one than the cloud's for a test."""

    def __init__(self, cloud: SpotCloud, address: str | None = None) -> None:
        self.cloud = cloud
        self._address = (address or _ADDRESSES[cloud]).rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""
        self._name = ""

    def ends(self) -> datetime | None:
        """Return when the machine is taken back, or None while nobody wants it back.

        Raises:
            OSError: if the service does not answer.
            ValueError: if its answer cannot be understood.
        """
        looks = {"aws": self._aws_ends, "gcp": self._gcp_ends, "azure": self._azure_ends}
        return looks[self.cloud]()

    def labels(self) -> dict[str, str]:
        """Return the labels that let a bill's lines be matched with a node of Ray's: AWS' alone have any.

        Raises:
            OSError: if the service does not answer.
        """
        if self.cloud != "aws":
            return {}
        named = {"instance-id": "instance-id", "node-type": "instance-type"}
        return {label: self._aws(f"meta-data/{path}") for label, path in named.items()}

    def _aws_ends(self) -> datetime | None:
        try:
            told = json.loads(self._aws("meta-data/spot/instance-action"))
        except urllib.error.HTTPError as err:
            if err.code in _GONE:
                return None
            raise
        return parse_time(str(told["time"]))

    def _aws(self, path: str) -> str:
        """Ask with a session's token; where that has run out, with a new one."""
        for may_be_old in (True, False):
            if not self._token or not may_be_old:
                asked = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
                self._token = self._ask("latest/api/token", asked, method="PUT")
            try:
                return self._ask(f"latest/{path}", {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as err:
                if err.code != 401 or not may_be_old:
                    raise
        raise AssertionError("the second question returns or raises")

    def _gcp_ends(self) -> datetime | None:
        told = self._ask("computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
        return datetime.now(UTC) + _SHORTEST if told.strip().upper() == "TRUE" else None

    def _azure_ends(self) -> datetime | None:
        """Return the soonest end; events are those of all machines of a set, so that the name says whose."""
        if not self._name:
            path = "metadata/instance/compute/name?api-version=2021-02-01&format=text"
            self._name = self._ask(path, {"Metadata": "true"}).strip()
        path = "metadata/scheduledevents?api-version=2020-07-01"
        told = json.loads(self._ask(path, {"Metadata": "true"}, timeout=_AZURE_ANSWER_S))
        ours = [
            event
            for event in told.get("Events", ())
            if event.get("EventType") == "Preempt" and self._name in event.get("Resources", ())
        ]
        return min((_azure_time(str(event.get("NotBefore", ""))) for event in ours), default=None)

    def _ask(
        self, path: str, headers: dict[str, str], *, method: str = "GET", timeout: float = _ANSWER_S
    ) -> str:
        address = f"{self._address}/{path}"
        request = urllib.request.Request(address, headers=headers, method=method)  # noqa: S310 - http by design
        with self._opener.open(request, timeout=timeout) as answer:
            return str(answer.read().decode())


def _azure_time(text: str) -> datetime:
    """Return an event's time; an event that has begun has none.

    >>> _azure_time("Mon, 19 Sep 2016 18:29:47 GMT").isoformat()
    '2016-09-19T18:29:47+00:00'
    """
    return parsedate_to_datetime(text).astimezone(UTC) if text else datetime.now(UTC)


def await_notice(metadata: Metadata, *, every_s: float, say: Say) -> datetime:
    """Return when the machine is taken back, as soon as its cloud tells.

    A service that is away is asked again; `say` hears once that it is away, and once that it is back.
    """
    away = False
    while True:
        try:
            end = metadata.ends()
        except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError) as err:
            if not away:
                say(f"the metadata service does not answer: {type(err).__name__}: {err}")
            away = True
        else:
            if away:
                say("the metadata service answers again")
            away = False
            if end is not None:
                return end
        time.sleep(every_s)


def drained_by(end: datetime, *, now: datetime) -> datetime:
    """Return by when the node's work should have gone: after a quarter of the time that is left.

    What ends from then on counts as taken back and not as failed; and a machine that shuts down may end Ray
    long before the cloud ends the machine.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> drained_by(noon + timedelta(seconds=120), now=noon).isoformat()
    '2026-01-01T12:00:30+00:00'
    """
    return now + max(timedelta(seconds=1), (end - now) / 4)
