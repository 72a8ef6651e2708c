"""Settings are chosen by a history's head; the page and the table tell of all."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from raywf.core.codec import encode
from raywf.core.errors import SettingsError
from raywf.core.metrics import find_metric
from raywf.loop.backtest.course import Course, Event, Step
from raywf.loop.backtest.run import Backtest
from raywf.loop.backtest.summary import summarise
from raywf.loop.backtest.tune import tune, variants
from raywf.report.backtest import heads_of_backtest, rows_of_backtest, write_backtest

START = datetime(2020, 1, 1, tzinfo=UTC)
CHANCES = tuple(START + timedelta(days=n) for n in range(11))


def course(policy, losses, *, retrained=(), cpu_s=10.0):
    """A policy's losses of ten steps, and the steps at which it retrained."""
    steps = tuple(
        Step(start=CHANCES[n], end=CHANCES[n + 1], version="1", rows=10, loss=loss)
        for n, loss in enumerate(losses)
    )
    events = tuple(
        Event(
            time=CHANCES[n],
            settled=CHANCES[n],
            kind="retrain",
            cause="regret",
            effort="refit",
            stage="promoted",
            reason="it fell <at once>",
            cpu_s=cpu_s,
            helped=True,
        )
        for n in retrained
    )
    return Course(policy=policy, steps=steps, events=events)


def backtest(*courses, metric="log_loss"):
    """What came of policies."""
    found = find_metric(metric)
    return Backtest(
        workflow="w",
        metric=metric,
        greater_is_better=found.greater_is_better if found else True,
        snapshot_id="s",
        rows=100,
        chances=CHANCES,
        courses=tuple(courses),
    )


NEVER = course("never", [1.0] * 10)
DEAR = course("raywf regret=0.01", [0.5] * 7 + [0.9] * 3, retrained=range(1, 7))
FRUGAL = course("raywf regret=0.05", [0.51] * 7 + [0.4] * 3, retrained=(1, 3, 9))
BLIND = course("raywf regret=0.1", [0.99] * 7 + [0.1] * 3)


def test_the_cheapest_of_the_good_is_chosen():
    """By the head alone: that the last one has the best tail counts for nothing."""
    found = {t.policy: t for t in tune(backtest(NEVER, DEAR, FRUGAL, BLIND))}
    assert [p for p, t in found.items() if t.chosen] == [FRUGAL.policy]
    assert found[FRUGAL.policy].head_cpu_s == 20
    assert found[FRUGAL.policy].tail_cpu_s == 10
    assert found[FRUGAL.policy].tail_loss == pytest.approx(0.4)


def test_the_least_bad_is_chosen_where_nothing_helped():
    """Rather than an error after hours of trainings."""
    worse, worst = (course(f"raywf regret={r}", [loss] * 10) for r, loss in ((0.1, 1.02), (0.01, 1.3)))
    assert [t.policy for t in tune(backtest(NEVER, worst, worse)) if t.chosen] == [worse.policy]


def test_variants_are_policies_of_the_step():
    """Eight, by looks and regret."""
    some = variants(timedelta(days=30))
    assert len(set(some)) == 8
    assert "raywf look=60d cooldown=30d regret=0.05" in some


def test_gains_are_shares_of_the_best():
    """None where nothing gained, or never was not played."""
    made = backtest(NEVER, course("a", [0.5] * 10), course("b", [0.75] * 10))
    assert [made.gain(c) for c in made.courses] == [0.0, 1.0, 0.5]
    assert backtest(NEVER).gain(NEVER) is None
    assert backtest(DEAR).gain(DEAR) is None


def test_how_late_a_policy_is_beside_the_oracle():
    """The median over the moments that it did not miss; itself and where there is none it is not told."""
    oracle = course("oracle, 3 refits", [0.4] * 10, retrained=(2, 5, 8))
    late = course("late", [0.5] * 10, retrained=(1, 3, 7))
    blind = course("blind", [0.9] * 10, retrained=(1,))
    made = backtest(oracle, late, blind)
    delay = made.delay(late)
    assert delay is not None
    assert (delay.median, delay.moments, delay.missed) == (timedelta(days=1), 3, 1)
    assert made.delay(oracle) is None
    assert backtest(late).delay(late) is None
    assert [row[-3] for row in rows_of_backtest(made)] == ["-", "1d, 1 of 3 missed", "3 of 3 missed"]


def test_a_metric_that_should_be_great_is_shown_as_it_is():
    """Losses of an AUC are negative."""
    for metric in ("roc_auc", "profit"):  # the other is the user's own
        rows = rows_of_backtest(backtest(course("never", [-0.8] * 10), metric=metric))
        assert rows[0][1] == "0.8000"


def test_a_summary_has_the_figures_of_the_table():
    """As figures, which is what a script reads; what nothing tells is null, not NaN."""
    nothing = dataclasses.replace(NEVER, steps=())
    made = backtest(NEVER, DEAR, metric="roc_auc")
    never, dear = (encode(s) for s in summarise(made))
    assert (never["policy"], never["gain"], never["retrainings"]) == (NEVER.policy, 0.0, 0)
    assert (dear["retrainings"], dear["promoted"], dear["late"]) == (6, 6, None)
    assert dear["metric"] == pytest.approx(-DEAR.loss)
    assert (dear["cpu_s"], dear["cost_usd"]) == (DEAR.cpu_s, DEAR.cost_usd)
    assert summarise(backtest(nothing))[0].metric is None


def test_a_former_champion_that_comes_back_is_no_new_model():
    """It did not come in time after what the oracle answers."""
    oracle = course("oracle, 1 refits", [0.4] * 10, retrained=(2,))
    late = course("late", [0.5] * 10, retrained=(3,))
    back = dataclasses.replace(
        late, events=tuple(dataclasses.replace(e, kind="rollback") for e in late.events)
    )
    delay = backtest(oracle, back).delay(back)
    assert delay is not None
    assert delay.missed == 1


def test_the_page_has_all_policies_and_escapes_what_they_say(tmp_path: Path):
    """And needs no network."""
    made = backtest(NEVER, DEAR, FRUGAL)
    assert "believe the tail" not in write_backtest(tmp_path / "page.html", made).read_text()
    page = write_backtest(tmp_path / "page.html", made, tune(made)).read_text()
    assert "of 2 settings: that flatters it; believe the tail" in page
    assert page.count("<svg") == 1
    assert "raywf regret=0.05" in page
    assert "it fell &lt;at once&gt;" in page
    assert "src=" not in page
    assert 'href="http' not in page


def test_a_page_that_cannot_be_written(tmp_path: Path):
    """Is told with the option to change."""
    with pytest.raises(SettingsError, match="--report"):
        write_backtest(tmp_path / "none" / "page.html", backtest(NEVER))


def test_what_answers_earned_is_a_column_where_it_is_said():
    """Weighed by the steps' rows; the oracle, which answers no rows, has none."""
    plain = course("never", [0.5] * 10)
    steps = (dataclasses.replace(plain.steps[0], rows=30, value=1.0), *plain.steps[1:])
    steps = (*steps[:-1], dataclasses.replace(steps[-1], rows=10, value=5.0))
    priced = dataclasses.replace(plain, steps=steps)
    made = backtest(priced, course("oracle 3", [0.4] * 10))
    assert heads_of_backtest(made)[-2:] == ["USD", "value"]
    assert [row[-1] for row in rows_of_backtest(made)] == ["2", "-"]
    assert heads_of_backtest(backtest(plain))[-1] == "USD"
    assert {len(row) for row in rows_of_backtest(backtest(plain))} == {
        len(heads_of_backtest(backtest(plain)))
    }
