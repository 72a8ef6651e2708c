"""Alerts: what is one, that each channel hands it over once, and what each channel sends."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner

from raywf.cli.alerts import alerts as command
from raywf.core.alert_settings import KINDS, AlertSettings, EmailSettings
from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import SettingsError
from raywf.core.journal import ATTRIBUTED, Journal
from raywf.core.records import Evidence
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.loop.alerts import Alerts, Pulse, journal_alerts
from raywf.loop.channels import Alert, ChannelError, bars, beat, open_channels, secret
from raywf.serving.environment import free_ports
from raywf.testing import make_decision

START = datetime(2026, 1, 1, tzinfo=UTC)
ALERT = Alert(
    id="a1",
    kind="promoted",
    workflow="w",
    title="raywf w: version 2 is champion",
    time=START,
    reasons=("better by 0.02",),
    windows=({"loss": 0.2}, {"loss": None}, {"loss": 0.3}),
    link="https://here.example/w",
)


class System:
    """A running system, its journal, a clock that is set, and what was told."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.now, self.here = datetime.now(UTC) - timedelta(hours=1), Pulse()
        self.told: list[Alert] = []
        self.broken: Exception | None = None
        self.names, self.without = ["here"], ""
        self.workflow = Workflow(
            name="w",
            task="binary",
            spine=SpineSettings(path="x.csv", label="y"),
            stores=StoreSettings(root=str(root)),
            alerts=AlertSettings(command=("true",), kinds=KINDS, **settings),
        )
        self.journal = Journal(str(root), "w")
        self.alerts = self.restarted()

    def restarted(self) -> Alerts:
        channels = dict.fromkeys(self.names, self._take)
        self.alerts = Alerts(self.workflow, self, channels=channels, now=lambda: self.now)
        return self.alerts

    def _take(self, alert: Alert) -> None:
        if self.broken is not None:
            raise self.broken
        self.told.append(alert)

    def pulse(self) -> Pulse:
        return self.here

    def windows(self, alias: str = "champion") -> tuple[Evidence, ...]:
        if alias == self.without:
            return ()
        made = {"version": "1", "rows": 10, "loss_squares": 1.0}
        ends = [START + timedelta(days=i) for i in range(100)]
        return tuple(
            Evidence(start=end, end=end, labelled=i % 2 * 5, loss_sum=i / 10, **made)  # type: ignore[arg-type]
            for i, end in enumerate(ends)
        )

    def end(
        self,
        name: str,
        stage: str,
        *,
        kind: str = "retrain",
        cause: str = "loss",
        effort: str = "full",
        **figures: Any,
    ) -> None:
        decision = make_decision(
            name,
            kind=kind,
            cause=cause,
            effort=effort,
            window=name,
            reasons=("the loss is up",),
            time=START,
        )
        self.journal.decide(decision)
        self.journal.record(decision, stage, reasons=("so it is",), figures=figures)

    def kinds(self, *, after: timedelta = timedelta(seconds=5)) -> list[str]:
        """Return the kinds that the next tick tells."""
        self.now += after
        before = len(self.told)
        self.alerts.tick()
        return [alert.kind for alert in self.told[before:]]


@pytest.fixture
def system(tmp_path: Path) -> System:
    made = System(tmp_path / "root")
    assert made.kinds() == []
    return made


def test_each_end_is_told_once(system: System) -> None:
    """With reasons, figures and the newest windows; not again after a restart, nor what is old."""
    system.end("d1", "promoted", version="2")
    system.end("d2", "searched")
    assert system.kinds() == ["promoted"]
    (alert,) = system.told
    assert alert.title == "raywf w: version 2 is champion"
    assert alert.reasons == ("the loss is up", "so it is")
    assert alert.figures["version"] == "2"
    assert len(alert.windows) == 60
    assert (alert.windows[-2]["loss"], alert.windows[-1]["loss"]) == (None, 9.9 / 5)
    assert system.kinds() == []
    system.restarted()
    assert system.kinds(after=timedelta(days=90)) == []
    assert system.kinds(after=timedelta(days=90)) == []


def test_a_champion_without_windows_yet(system: System) -> None:
    """Those of the one before it are told: it was promoted a moment ago."""
    system.without = "champion"
    system.end("d1", "promoted", version="2")
    assert system.kinds() == ["promoted"]
    assert len(system.told[0].windows) == 60


def test_what_a_fall_came_from_is_told(system: System) -> None:
    """As the journal has it, beside what was decided and what came of it."""
    made = make_decision("d1", kind="retrain", reasons=("the loss is up",), time=START)
    system.journal.decide(made)
    system.journal.record(made, ATTRIBUTED, reasons=("origin is JFK: half of it",))
    system.end("d1", "promoted", version="2")
    assert system.kinds() == ["promoted"]
    assert system.told[0].reasons == ("the loss is up", "origin is JFK: half of it", "so it is")


def test_what_was_before_is_no_news(system: System) -> None:
    """Neither to the first channel, nor to one that comes later, nor of a kind that is wanted later."""
    late = System(Path(system.workflow.stores.root))
    system.end("d1", "failed")
    assert system.kinds() == ["failed"]
    late.names, late.now = ["another"], datetime.now(UTC)
    late.restarted()
    assert late.kinds(after=timedelta(0)) == []
    late.end("d2", "failed")
    assert late.kinds() == ["failed"]


def test_kinds_of_ends(system: System) -> None:
    """A rollback by hand or by itself; the third retraining in a row that gave nothing calls a human."""
    for name in ("d1", "d2", "d3", "d4"):
        system.end(name, "rejected", version=name, failed=0)
    system.end("d5", "promoted", version="1", failed="2", kind="rollback")
    system.end("d5", "failed", kind="rollback")  # what an orphan adds
    system.end("d6", "failed", kind="promote")
    system.end("d7", "promoted", version="3", failed=4)  # by a canary, with its figures
    system.end("d8", "rejected")
    wanted = ["rejected", "rejected", "helpless", "helpless", "rolled_back", "failed", "promoted", "rejected"]
    assert system.kinds() == wanted
    assert system.told[2].title == "raywf w: 3 retrainings in a row gave nothing better than the champion"


def test_in_vain_in_a_row(system: System) -> None:
    """What was asked for or is just cheap does not count, a version by hand ends the row."""
    system.end("d1", "rejected")
    system.end("d2", "rejected")
    system.end("d3", "rejected", cause="request")
    system.end("d4", "promoted", version="2", kind="promote")
    system.end("d5", "rejected")
    system.end("d6", "promoted", version="3")
    system.end("d7", "rejected")
    assert system.kinds() == ["rejected"] * 3 + ["promoted", "rejected", "promoted", "rejected"]
    system.end("d8", "promoted", version="2", kind="rollback", cause="watch")
    system.end("d9", "rejected")
    system.end("d10", "rejected", cause="hand")
    system.end("d11", "rejected", cause="fresh", effort="refit")
    system.end("d12", "rejected", cause="fresh", effort="warm")
    assert system.kinds() == ["rolled_back", "helpless", "rejected", "rejected", "helpless"]
    assert system.told[-4].title == "raywf w: 4 retrainings in a row gave nothing better than the champion"


def test_only_what_is_wanted(tmp_path: Path) -> None:
    """`kinds` chooses."""
    decisions, entries = System(tmp_path).journal.decisions(), ()
    assert journal_alerts(decisions, entries, helpless_after=3) == []
    system = System(tmp_path)
    quiet = encode(system.workflow.alerts) | {"kinds": ["failed", "rejected"], "helpless_after": 1}
    object.__setattr__(system.workflow, "alerts", decode(AlertSettings, quiet))
    system.restarted()
    assert system.kinds() == []
    system.end("d1", "promoted", version="2")
    system.end("d2", "failed")
    system.end("d3", "rejected")
    assert system.kinds() == ["failed", "rejected"]


@pytest.mark.parametrize("error", [ChannelError("away"), UnicodeEncodeError("ascii", "x", 0, 1, "no")])
def test_a_channel_that_fails_is_tried_again(system: System, error: Exception) -> None:
    """Ever more rarely; and told once when it is back."""
    system.broken = error
    system.end("d1", "failed")
    assert system.kinds() == []
    system.broken = None
    assert system.kinds() == []  # half a minute is not over
    assert system.kinds(after=timedelta(seconds=30)) == ["failed"]
    assert system.kinds(after=timedelta(seconds=30)) == []


def test_a_silent_monitor(system: System) -> None:
    """Told after ten minutes, every day, and when it answers again; a short gap is nobody's news."""
    minute = timedelta(minutes=1)
    system.here = Pulse(problem="it does not answer")
    assert system.kinds() == []
    system.here = Pulse()
    assert system.kinds(after=9 * minute) == []
    system.here = Pulse(problem="it does not answer")
    assert system.kinds() == []
    assert system.kinds(after=11 * minute) == ["monitor"]
    assert "since" in system.told[-1].title
    system.restarted()
    assert system.kinds(after=minute) == []
    assert system.kinds(after=timedelta(days=1)) == ["monitor"]
    system.here, system.broken = Pulse(), ChannelError("away")
    assert system.kinds(after=minute) == []
    system.broken = None
    system.restarted()
    assert system.kinds(after=minute) == ["monitor"]
    assert system.told[-1].title == "raywf w: the monitor answers again"
    assert system.kinds(after=minute) == []


def test_a_fall_that_nobody_answers(system: System) -> None:
    """Told with the reason, every day while it lasts, and when it is over."""
    why = "the loss is up (0.2), but a quick model of newer rows is no better"
    system.here = Pulse(fallen=why)
    assert system.kinds() == ["fallen"]
    assert system.told[-1].reasons == (why,)
    system.restarted()
    assert system.kinds(after=timedelta(hours=20)) == []
    assert system.kinds(after=timedelta(hours=5)) == ["fallen"]
    system.here = Pulse()  # under way, or not known yet
    assert system.kinds() == []
    system.here = Pulse(fallen="")
    assert system.kinds() == ["fallen"]
    assert "no longer" in system.told[-1].title
    assert system.kinds() == []


def test_labels_that_stop(system: System) -> None:
    """Told where predictions go on without them, and when they come again."""
    day = timedelta(days=1)
    system.here = Pulse(predictions=10, labels=5)
    assert system.kinds() == []
    assert system.kinds(after=8 * day) == []  # nobody predicts either
    system.here = Pulse(predictions=11, labels=6)
    assert system.kinds() == []
    system.here = Pulse(predictions=500, labels=6)
    assert system.kinds(after=6 * day) == []
    assert system.kinds(after=2 * day) == ["labels"]
    assert "489 predictions" in system.told[-1].reasons[0]
    assert system.kinds(after=day / 2) == []
    assert system.kinds(after=day) == ["labels"]
    system.here = Pulse(predictions=501, labels=7)
    assert system.kinds(after=day) == ["labels"]
    assert system.told[-1].title == "raywf w: labels come again"


class Web:
    """A server that keeps what it is sent and answers with `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, Any]] = []
        self.status = 200
        web = self

        class Handler(BaseHTTPRequestHandler):
            def _take(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                web.got.append((self.command, self.path, json.loads(body) if body else None))
                self.send_response(web.status)
                self.end_headers()

            do_GET = do_POST = _take  # noqa: N815 the library's names

            def log_message(self, *arguments: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


def test_webhook_slack_and_heartbeat(web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """JSON, Slack's text, a plain GET; addresses from the environment and from a file."""
    monkeypatch.setenv("HOOK", f"{web.url}/hook")
    (tmp_path / "slack").write_text(f"{web.url}/slack\n")
    settings = AlertSettings(
        webhook="env:HOOK", slack=f"file:{tmp_path / 'slack'}", heartbeat=f"{web.url}/beat"
    )
    for channel in open_channels(settings).values():
        channel(ALERT)
    beat(settings)
    hook, slack, heart = web.got
    assert hook == ("POST", "/hook", json.loads(json.dumps(ALERT.as_json())))
    assert slack[1:] == ("/slack", {"text": ALERT.as_text()})
    assert heart == ("GET", "/beat", None)
    assert "better by 0.02" in ALERT.as_text()
    assert "▁█ (0.2000 to 0.3000)" in ALERT.as_text()
    assert "https://here.example/w" in ALERT.as_text()


def test_an_address_is_never_told(web: Web) -> None:
    """Neither of one that refuses nor of one that is away or wrong."""
    web.status = 500
    for address in (f"{web.url}/SECRET", "http://127.0.0.1:9/SECRET", "http://[SECRET"):
        with pytest.raises(ChannelError) as caught:
            open_channels(AlertSettings(webhook=address))["webhook"](ALERT)
        assert "SECRET" not in str(caught.value)
        assert "webhook" in str(caught.value)
    with pytest.raises(DecodeError) as wrong:
        AlertSettings(webhook="SECRET")
    assert "SECRET" not in str(wrong.value)


def test_a_secret_that_is_not_there() -> None:
    """Says which."""
    with pytest.raises(SettingsError, match=r"alerts.slack.*NOT_SET_HERE"):
        secret("env:NOT_SET_HERE", of="slack")
    with pytest.raises(SettingsError, match=r"alerts.slack.*no/file"):
        secret("file:no/file", of="slack")


class Box:
    """A mailbox behind a real SMTP server."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 the library's name
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 OK"


def test_mail() -> None:
    """Text, and the evidence as JSON beside it."""
    box = Box()
    (port,) = free_ports(1)
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        email = EmailSettings(
            to=("a@b.example", "c@d.example"), sender="r@b.example", host="127.0.0.1", port=port
        )
        open_channels(AlertSettings(email=email))["email"](ALERT)
    finally:
        server.stop()
    ((to, mail),) = box.mails
    assert to == ["a@b.example", "c@d.example"]
    assert mail["subject"] == ALERT.title
    body, evidence = mail.iter_parts()
    assert body.get_content().split() == ALERT.as_text().split()
    assert json.loads(evidence.get_content()) == ALERT.as_json()
    with pytest.raises(ChannelError, match="email"):
        open_channels(AlertSettings(email=email))["email"](ALERT)


def test_a_command(tmp_path: Path) -> None:
    """Gets JSON on its standard input; one that fails is told by name."""
    code = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    open_channels(AlertSettings(command=(sys.executable, "-c", code)))["command"](ALERT)
    assert json.loads((tmp_path / "got").read_text()) == ALERT.as_json()
    with pytest.raises(ChannelError, match="ended with 3"):
        open_channels(AlertSettings(command=(sys.executable, "-c", "raise SystemExit(3)")))["command"](ALERT)
    with pytest.raises(ChannelError, match="no-such"):
        open_channels(AlertSettings(command=("no-such-command",)))["command"](ALERT)


def test_bars() -> None:
    """The newest of many, flat where nothing changes."""
    assert bars([1.0] * 100) == "▁" * 60
    assert bars([0.0, 0.5, 1.0]) == "▁▅█"


def test_the_command_line_sends_a_test(web: Web, tmp_path: Path) -> None:
    """Each channel by name; the exit status says whether all took it."""
    file = tmp_path / "workflow.yaml"
    text = f"name: w\ntask: binary\nspine: {{path: x.csv, label: y}}\nalerts: {{webhook: '{web.url}/a', "
    file.write_text(text + "command: ['false'], kinds: [failed]}\n")
    found = CliRunner().invoke(command, ["test", "--file", str(file)])
    assert found.exit_code == 1, found.output
    assert "webhook: taken" in found.output
    assert "command: alerts.command 'false' ended with 1" in found.output
    assert web.got[0][2]["title"] == "raywf w: a test alert"
    file.write_text("name: w\ntask: binary\nspine: {path: x.csv, label: y}\n")
    none = CliRunner().invoke(command, ["test", "--file", str(file)])
    assert isinstance(none.exception, SettingsError)
