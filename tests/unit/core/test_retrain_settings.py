"""The triggers' settings: what is read, and what is refused in one line."""

from __future__ import annotations

from datetime import UTC, timedelta
from pathlib import Path

import pytest

from raywf.core.errors import SettingsError
from raywf.core.loader import dump_workflow, load_workflow
from raywf.core.retrain_settings import TRIGGERS, BadWindowSettings, RetrainSettings
from raywf.core.settings import Workflow
from raywf.core.zone import find_zone

FILE = """\
name: churn
task: binary
spine: {path: table.csv, label: left, event_time: at, label_time: known, maturity: 20d}
"""
ALL = """\
retrain:
  every: 30d
  timezone: Europe/Berlin
  windows: {bad: 2, of: 4}
  value_drop: 0.1
  estimated: true
  drift: 0.25
  after_rows: 5000
  max_age: 90d
  on_data: true
  when: >-
    loss or (estimate and drift) or regret or windows or value or schedule or fresh or growth or rows or age
    or data
"""
WRONG = [
    (
        "timezone=Europe/Berln",
        r"timezone must be an IANA name: .*'Europe/Berln'; did you mean 'Europe/Berlin'\?",
    ),
    ("timezone=Europe", "no time zone is named 'Europe'"),
    ("timezone=../etc/passwd", "no time zone is named"),
    ("timezone=''", "no time zone is named ''"),
    ("windows={bad: 4, of: 3}", r"bad must be in \[1, 3\]"),
    ("windows={of: 0}", r"of must be in \[1, 1000\]"),
    ("windows={bads: 1}", "unknown key 'bads'; did you mean 'bad'"),
    ("value_drop=1", r"value_drop must be a share in \(0, 1\)"),
    ("drift=0", "drift must be a stability index above 0"),
    ("growth=1", "growth must be at least 1.2 times"),
    ("after_rows=0", "after_rows must be at least 1"),
    ("max_age=0s", "max_age must be longer than nothing"),
    ("max_age=10d", "maturity below retrain.max_age"),
    ("when=los", r"when cannot be read: unknown trigger 'los'; did you mean 'loss'\?"),
    ("when=loss and", "a trigger is wanted after 'and'"),
    ("when=loss and age", r"when names 'age', which never holds: set retrain\.max_age too"),
    ("when=schedule", r"set retrain\.every or retrain\.cron too"),
]


def load(folder: Path, text: str = FILE, *overrides: str) -> Workflow:
    (folder / "workflow.yaml").write_text(text)
    return load_workflow(folder / "workflow.yaml", overrides=overrides, environ={})


def test_every_trigger_is_read(tmp_path: Path) -> None:
    """And comes back from the dumped settings."""
    workflow = load(tmp_path, FILE + ALL)
    told = workflow.retrain
    assert (told.windows, told.max_age) == (BadWindowSettings(bad=2, of=4), timedelta(days=90))
    assert told.is_set == set(TRIGGERS)
    assert told.condition is not None
    assert set(told.condition.names) == set(TRIGGERS)
    (tmp_path / "again.json").write_text(dump_workflow(workflow))
    assert load_workflow(tmp_path / "again.json", environ={}).retrain == told


def test_the_documented_settings_are_read(tmp_path: Path) -> None:
    """As they stand in docs/retraining.md."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "retraining.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    assert load(tmp_path, FILE + example).retrain.after_rows == 50_000


def test_nothing_new_is_set_by_itself() -> None:
    """Loss, regret, growth, and refits as long as they pay."""
    assert RetrainSettings().is_set == {"loss", "regret", "fresh", "growth"}
    assert RetrainSettings().condition is None


@pytest.mark.parametrize(("override", "reason"), WRONG)
def test_what_is_wrong_is_refused(tmp_path: Path, override: str, reason: str) -> None:
    """In one line with the option."""
    with pytest.raises(SettingsError, match=reason) as caught:
        load(tmp_path, FILE, f"retrain.{override}")
    assert "\n" not in str(caught.value)


def test_what_weighs_looks_needs_them(tmp_path: Path) -> None:
    """Without, it would do nothing."""
    with pytest.raises(SettingsError, match=r"usd_per_loss weighs what looks find: it needs retrain\.look"):
        load(tmp_path, FILE, "retrain.usd_per_loss=0.01", "retrain.look=null")


def test_without_times_regret_cannot_be_named(tmp_path: Path) -> None:
    """There is nothing to look at."""
    text = "name: w\ntask: binary\nspine: {path: t.csv, label: y}\nretrain: {when: regret or loss}\n"
    with pytest.raises(SettingsError, match="when names 'regret', which never holds"):
        load(tmp_path, text)


def test_utc_needs_no_list_of_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others do, and the error says how to get it."""
    monkeypatch.setattr("raywf.core.zone.available_timezones", set)
    assert find_zone("UTC") is UTC
    with pytest.raises(ValueError, match="next: pip install tzdata"):
        find_zone("Nowhere/At_All")
