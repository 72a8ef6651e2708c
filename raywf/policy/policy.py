"""Evidence and history to one decision: retrain, look whether that would help, or skip with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from raywf.core.clock import format_time, parse_time
from raywf.core.condition import Condition
from raywf.core.duration import format_duration
from raywf.core.records import Decision, Effort, Evidence, ModelVersion
from raywf.core.retrain_settings import RetrainSettings
from raywf.policy.again import offer_again
from raywf.policy.drift import DRIFT, offer_drift
from raywf.policy.estimate import offer_estimate
from raywf.policy.fresh import offer_fresh
from raywf.policy.growth import offer_age, offer_data, offer_growth, offer_rows
from raywf.policy.history import AGAIN, FRESH, History
from raywf.policy.holds import Hold, held_back
from raywf.policy.loss import LossFinding, judge_loss
from raywf.policy.question import Choice, Question, Trigger, numbered
from raywf.policy.regret import RegretFinding, judge_regret
from raywf.policy.schedule import due_slot, local_text, next_slot
from raywf.policy.value import offer_value
from raywf.policy.windows import offer_windows
from raywf.policy.worth import WEIGHED, Worth, judge_worth

_LADDER: tuple[Effort, ...] = ("refit", "warm", "full")
LOOK, RISE = "look", "rise"  # causes of a probe; its window is the instant from which labels are new to it
FALLEN = "fallen"  # of a skip: the loss is up, and nothing is to be done; behind it stands why
_LONGEST_WISH = 300  # characters of what a user says
_REFITS = 3  # promoted in a row before a search is due
_ROOT = 2**0.5  # times the growth, until configurations that a search did not better are searched again


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

    The order: one retraining at a time; a user's request is served at once; so is the search after a refit
    that was refused; cooldown, back-off and budget hold the rest back; then the champion's loss, which asks
    for a look first where there are looks; then its regret; bad windows, value, estimated loss; the schedule;
    growth; refits as long as they pay; rows, age, data; then a look that drift asks for or that is due. With
    `settings.when` these are joined: the retraining has the cause and window of the first that is named and
    the reasons of all that it takes; looks go on. The id is a function of (workflow, kind, cause, window),
    where the window is the request's id, the refit's, the end of what was judged, the schedule's slot, the
    last change, the champion's version, the tables' versions or when the look before was. What was decided
    before is not decided again, unless it failed by itself: then under a number.
    """
    asked = Question(
        evidence=tuple(evidence),
        history=history,
        settings=settings,
        workflow=workflow,
        now=now,
        min_labelled=min_labelled,
        effort=choose_effort(history, settings),
    )
    choice = _choose(asked)
    return _decision(choice, workflow, now, effort=_effort_of(choice, asked))


def choose_effort(history: History, settings: RetrainSettings) -> Effort:
    """Return how much a retraining does now.

    By itself it begins with a refit and does more after each one that gave no new champion: a warm search,
    then full ones. It searches too where the configurations may be too old: where there are `growth` times
    the rows that they were chosen by, and at each further root of two after a search in vain; after three
    refits in a row where no look tells that; and where the look after a refit finds much to regret, though
    the quick model has no newer rows than the champion.
    """
    if settings.effort != "auto":
        return settings.effort
    vain = history.vain
    refits = len(list(itertools.takewhile(lambda p: p.decision.effort == "refit", history.told[vain:])))
    outgrown = settings.growth is not None and (
        history.growth_since_search >= settings.growth * _ROOT**history.searched_in_vain
    )
    many = refits >= _REFITS and (settings.growth is None or not history.tells_growth)
    if vain == 0 and (many or outgrown or (refits and _is_regretted(history, settings))):
        return "warm"
    last = history.told[0] if vain else None
    searched = last is not None and last.decision.effort == "warm" and last.stage == "rejected"
    return "full" if searched else _LADDER[min(vain, len(_LADDER) - 1)]


def _effort_of(choice: Choice, asked: Question) -> Effort:
    """Return how much a choice does: what is cheap stays so, and what follows a refit is the warm search."""
    if choice.cause == FRESH and asked.history.vain:
        return "refit"
    return "warm" if choice.cause == AGAIN else asked.effort


def _is_regretted(history: History, settings: RetrainSettings) -> bool:
    brought = not history.ended or history.ended[0].stage == "promoted"
    if history.champion is None or not brought:
        return False
    last = history.last_tried
    finding = judge_regret(history.probes, history.champion.version, settings, since=last)
    return finding.looks == 1 and finding.due


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What loss and looks say, what the triggers that are set say, and which of all hold, in their order.

    `unmet` hold too, and are not offered: why, by name, and in words.
    """

    loss: LossFinding
    regret: RegretFinding
    worth: Worth | None
    triggers: tuple[Trigger, ...]
    offers: tuple[Choice, ...]
    unmet: tuple[tuple[str, str], ...] = ()


def _choose(asked: Question) -> Choice:
    history, moment = asked.history, format_time(asked.now)
    if history.running:
        return _skip("running", moment, "a retraining is running; one at a time")
    wanted = _new([_offer_request(*request) for request in history.requests.items()], asked)
    if wanted is not None:
        return wanted
    if history.champion is None:
        return _skip("champion", moment, "no champion serves yet")
    again = _new([offer for offer in (offer_again(asked),) if offer is not None], asked)
    if again is not None:
        return again
    hold = held_back(asked)
    if hold is not None:
        return _held(hold, asked, history.champion)
    found = _find(asked, history.champion)
    drift = next((t for t in found.triggers if t.cause == DRIFT), None)
    looks = [_offer_early_look(drift, asked), _offer_look(asked)]
    condition = asked.settings.condition
    offers = [o for o in found.offers if o.cause != DRIFT] if condition is None else _joined(condition, found)
    wanted = _new([*offers, *(look for look in looks if look is not None)], asked)
    return wanted or _quiet(found, asked)


def _offer_request(request: str, why: str) -> Choice:
    words = " ".join(why.split())[:_LONGEST_WISH]
    return Choice(
        "retrain", "request", request, (f"asked for by request {request}", *([words] if words else []))
    )


def _held(hold: Hold, asked: Question, champion: ModelVersion) -> Choice:
    until, found = format_time(hold.until), _judge_loss(asked, champion)
    if hold.cause == "cooldown" or not found.risen:
        return _skip(hold.cause, until, hold.words)
    return _skip(f"{FALLEN}-{hold.cause}", until, f"the loss is up ({found.lower:.4f}), but {hold.words}")


def _judge_loss(asked: Question, champion: ModelVersion) -> LossFinding:
    return judge_loss(
        asked.evidence,
        champion,
        asked.settings,
        since=asked.history.last_change,
        now=asked.now,
        min_labelled=asked.min_labelled,
    )


def _find(asked: Question, champion: ModelVersion) -> _Findings:
    history, settings, last = asked.history, asked.settings, asked.history.last_change
    loss = _judge_loss(asked, champion)
    regret = judge_regret(history.probes, champion.version, settings, since=last)
    windows = offer_windows(asked)
    quality = [_unless_in_vain(windows, regret), offer_value(asked), offer_estimate(asked)]
    growth = [
        offer_growth(asked),
        offer_fresh(asked),
        offer_rows(asked),
        offer_age(asked),
        offer_data(asked),
        offer_drift(asked),
    ]
    offers = [
        _offer_loss(loss, regret, asked),
        _offer_regret(regret),
        *(trigger.choice() for trigger in quality if trigger is not None),
        _offer_schedule(asked),
        *(trigger.choice() for trigger in growth if trigger is not None),
    ]
    in_vain = windows is not None and _is_in_vain(windows, regret)
    unmet = [(f"{FALLEN}-vain", quality[0].words)] if in_vain and quality[0] else []
    worth = judge_worth(asked)
    if worth is not None and not worth.pays:
        weighed = [o for o in offers if o is not None and o.kind == "retrain" and o.cause in WEIGHED]
        offers = [o for o in offers if o not in weighed]
        unmet += [_too_dear(offer) for offer in weighed]
    return _Findings(
        loss=loss,
        regret=regret,
        worth=worth,
        triggers=tuple(trigger for trigger in (*quality, *growth) if trigger is not None),
        offers=tuple(offer for offer in offers if offer is not None),
        unmet=tuple(unmet),
    )


def _too_dear(offer: Choice) -> tuple[str, str]:
    """Return that an offer costs more than it brings; of regret alone that is no fall."""
    name = "worth" if offer.cause == "regret" else f"{FALLEN}-worth"
    return name, f"{offer.reasons[0]}; but a retraining would cost more than staying"


def _new(choices: Sequence[Choice], asked: Question) -> Choice | None:
    """Return the first that was not decided before; one that failed by itself is tried again, numbered."""
    past = asked.history.retrainings
    failed = {(p.decision.cause, p.decision.window) for p in past if p.has_failed}
    for choice in choices:
        ways = (replace(choice, window=numbered(choice.window, tries)) for tries in itertools.count())
        found = next(way for way in ways if (way.cause, way.window) not in failed)
        if not asked.history.has(found.identity(asked.workflow)):
            return found
    return None


def _joined(condition: Condition, found: _Findings) -> Iterator[Choice]:
    """Yield the looks that the loss asks for, then a retraining for each way in which the condition holds.

    One whose first cause was decided before is no news, whatever else holds with it: the next way is one
    without that cause.
    """
    yield from (offer for offer in found.offers if offer.kind == "probe")
    held = {offer.cause: offer for offer in found.offers if offer.kind == "retrain"}
    while names := condition.held_by(held):
        reasons = tuple(reason for name in names for reason in held[name].reasons)
        yield replace(held.pop(names[0]), reasons=reasons)


def _is_in_vain(trigger: Trigger, regret: RegretFinding) -> bool:
    """Whether a trigger asks for what the look spoke against."""
    return trigger.due and regret.says_in_vain


def _unless_in_vain(trigger: Trigger | None, regret: RegretFinding) -> Trigger | None:
    if trigger is None or not _is_in_vain(trigger, regret):
        return trigger
    return replace(trigger, due=False, words=f"{trigger.words}; but a quick model of newer rows is no better")


def _offer_loss(finding: LossFinding, regret: RegretFinding, asked: Question) -> Choice | None:
    """Offer a retraining for a risen loss, or first a look, or nothing if the look says: in vain."""
    if not finding.risen or finding.until is None or finding.told is None:
        return None
    settings = asked.settings
    reason = (
        f"the champion's loss reached at least {finding.lower:.4f} (alpha {settings.alpha:g}, {finding.rows} "
        f"labelled rows), above {finding.limit:.4f}: {finding.level:.4f} at promotion, its margin "
        f"and tolerance {settings.tolerance:g}"
    )
    look = _look(RISE, asked, (f"{reason}; would a retraining help?",))
    seen = regret.until is not None and regret.until >= finding.told
    if look is not None and not seen and _may_be_early(RISE, asked):
        return look
    if regret.says_in_vain:
        return None
    return Choice("retrain", "loss", format_time(finding.until), (reason,))


def _offer_regret(finding: RegretFinding) -> Choice | None:
    if not finding.due or finding.until is None:
        return None
    reason = f"{_regret_words(finding)}, which is worth a retraining from {finding.limit:.1%} on"
    return Choice("retrain", "regret", format_time(finding.until), (reason,))


def _regret_words(finding: RegretFinding) -> str:
    return (
        f"beside quick models of newer rows the champion loses {finding.total:.1%} more of its loss "
        f"({finding.looks} looks)"
    )


def _offer_early_look(drift: Trigger | None, asked: Question) -> Choice | None:
    """Offer to look before it is due, at drift that came since the last look."""
    if drift is None or not drift.due or not _may_be_early(DRIFT, asked):
        return None
    look = asked.history.last_look
    if look is not None and parse_time(drift.window) <= look:
        return None
    return _look(DRIFT, asked, (f"{drift.words}: would a retraining help?",))


def _offer_look(asked: Question) -> Choice | None:
    """Offer to look whether a retraining would help, once in `look` since the last look or change."""
    look, since = asked.settings.look, asked.history.last_look_or_change
    if look is None or since is None or since + look > asked.now:
        return None
    passed = f"{format_duration(look)} have passed since {format_time(since)}"
    return _look(LOOK, asked, (f"{passed}: would a retraining help?",))


def _look(cause: str, asked: Question, reasons: tuple[str, ...]) -> Choice | None:
    """Return a look at what is new since the last change, or a look that told something; None without looks.

    The decision's window is that instant, under a number where looks since found too few rows.
    """
    since = asked.history.told_until
    if asked.settings.look is None or asked.settings.regret is None or since is None:
        return None
    window = format_time(since)
    before = [p.decision for p in asked.history.decisions if p.decision.kind == "probe"]
    tries = sum(decision.anchor == window for decision in before)
    return Choice("probe", cause, numbered(window, tries), reasons)


def _may_be_early(cause: str, asked: Question) -> bool:
    """Return whether a cause may ask for a look before it is due: once in `look`."""
    early = [p.decision.time for p in asked.history.decisions if p.decision.cause == cause]
    look = asked.settings.look
    return look is not None and (not early or max(early) + look <= asked.now)


def _offer_schedule(asked: Question) -> Choice | None:
    slot = due_slot(asked.settings, last=asked.history.last_change, now=asked.now)
    if slot is None:
        return None
    reason = f"the schedule's slot {format_time(slot)}{local_text(slot, asked.settings)} is due"
    return Choice("retrain", "schedule", format_time(slot), (reason,))


def _quiet(found: _Findings, asked: Question) -> Choice:
    finding, moment = found.loss, format_time(asked.now)
    waits = _waits(found, asked)
    if found.unmet and not finding.risen:
        cause, text = min(found.unmet, key=lambda one: not one[0].startswith(FALLEN))
        return _skip(cause, moment if finding.until is None else format_time(finding.until), text, waits)
    if finding.level is None or finding.until is None:
        text = (
            f"too few labels: {finding.rows} of {asked.min_labelled} rows in windows that are mostly labelled"
        )
        return _skip("labels", moment, text, waits)
    text = (
        f"nothing wrong: the champion's loss is at least {finding.lower:.4f}, not above {finding.limit:.4f} "
        f"({finding.rows} labelled rows)"
    )
    if not finding.risen:
        return _skip("quiet", format_time(finding.until), text, waits)
    why, but = "decided", "and what it asks for was decided before"
    if found.worth is not None and not found.worth.pays:
        why, but = "worth", "but a retraining would cost more than staying"
    elif found.regret.says_in_vain:
        why, but = "vain", "but a quick model of newer rows is no better"
    elif asked.settings.when is not None:
        why, but = "when", "which is not all that retrain.when wants, or not new"
    return _skip(
        f"{FALLEN}-{why}", format_time(finding.until), f"the loss is up ({finding.lower:.4f}), {but}", waits
    )


def _waits(found: _Findings, asked: Question) -> str:
    """Say how far what is set is from asking for a retraining, but for the loss."""
    slot = next_slot(asked.settings, last=asked.history.last_change, now=asked.now)
    texts = (
        [f"the schedule's next slot is {format_time(slot)}{local_text(slot, asked.settings)}"] if slot else []
    )
    if found.regret.looks:
        texts.append(f"{_regret_words(found.regret)}, of {found.regret.limit:.1%}")
    texts += [trigger.words for trigger in found.triggers]
    texts += [found.worth.words] if found.worth is not None else []
    if asked.settings.when is not None:
        held = ", ".join(offer.cause for offer in found.offers if offer.kind == "retrain") or "nothing"
        texts.append(f"a retraining wants {asked.settings.when!r}, of which holds: {held}")
    return "; ".join(texts)


def _skip(cause: str, window: str, *reasons: str) -> Choice:
    return Choice("skip", cause, window, tuple(reason for reason in reasons if reason))


def _decision(choice: Choice, workflow: str, now: datetime, *, effort: Effort) -> Decision:
    return Decision(
        id=choice.identity(workflow),
        workflow=workflow,
        kind=choice.kind,
        cause=choice.cause,
        window=choice.window,
        reasons=choice.reasons,
        time=now,
        effort=effort,
    )
