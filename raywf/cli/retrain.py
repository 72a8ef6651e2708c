"""`raywf retrain` and `raywf decisions`."""

from __future__ import annotations

import click

from raywf.cli.options import show, table, workflow_options
from raywf.core.audit import Audit
from raywf.core.clock import format_time
from raywf.core.errors import ServingError
from raywf.core.records import JournalEntry
from raywf.core.settings import Workflow


@click.command()
@workflow_options
@click.option("--reason", default="asked for by hand", show_default=True, help="Kept in the journal.")
def retrain(workflow: Workflow, reason: str, *, as_json: bool) -> None:
    """Ask the running system to retrain now, cooldown or not."""
    from raywf.core.journal import Journal
    from raywf.loop.local import cluster_address, find_local

    if find_local(workflow) is None and cluster_address(workflow) is None:
        raise ServingError(
            "nothing is up to retrain; next: raywf serve up, or raywf run for a training by hand"
        )
    request_id = Journal(workflow.stores.root, workflow.name).request(reason)
    Audit(workflow.stores.root, workflow.name).note_command(
        "retrain", {"request": request_id, "reason": reason}
    )
    lines = [f"asked: {request_id}", "watch: raywf decisions"]
    show({"request": request_id}, as_json=as_json, lines=lines)


@click.command()
@workflow_options
@click.argument("decision_id", required=False)
@click.option("--skips", is_flag=True, help="Show why nothing was done instead, and since when.")
def decisions(workflow: Workflow, decision_id: str | None, *, skips: bool, as_json: bool) -> None:
    """Show what was decided, why, and what came of it; with an id, every stage of one decision."""
    from raywf.core.journal import Journal
    from raywf.core.skips import Skips

    if skips and decision_id is not None:
        raise click.UsageError("--skips is of no decision: leave its id out")
    if skips:
        noted = Skips(workflow.stores.root, workflow.name).read()
        told = [(format_time(e.wall_time), format_time(e.time), e.stage, "; ".join(e.reasons)) for e in noted]
        lines = table(["since", "event time", "cause", "reason"], told)
        show(noted, as_json=as_json, lines=lines if told else ["nothing has been left undone"])
        return
    journal = Journal(workflow.stores.root, workflow.name)
    made = [d for d in journal.decisions() if decision_id in {None, d.id}]
    entries: dict[str, list[JournalEntry]] = {d.id: [] for d in made}
    for entry in journal.entries(decision_id):
        entries.get(entry.decision_id, []).append(entry)
    value = [{"decision": d, "stages": entries[d.id]} for d in made]
    rows = [
        (
            d.id,
            format_time(d.time),
            d.kind,
            d.cause,
            entries[d.id][-1].stage if entries[d.id] else "decided",
            d.reasons[0],
        )
        for d in made
    ]
    lines = table(["decision", "event time", "kind", "cause", "stage", "reason"], rows)
    lines = lines if rows else ["no decision yet" if decision_id is None else f"no decision {decision_id!r}"]
    if decision_id:
        for entry in entries.get(decision_id, ()):
            lines += ["", f"{format_time(entry.wall_time)} {entry.stage}: {'; '.join(entry.reasons)}"]
            lines += [f"  {key}: {figure}" for key, figure in entry.figures.items()]
    show(value, as_json=as_json, lines=lines)
