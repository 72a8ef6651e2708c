"""What a policy must know of the journal: decisions with the stage they reached, promotions, looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from raywf.core.codec import decode
from raywf.core.journal import BY_HAND, FINAL, LOOKED
from raywf.core.probe import Probe
from raywf.core.records import Decision, JournalEntry, ModelVersion, Verdict
from raywf.loop.landed import Landed
from raywf.policy.history import History, PastDecision


def past_decisions(
    decisions: Sequence[Decision], entries: Sequence[JournalEntry]
) -> tuple[PastDecision, ...]:
    """Return the decisions with the last stage and the cost of each; entries are in the wall's order of time.

    A retraining whose version was taken back counts as rejected. It cost what all attempts of its searches
    did, those of jobs that were lost or failed too.
    """
    back = {d.id for d in decisions if d.kind == "rollback"}
    last: dict[str, str] = {}
    usd = defaultdict[str, float](float)
    made: dict[str, str] = {}  # which decision's version became champion
    better = {e.decision_id for e in entries if e.stage == "gated" and decode(Verdict, e.figures).is_better}
    stopped = {e.decision_id for e in entries if e.stage == "failed" and e.figures.get(BY_HAND)}
    for entry in entries:
        told = (float(entry.figures.get(name, 0.0)) for name in ("cost_usd", "spent_usd"))
        usd[entry.decision_id] = max(usd[entry.decision_id], *told)
        if last.get(entry.decision_id) not in FINAL:  # what an orphaned attempt adds changes nothing
            last[entry.decision_id] = entry.stage
        if entry.stage == "promoted" and entry.decision_id in back:
            last[made.get(str(entry.figures.get("failed")), "")] = "rejected"
        elif entry.stage == "promoted" and "version" in entry.figures:
            made[str(entry.figures["version"])] = entry.decision_id
    return tuple(
        PastDecision(
            decision=d,
            stage=last.get(d.id, "decided"),
            usd=usd[d.id],
            is_stopped=d.id in stopped,
            is_better=d.id in better,
        )
        for d in decisions
    )


def history_of(
    past: tuple[PastDecision, ...],
    entries: Sequence[JournalEntry],
    champion: ModelVersion,
    *,
    requests: Mapping[str, str],
    landed: Landed | None = None,
) -> History:
    """Return what the policy is told while no retraining runs; requests come oldest first, with reasons."""
    retrainings = [p for p in past if p.decision.kind == "retrain"]
    answered = {p.decision.window for p in retrainings}
    made_by = next((p.decision for p in retrainings if p.decision.id == champion.decision_id), None)
    return History(
        champion=champion,
        since=made_by.time if made_by else champion.fitted_until,
        decisions=past,
        running=False,
        last_retrain=max((p.decision.time for p in retrainings if not p.has_failed), default=None),
        requests={r: why for r, why in requests.items() if r not in answered},
        probes=tuple(decode(Probe, e.figures) for e in entries if e.stage == LOOKED),
        landed="" if landed is None else landed.id,
        landed_in=() if landed is None else landed.tables,
    )
