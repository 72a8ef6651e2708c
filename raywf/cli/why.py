"""`raywf why`: one version's story in words, from the alarm to the swap, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from raywf.cli.options import show, workflow_options
from raywf.core.clock import format_time
from raywf.core.journal import ATTRIBUTED, BY_HAND
from raywf.core.probe import Probe
from raywf.core.records import Check, JournalEntry, Sweep, Verdict
from raywf.core.rollout import RolloutStep
from raywf.core.settings import Workflow
from raywf.cost.money import format_usd

if TYPE_CHECKING:
    from raywf.loop.why import Deed, Reign, VersionStory

_CAUSES = {
    "loss": "the champion's loss rose",
    "regret": "looks at newer rows",
    "windows": "several windows were bad",
    "value": "what a prediction earns fell",
    "estimate": "the loss is expected to have risen",
    "drift": "features drifted",
    "schedule": "the schedule",
    "fresh": "newer rows have paid",
    "again": "a refit was refused",
    "growth": "the history has grown",
    "rows": "rows that got labels",
    "age": "the champion's age",
    "data": "new data landed",
    "request": "somebody asked",
    "watch": "the watch",
    BY_HAND: "by hand",
}
_MEMBERS = 6
_WIDTH = 9
Part = tuple[str, Sequence[str]]


@click.command()
@workflow_options
@click.argument("version", default="champion")
def why(workflow: Workflow, version: str, *, as_json: bool) -> None:
    """Tell why VERSION (a number or an alias; default: the champion) came to be, and what became of it."""
    from raywf.loop.why import tell_version

    story = tell_version(workflow, version)
    show(story, as_json=as_json, lines=tell(story))


def tell(story: VersionStory) -> list[str]:
    """Return the story as lines, each part under its name; what is not known any more is left out."""
    version = story.version
    named = f" ({', '.join(version.aliases)})" if version.aliases else ""
    lines = [f"version {version.version} of {version.workflow}: {version.status}{named}", ""]
    for name, texts in _parts(story):
        lines += [f"{name if i == 0 else '':<{_WIDTH}}{text}" for i, text in enumerate(texts)]
    return lines


def _parts(story: VersionStory) -> Iterator[Part]:
    yield "looks", [_look(look) for look in story.looks]
    if story.made_by is not None:
        yield "alarm", _alarm(story.made_by)
        yield "job", _job(story.made_by)
    yield "data", _data(story)
    yield (
        "search",
        [f"sweep {story.version.sweep_id}, whose files are gone"]
        if story.sweep is None
        else (_search(story.sweep)),
    )
    if story.verdict is not None:
        yield "gate", _gate(story.verdict)
    yield "version", _registered(story)
    yield "rollout", [_step(step) for step in story.rollout]
    yield "swap", _swap(story.made_by)
    for deed in story.deeds:
        yield "then", _deed(deed)
    yield "served", [_reign(reign) for reign in story.reigns] or ["never as champion"]
    yield "cost", _cost(story)


def _look(look: Probe) -> str:
    return (
        f"{_at(look.time)}: version {look.version} loses {look.champion:.4f}, a quick model of newer rows "
        f"{look.quick:.4f}: {look.regret:+.1%} (+-{1.96 * look.regret_error:.1%}) on {look.rows:,} rows"
    )


def _alarm(deed: Deed) -> list[str]:
    decision = deed.decision
    cause = _CAUSES.get(decision.cause, decision.cause)
    head = f"{_at(decision.time)}: retrain ({decision.effort}): {cause}; decision {decision.id}"
    fall = [reason for entry in deed.stages if entry.stage == ATTRIBUTED for reason in entry.reasons]
    return [head, *decision.reasons, *fall]


def _job(deed: Deed) -> list[str]:
    lines = []
    for entry in deed.stages:
        if entry.stage.startswith("submitted-"):
            lines.append(f"{_at(entry.wall_time)}: {entry.figures.get('job', '?')} submitted")
        elif entry.stage.startswith("lost-"):
            lines.append(f"{_at(entry.wall_time)}: {'; '.join(entry.reasons)}")
    return lines or ["none: the command that decided it did it"]


def _data(story: VersionStory) -> list[str]:
    snapshot = story.snapshot
    if snapshot is None:
        return [f"snapshot {story.version.snapshot_id}, which is gone"]
    as_of = f", as of {_at(snapshot.as_of)}" if snapshot.as_of else ""
    head = f"snapshot {snapshot.id}: {snapshot.rows:,} rows, {len(snapshot.columns)} features{as_of}"
    return [head, *(f"warning: {text}" for text in snapshot.warnings)]


def _search(sweep: Sweep) -> list[str]:
    counted = Counter(trial.status for trial in sweep.trials)
    statuses = ", ".join(f"{counted[s]} {s}" for s in ("done", "stopped", "failed") if counted[s])
    members = sorted(sweep.members, key=lambda m: -m.weight)
    shown = ", ".join(f"{m.trial_id} {m.weight:.2f}" for m in members[:_MEMBERS])
    more = f" and {len(members) - _MEMBERS} more" if len(members) > _MEMBERS else ""
    former = f"; started from sweep {sweep.warm_from}" if sweep.warm_from else ""
    return [
        f"sweep {sweep.id} ({sweep.effort}{_span(sweep)}): {sweep.metric} {sweep.score:.4f} out of fold, "
        f"{sweep.spent_s:.0f} s of {sweep.budget_s:.0f} s",
        f"trials: {statuses or 'none'}{former}",
        f"ensemble: {shown}{more}{', calibrated' if sweep.calibrated else ''}",
    ]


def _span(sweep: Sweep) -> str:
    named = {"half": "the newest half", "quarter": "the newest quarter", "aging": "old rows counting less"}
    return f", {named[sweep.span]}" if sweep.span in named else ""


def _gate(verdict: Verdict) -> list[str]:
    scores = f"{verdict.metric} {verdict.challenger:.4f} beside {verdict.champion:.4f} of {verdict.against}"
    head = f"{verdict.outcome}: {scores}, on {verdict.rows:,} rows that neither had seen"
    return [head, verdict.reason, *map(_check, verdict.checks)]


def _check(check: Check) -> str:
    held = "held" if check.passed else "not held"
    note = f" ({check.note})" if check.note else ""
    interval = f"{check.low:.4g} to {check.high:.4g}"
    return f"  {check.name}: {check.figure:.4g} ({interval}), bound {check.bound:.4g}: {held}{note}"


def _registered(story: VersionStory) -> list[str]:
    version = story.version
    parent = f", after version {version.parent}" if version.parent else ", the first"
    until = f"; fitted on rows until {_at(version.fitted_until)}" if version.fitted_until else ""
    return [f"registered {_at(version.created)}{parent}, code {version.code_version}{until}"]


def _step(step: RolloutStep) -> str:
    beside = f"{step.mode} of version {', '.join(step.challengers)} beside {step.champion}"
    state = f"{step.stage}{', paused' if step.paused else ''}, {step.share:.0%} of the traffic"
    reasons = f": {'; '.join(step.reasons)}" if step.reasons else ""
    return f"{_at(step.wall_time)}: {beside}: {state}{reasons}"


def _swap(deed: Deed | None) -> list[str]:
    """Say how the decision that made the version ended."""
    ends = ("promoted", "rejected", "failed")
    return [_ended(e) for e in (deed.stages if deed is not None else ()) if e.stage in ends]


def _ended(entry: JournalEntry) -> str:
    figures = entry.figures
    took = ""
    if "prepare_s" in figures:
        took = f", {figures['replicas']} replicas made ready in {figures['prepare_s']:.2f} s and moved in "
        took += f"{figures['commit_s'] * 1000:.0f} ms"
    return f"{_at(entry.wall_time)}: {entry.stage}{took}: {'; '.join(entry.reasons)}"


def _deed(deed: Deed) -> list[str]:
    cause = _CAUSES.get(deed.decision.cause, deed.decision.cause)
    head = f"{_at(deed.decision.time)}: {deed.decision.kind}, {cause}: {'; '.join(deed.decision.reasons)}"
    return [head, *(f"  {_ended(entry)}" for entry in deed.stages)]


def _reign(reign: Reign) -> str:
    if reign.end is None:
        return f"as champion since {_at(reign.start)}"
    return f"as champion from {_at(reign.start)} to {_at(reign.end)}, then version {reign.successor}"


def _cost(story: VersionStory) -> list[str]:
    parts, looks = story.cost, []
    if story.looks:
        what = "the look" if len(story.looks) == 1 else f"{len(story.looks)} looks"
        looks = [f"{sum(look.cpu_s for look in story.looks):.1f} CPU-seconds for {what}"]
    if not parts.usd:
        return [f"{format_usd(story.version.cost_usd)} for the search", *looks]
    named = ("done", "stopped", "failed", "idle", "unfinished")
    shares = ", ".join(f"{n} {getattr(parts, n) / parts.usd:.0%}" for n in named if getattr(parts, n) > 0)
    cpu_s = f", {story.sweep.cpu_s:,.0f} CPU-seconds" if story.sweep is not None else ""
    return [f"{format_usd(parts.usd)} for the search ({shares}){cpu_s}", *looks]


def _at(value: datetime) -> str:
    return format_time(value.replace(microsecond=0))
