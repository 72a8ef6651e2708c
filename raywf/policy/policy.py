"""Evidence and history to one decision: retrain, look whether that would help, or skip with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from raywf.core.clock import format_time
from raywf.core.duration import format_duration
from raywf.core.ids import stable_id
from raywf.core.records import Decision, Effort, Evidence
from raywf.core.settings import RetrainSettings
from raywf.policy.history import History
from raywf.policy.loss import LossFinding, judge_loss
from raywf.policy.regret import RegretFinding, judge_regret
from raywf.policy.schedule import due_slot, next_slot

_LADDER: tuple[Effort, ...] = ("refit", "warm", "full")
LOOK, RISE = "look", "rise"  # causes of a probe; its window is the instant from which labels are new to it
_REFITS = 3  # promoted in a row before a search is due
_ENDED = frozenset({"promoted", "rejected", "failed"})


@dataclass(frozen=True, slots=True)
class _Choice:
    """A decision before it has its id."""

    kind: Literal["retrain", "probe", "skip"]
    cause: str
    window: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Frame:
    """For which workflow and when it is decided, and from how many labels."""

    workflow: str
    now: datetime
    min_labelled: int


def decide(
    evidence: Sequence[Evidence],
    history: History,
    settings: RetrainSettings,
    *,
    workflow: str,
    now: datetime,
    min_labelled: int,
) -> Decision:
    """Return what to do at `now` (event time); the same arguments give the same decision.

    The order: one retraining at a time; a user's request is served at once; the cooldown holds the rest
    back; then the champion's loss, which asks for a look first where there are looks; then its regret; then
    the schedule; then a look that is due. The id is a
    function of (workflow, kind, cause, window), where the window is the request's id, the end of what was
    judged, the schedule's slot or when the look before was. What was decided before is not decided again.
    """
    choice = _choose(evidence, history, settings, _Frame(workflow, now, min_labelled))
    return _decision(choice, workflow, now, effort=choose_effort(history, settings))


def choose_effort(history: History, settings: RetrainSettings) -> Effort:
    """Return how much a retraining does now.

    By itself it begins with a refit and does more after each one that gave no new champion: a warm search,
    then full ones. After three refits in a row it searches too, lest the configurations grow old;
    and where the look after a refit finds much to regret, though the quick model has no newer rows than the
    champion.
    """
    if settings.effort != "auto":
        return settings.effort
    ended = [p for p in history.decisions if p.decision.kind == "retrain" and p.stage in _ENDED]
    ended.sort(key=lambda p: p.decision.time, reverse=True)
    vain = len(list(itertools.takewhile(lambda p: p.stage != "promoted", ended)))
    refits = len(list(itertools.takewhile(lambda p: p.decision.effort == "refit", ended[vain:])))
    if vain == 0 and (refits >= _REFITS or (refits and _is_regretted(history, settings))):
        return "warm"
    return _LADDER[min(vain, len(_LADDER) - 1)]


def _is_regretted(history: History, settings: RetrainSettings) -> bool:
    if history.champion is None:
        return False
    last = history.last_change
    finding = judge_regret(history.probes, history.champion.version, settings, since=last)
    return finding.looks == 1 and finding.due


def _choose(
    evidence: Sequence[Evidence], history: History, settings: RetrainSettings, frame: _Frame
) -> _Choice:
    workflow, now, min_labelled = frame.workflow, frame.now, frame.min_labelled
    moment = format_time(now)
    if history.running:
        return _skip("running", moment, "a retraining is running; one at a time")
    asked = [_Choice("retrain", "request", r, (f"asked for by request {r}",)) for r in history.requests]
    wanted = _new(asked, history, workflow)
    if wanted is not None:
        return wanted
    if history.champion is None:
        return _skip("champion", moment, "no champion serves yet")
    last = history.last_change
    if last is not None and now < last + settings.cooldown:
        until = format_time(last + settings.cooldown)
        return _skip("cooldown", until, f"cooling down until {until}")
    finding = judge_loss(evidence, history.champion, settings, since=last, now=now, min_labelled=min_labelled)
    regret = judge_regret(history.probes, history.champion.version, settings, since=last)
    offers = [
        _offer_loss(finding, regret, history, settings, now),
        _offer_regret(regret),
        _offer_schedule(settings, last, now),
        _offer_look(settings, history, now),
    ]
    wanted = _new([offer for offer in offers if offer is not None], history, workflow)
    return wanted or _quiet(finding, regret, next_slot(settings, last=last, now=now), frame)


def _new(choices: list[_Choice], history: History, workflow: str) -> _Choice | None:
    return next((c for c in choices if not history.has(_identity(c, workflow))), None)


def _offer_loss(
    finding: LossFinding, regret: RegretFinding, history: History, settings: RetrainSettings, now: datetime
) -> _Choice | None:
    """Offer a retraining for a risen loss, or first a look, or nothing if the look says: in vain."""
    if not finding.risen or finding.until is None:
        return None
    reason = (
        f"the champion's loss reached at least {finding.lower:.4f} (alpha {settings.alpha:g}, {finding.rows} "
        f"labelled rows), above {finding.limit:.4f}: {finding.level:.4f} at promotion, its margin "
        f"and tolerance {settings.tolerance:g}"
    )
    look = _look(RISE, history, settings, (f"{reason}; would a retraining help?",))
    seen = regret.until is not None and regret.until >= finding.until
    if look is not None and settings.look is not None and not seen:
        early = [p.decision.time for p in history.decisions if p.decision.cause == RISE]
        if not early or max(early) + settings.look <= now:
            return look
    if regret.says_in_vain:
        return None
    return _Choice("retrain", "loss", format_time(finding.until), (reason,))


def _offer_regret(finding: RegretFinding) -> _Choice | None:
    if not finding.due or finding.until is None:
        return None
    reason = f"{_regret_words(finding)}, which is worth a retraining from {finding.limit:.1%} on"
    return _Choice("retrain", "regret", format_time(finding.until), (reason,))


def _regret_words(finding: RegretFinding) -> str:
    return (
        f"beside quick models of newer rows the champion loses {finding.total:.1%} more of its loss "
        f"({finding.looks} looks)"
    )


def _offer_look(settings: RetrainSettings, history: History, now: datetime) -> _Choice | None:
    """Offer to look whether a retraining would help, once in `look` since the last look or change."""
    since = history.last_look_or_change
    if settings.look is None or since is None or since + settings.look > now:
        return None
    passed = f"{format_duration(settings.look)} have passed since {format_time(since)}"
    return _look(LOOK, history, settings, (f"{passed}: would a retraining help?",))


def _look(
    cause: str, history: History, settings: RetrainSettings, reasons: tuple[str, ...]
) -> _Choice | None:
    """Return a look at what is new since the last look or change; None where there are none."""
    since = history.last_look_or_change
    if settings.look is None or settings.regret is None or since is None:
        return None
    return _Choice("probe", cause, format_time(since), reasons)


def _offer_schedule(settings: RetrainSettings, last: datetime | None, now: datetime) -> _Choice | None:
    slot = due_slot(settings, last=last, now=now)
    if slot is None:
        return None
    return _Choice(
        "retrain", "schedule", format_time(slot), (f"the schedule's slot {format_time(slot)} is due",)
    )


def _quiet(finding: LossFinding, regret: RegretFinding, slot: datetime | None, frame: _Frame) -> _Choice:
    moment, min_labelled = format_time(frame.now), frame.min_labelled
    waits = f"the schedule's next slot is {format_time(slot)}" if slot else ""
    if regret.looks:
        waits = "; ".join(filter(None, (waits, f"{_regret_words(regret)}, of {regret.limit:.1%}")))
    if finding.level is None or finding.until is None:
        text = f"too few labels: {finding.rows} of {min_labelled} rows in windows that are mostly labelled"
        return _skip("labels", moment, text, waits)
    text = (
        f"nothing wrong: the champion's loss is at least {finding.lower:.4f}, not above {finding.limit:.4f} "
        f"({finding.rows} labelled rows)"
    )
    if finding.risen:
        text = f"the loss is up ({finding.lower:.4f}), and what it asks for was decided before"
        if regret.says_in_vain:
            text = f"the loss is up ({finding.lower:.4f}), but a quick model of newer rows is no better"
    return _skip("quiet", format_time(finding.until), text, waits)


def _skip(cause: str, window: str, *reasons: str) -> _Choice:
    return _Choice("skip", cause, window, tuple(reason for reason in reasons if reason))


def _identity(choice: _Choice, workflow: str) -> str:
    return stable_id(workflow, choice.kind, choice.cause, choice.window)


def _decision(choice: _Choice, workflow: str, now: datetime, *, effort: Effort) -> Decision:
    return Decision(
        id=_identity(choice, workflow),
        workflow=workflow,
        kind=choice.kind,
        cause=choice.cause,
        window=choice.window,
        reasons=choice.reasons,
        time=now,
        effort=effort,
    )
