"""Who is told what: the journal's ends and a silent system become alerts, each told once by each channel.

What was handed over is noted in ``alerts/<workflow>.json`` of the store after it was, so that a crash between
the two tells it twice and never not at all. A channel that fails is tried again, the others go on.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from raywf.core.alert_settings import AlertKind, AlertSettings
from raywf.core.clock import format_time, parse_time
from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import RaywfError
from raywf.core.ids import stable_id
from raywf.core.journal import ATTRIBUTED, FINAL, LOOKED, Journal
from raywf.core.records import Decision, Evidence, JournalEntry
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.loop.channels import MOST_WINDOWS, Alert, Channel, beat, open_channels
from raywf.policy.history import answers
from raywf.registry.registry import CHAMPION, PREVIOUS

EVERY_S = 15.0
_BEAT_S = 60.0
# until a failed channel is tried again: at first, at most
_AGAIN = timedelta(seconds=30), timedelta(hours=1)
_REMEMBERED = timedelta(days=30)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """How the system is: `problem` is empty where the monitor answers and reads; totals are of its fold.

    `fallen` says why nothing is done about a champion whose loss is up; empty where it is not, None where
    that is not known, or something is under way.
    """

    problem: str = ""
    fallen: str | None = None
    predictions: int = 0
    labels: int = 0


class Watched(Protocol):
    """What alerts ask of the running system."""

    def pulse(self) -> Pulse:
        """Return how it is; never raises."""
        ...

    def windows(self, alias: str = CHAMPION) -> Sequence[Evidence]:
        """Return the windows of who has an alias, in time order; none where nobody tells. Never raises."""
        ...


def journal_alerts(
    decisions: Sequence[Decision], entries: Sequence[JournalEntry], *, helpless_after: int
) -> list[tuple[datetime, Alert]]:
    """Return an alert for each end in the journal, with the wall's time at which it came about.

    A retraining is promoted, rejected or failed; a rollback rolls back. From the `helpless_after`-th
    retraining in a row on that was rejected and answered something, each is an alert of its own kind;
    a version that was promoted by hand ends the row, one that was taken back counts as rejected. Of a
    decision's ends the first counts, as for the controller. What the fall came from is among the reasons.
    """
    causes = {e.decision_id: e.reasons for e in entries if e.stage == ATTRIBUTED}
    known = {d.id: d for d in decisions}
    found, vain, before = [], 0, 0
    for entry in sorted(entries, key=lambda e: e.wall_time):
        if entry.stage not in FINAL - {LOOKED} or entry.decision_id not in known:
            continue
        decision = known.pop(entry.decision_id)
        if decision.kind in {"retrain", "promote"} and entry.stage == "promoted":
            before, vain = vain, 0
        elif decision.kind == "rollback" and entry.stage == "promoted":
            before, vain = 0, before + 1 + vain
        elif decision.kind == "retrain" and entry.stage == "rejected" and answers(decision):
            vain += 1
        kind = _kind(decision, entry, vain if answers(decision) else 0, helpless_after)
        alert = _of_entry(decision, entry, kind, vain, causes.get(decision.id, ()))
        found.append((entry.wall_time, alert))
    return found


def _kind(decision: Decision, entry: JournalEntry, vain: int, helpless_after: int) -> AlertKind:
    if entry.stage == "failed":
        return "failed"
    if decision.kind == "rollback":
        return "rolled_back"
    if entry.stage == "rejected":
        return "helpless" if vain >= helpless_after else "rejected"
    return "promoted"


def _of_entry(
    decision: Decision, entry: JournalEntry, kind: AlertKind, vain: int, causes: tuple[str, ...]
) -> Alert:
    version = entry.figures.get("version")
    what = {
        "promoted": f"version {version} is champion",
        "rejected": "a retraining gave nothing better",
        "rolled_back": f"rolled back to version {version}",
        "failed": f"a {decision.kind} failed",
        "helpless": f"{vain} retrainings in a row gave nothing better than the champion",
    }[kind]
    return Alert(
        id=stable_id("alert", decision.id, entry.stage),
        kind=kind,
        workflow=decision.workflow,
        title=f"raywf {decision.workflow}: {what}",
        time=decision.time,
        reasons=tuple(dict.fromkeys((*decision.reasons, *causes, *entry.reasons))),
        figures={"decision": decision.id, "cause": decision.cause, **entry.figures},
    )


@dataclass(slots=True)
class _State:
    """What was told and what goes on; kept in the store.

    `begun` is since when a channel is told of a kind: what was before is no news to it. `sent` has when by
    alert and channel; `notices` are alerts that are about an instant and not told by all yet; `silent` is
    since when the monitor does not answer, `fallen` since when the loss is up, `labels` how many labels there
    were and since when.
    """

    begun: dict[str, str] = field(default_factory=dict)
    notices: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, dict[str, str]] = field(default_factory=dict)
    silent: datetime | None = None
    fallen: datetime | None = None
    labels: int = -1
    predictions: int = -1
    labels_since: datetime | None = None


class Alerts:
    """Tells the channels of a workflow; `tick` is for one thread of one process."""

    def __init__(
        self,
        workflow: Workflow,
        watched: Watched,
        *,
        channels: Mapping[str, Channel] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._name, self._watched, self._now = workflow.alerts, workflow.name, watched, now
        self._journal = Journal(workflow.stores.root, workflow.name)
        self._store, self._file = Store(workflow.stores.root), f"alerts/{workflow.name}.json"
        self._channels = open_channels(workflow.alerts) if channels is None else channels
        self._kept: _State | None = None
        self._written = b""
        self._failed: dict[tuple[str, str], tuple[datetime, timedelta]] = {}

    def tick(self) -> bool:
        """Look once and tell what is new; return whether all is well."""
        now = self._now()
        self._begin(now)
        pulse = self._watched.pulse()
        due = journal_alerts(
            self._journal.decisions(), self._journal.entries(), helpless_after=self._settings.helpless_after
        )
        for alert in self._silence(pulse, now) + self._fall(pulse, now) + self._labels(pulse, now):
            self._state.notices[alert.id] = encode(alert)
        due += [(a.time, a) for a in (decode(Alert, one) for one in self._state.notices.values())]
        windows: tuple[dict[str, Any], ...] | None = None
        for came, found in due:
            alert = self._as_wanted(found)
            channels = self._waiting(alert, came, now)
            if channels:
                windows = self._windows() if windows is None else windows
                self._tell(replace(alert, windows=windows, link=self._settings.link), channels, now)
        self._forget(now)
        self._write()
        return not pulse.problem

    def forget(self) -> None:
        """Read what was told anew at the next tick: another process may tell meanwhile."""
        self._kept, self._written = None, b""

    @property
    def _state(self) -> _State:
        """What is kept; read when it is first asked for, so that a store that is away ends no actor."""
        if self._kept is None:
            self._kept = self._read()
        return self._kept

    def _begin(self, now: datetime) -> None:
        """Note since when each channel is told of each kind; what is not wanted now begins anew later."""
        wanted = [f"{name}:{kind}" for name in self._channels for kind in self._settings.kinds]
        self._state.begun = {name: self._state.begun.get(name, format_time(now)) for name in wanted}

    def _as_wanted(self, alert: Alert) -> Alert:
        """Return an alert by the kind that is asked for: who wants the rejected wants the helpless too."""
        if alert.kind == "helpless" and "helpless" not in self._settings.kinds:
            return replace(alert, kind="rejected")
        return alert

    def _waiting(self, alert: Alert, came: datetime, now: datetime) -> list[str]:
        """Return the channels that have still to be told, and not only later because they failed."""
        begun, told = self._state.begun, self._state.sent.get(alert.id, {})
        return [
            name
            for name in self._channels
            if name not in told
            and f"{name}:{alert.kind}" in begun
            and came >= max(parse_time(begun[f"{name}:{alert.kind}"]), now - _REMEMBERED)
            and now >= self._failed.get((alert.id, name), (now, _AGAIN[0]))[0]
        ]

    def _silence(self, pulse: Pulse, now: datetime) -> list[Alert]:
        state = self._state
        if not pulse.problem:
            since, state.silent = state.silent, None
            if since is None or not self._was_told(f"monitor-{format_time(since)}"):
                return []
            return [self._alert("monitor", f"well-{format_time(since)}", "the monitor answers again", now)]
        state.silent = state.silent or now
        if now - state.silent < self._settings.silent_after:
            return []
        title = f"the monitor is silent since {format_time(state.silent)}"
        key = self._repeated(f"monitor-{format_time(state.silent)}", now)
        return [self._alert("monitor", key, title, now, pulse.problem)]

    def _fall(self, pulse: Pulse, now: datetime) -> list[Alert]:
        state = self._state
        if pulse.problem or pulse.fallen is None:
            return []
        if not pulse.fallen:
            since, state.fallen = state.fallen, None
            if since is None or not self._was_told(f"fallen-{format_time(since)}"):
                return []
            return [self._alert("fallen", f"over-{format_time(since)}", "the loss is no longer up", now)]
        state.fallen = state.fallen or now
        key = self._repeated(f"fallen-{format_time(state.fallen)}", now)
        title = "the champion's loss is up, and nothing is done about it"
        return [self._alert("fallen", key, title, now, pulse.fallen)]

    def _labels(self, pulse: Pulse, now: datetime) -> list[Alert]:
        state = self._state
        if pulse.problem:
            return []
        since = state.labels_since
        if since is None or pulse.labels != state.labels:
            state.labels, state.predictions, state.labels_since = pulse.labels, pulse.predictions, now
            if since is None or not self._was_told(f"labels-{format_time(since)}"):
                return []
            return [self._alert("labels", f"came-{format_time(now)}", "labels come again", now)]
        more, waited = pulse.predictions - state.predictions, now - since
        if waited < self._settings.labels_after or more <= 0:
            return []
        key = self._repeated(f"labels-{format_time(since)}", now)
        title = f"no label came since {format_time(since)}"
        reason = f"{more} predictions were made meanwhile: nobody knows how good they were"
        return [self._alert("labels", key, title, now, reason)]

    def _alert(self, kind: AlertKind, key: str, title: str, now: datetime, *reasons: str) -> Alert:
        return Alert(
            id=stable_id("alert", self._name, key),
            kind=kind,
            workflow=self._name,
            title=f"raywf {self._name}: {title}",
            time=now,
            reasons=reasons,
        )

    def _was_told(self, key: str) -> bool:
        return bool(self._state.sent.get(stable_id("alert", self._name, key)))

    def _repeated(self, key: str, now: datetime) -> str:
        """Return the key of what goes on: another one each time that it is to be told again."""
        told = self._state.sent.get(stable_id("alert", self._name, key))
        again = int((now - min(map(parse_time, told.values()))) / self._settings.repeat) if told else 0
        return f"{key}-{again}" if again else key

    def _tell(self, alert: Alert, channels: Sequence[str], now: datetime) -> None:
        for name in channels:
            try:
                self._channels[name](alert)
            except Exception as err:  # noqa: BLE001 whatever one channel raises, the others are told
                _, wait = self._failed.get((alert.id, name), (now, _AGAIN[0]))
                self._failed[alert.id, name] = now + wait, min(2 * wait, _AGAIN[1])
                reason = str(err) if isinstance(err, RaywfError) else type(err).__name__
                _log.warning("an alert was not handed over by %s: %s", name, reason)
            else:
                self._state.sent.setdefault(alert.id, {})[name] = format_time(now)
                self._failed.pop((alert.id, name), None)
                self._write()

    def _windows(self) -> tuple[dict[str, Any], ...]:
        """Return the champion's newest windows, those of the one before it while it has none."""
        found = self._watched.windows() or self._watched.windows(PREVIOUS)
        return tuple(
            {
                "start": format_time(window.start),
                "end": format_time(window.end),
                "rows": window.rows,
                "labelled": window.labelled,
                "loss": window.loss_sum / window.labelled if window.labelled else None,
                "metric": window.metric,
            }
            for window in list(found)[-MOST_WINDOWS:]
        )

    def _forget(self, now: datetime) -> None:
        """Drop notices that all were told or that are old, and what was told too long ago to come again."""
        state, edge = self._state, now - _REMEMBERED
        state.notices = {
            name: one
            for name, one in state.notices.items()
            if parse_time(one["time"]) > edge and not set(self._channels) <= set(state.sent.get(name, ()))
        }
        state.sent = {
            name: told
            for name, told in state.sent.items()
            if max(map(parse_time, told.values())) > edge - _REMEMBERED
        }

    def _read(self) -> _State:
        try:
            return decode(_State, json.loads(self._store.read(self._file)))
        except FileNotFoundError:
            return _State()
        except (ValueError, DecodeError) as err:
            _log.warning("%s cannot be read, alerts begin anew: %s", self._file, err)
            return _State()

    def _write(self) -> None:
        data = json.dumps(encode(self._state)).encode()
        if data != self._written:
            self._store.write(self._file, data)
            self._written = data


def keep_telling(
    alerts: Alerts, settings: AlertSettings, stop: threading.Event, leads: Callable[[], bool]
) -> None:
    """Tick again and again until `stop` is set, and tell the dead-man's switch; meant for a daemon thread.

    Of several on one store only who `leads` tells.
    """
    due = 0.0
    while not stop.wait(EVERY_S):
        if not leads():
            alerts.forget()
            continue
        try:
            well = alerts.tick()
            if well and time.monotonic() >= due:
                due = time.monotonic() + _BEAT_S
                beat(settings)
        except Exception as err:  # noqa: BLE001 - nothing above this thread would see it; it must look on
            _log.warning("alerts could not be told: %s: %s", type(err).__name__, err)
