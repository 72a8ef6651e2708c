"""A fall is answered where staying costs as much as a retraining, if what a loss costs is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from raywf.core.probe import Probe
from raywf.core.records import Evidence
from raywf.core.retrain_settings import BadWindowSettings, RetrainSettings
from raywf.policy.history import History, PastDecision
from raywf.policy.policy import decide
from raywf.testing import make_decision, make_version

DAY, START = timedelta(days=1), datetime(2020, 1, 1, tzinfo=UTC)
NOW = START + 30 * DAY
CHAMPION = make_version("1", loss=0.1, loss_rows=5000, cost_usd=2.0)
LOOK = Probe(
    version="1", since=START, time=NOW - DAY, rows=4000, champion=0.2, quick=0.15, error=0.002, cpu_s=1.0
)
HISTORY = History(champion=CHAMPION, since=START, probes=(LOOK,))
SETTINGS = RetrainSettings(look=60 * DAY, cooldown=10 * DAY)


def window(day: int, *, rows: int = 100) -> Evidence:
    return Evidence(
        version="1",
        start=START + day * DAY,
        end=START + (day + 1) * DAY,
        rows=rows,
        labelled=rows,
        loss_sum=0.1 * rows,
        loss_squares=0.02 * rows,
    )


def ask(settings: RetrainSettings, *, history: History = HISTORY, rows: int = 100):
    evidence = [window(day, rows=rows) for day in range(30)]
    return decide(evidence, history, settings, workflow="w", now=NOW, min_labelled=200)


@pytest.mark.parametrize(("usd", "kind"), [(None, "retrain"), (0.05, "retrain"), (0.03, "skip")])
def test_staying_is_weighed_against_the_price(usd: float | None, kind: str) -> None:
    """An excess of 0.05 on 100 rows a day for ten days: 50 units, beside two dollars."""
    assert ask(replace(SETTINGS, usd_per_loss=usd)).kind == kind


def test_the_skip_says_what_it_weighed() -> None:
    """With both figures."""
    skip = ask(replace(SETTINGS, usd_per_loss=0.03))
    reasons = " ".join(skip.reasons)
    assert skip.cause == "worth"
    assert "which is worth a retraining from" in skip.reasons[0]
    assert skip.reasons[0].endswith("; but a retraining would cost more than staying")
    assert "an excess loss of 0.0500 on 1,000 predictions" in reasons
    assert "costs $1.50 at $0.03 each, less than a retraining ($2.00)" in reasons


def test_bad_windows_that_are_not_worth_a_retraining_are_a_fall() -> None:
    """The sequence has not risen yet; a rule of the user's own has, and whoever is on call is told."""
    rule = replace(SETTINGS, usd_per_loss=0.0001, windows=BadWindowSettings(bad=2, of=2), tolerance=0.0)
    evidence = [replace(window(day), loss_sum=(0.1 if day < 28 else 0.13) * 100) for day in range(30)]
    skip = decide(evidence, HISTORY, rule, workflow="w", now=NOW, min_labelled=200)
    assert (skip.kind, skip.cause) == ("skip", "fallen-worth")
    assert "of the last 2 windows" in skip.reasons[0]
    assert "would cost more than staying" in skip.reasons[0]


def test_more_traffic_pays() -> None:
    """The same excess on ten times the predictions."""
    assert ask(replace(SETTINGS, usd_per_loss=0.03), rows=1000).kind == "retrain"


def test_the_price_is_what_the_last_retraining_cost() -> None:
    """Of the same effort where there was one, not of the search that made the champion or a failed one."""
    refit = make_decision("d", time=START + DAY, effort="refit")
    search = replace(refit, id="e", time=START + 2 * DAY, effort="full")
    past = tuple(
        PastDecision(decision=d, stage="promoted", usd=usd) for d, usd in ((refit, 0.5), (search, 6.0))
    )
    cut = PastDecision(decision=replace(search, id="f", time=START + 3 * DAY), stage="failed", usd=1.0)
    whole = (*past, cut)
    for known, effort, price in (
        (past, "refit", "0.50"),
        (whole, "full", "6.00"),
        (past[:1], "full", "0.50"),
    ):
        told = replace(HISTORY, decisions=known)
        asked = replace(SETTINGS, usd_per_loss=0.005, effort=effort)
        assert f"less than a retraining (${price})" in " ".join(ask(asked, history=told).reasons)


def test_a_quick_model_that_is_no_match_prices_nothing() -> None:
    """Its loss is no measure of what staying costs, and a real fall is answered."""
    poor = replace(LOOK, champion=0.15, quick=0.2, time=NOW)
    evidence = [replace(window(day), loss_sum=0.1 * 100 if day < 10 else 0.3 * 100) for day in range(30)]
    asked = replace(SETTINGS, usd_per_loss=0.0001)
    found = decide(evidence, replace(HISTORY, probes=(poor,)), asked, workflow="w", now=NOW, min_labelled=200)
    assert (found.kind, found.cause) == ("retrain", "loss")


def test_what_nobody_weighs() -> None:
    """A schedule, a request, and where nothing is known of the excess or the price."""
    cheap = replace(SETTINGS, usd_per_loss=0.0001)
    assert ask(replace(cheap, every=20 * DAY)).cause == "schedule"
    assert ask(cheap, history=replace(HISTORY, requests={"r": ""})).cause == "request"
    free = replace(HISTORY, champion=make_version("1", loss=0.1, loss_rows=5000))
    assert ask(cheap, history=free).cause == "regret"
    old = replace(LOOK, time=START - DAY)
    assert ask(cheap, history=replace(HISTORY, probes=(old,))).kind == "skip"  # it says nothing of regret
