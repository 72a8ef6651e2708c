"""The body of a retraining: snapshot, search, gate, register, promote; each stage in the journal."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from raywf.core.clock import format_time
from raywf.core.codec import decode, encode
from raywf.core.errors import (
    BundleError,
    RegistryError,
    SearchError,
    ServingError,
    SettingsError,
    SourceError,
    ValidationError,
)
from raywf.core.ids import stable_id
from raywf.core.journal import ROLLOUT, Journal
from raywf.core.own import read_code
from raywf.core.records import Bundle, Decision, Effort, ModelVersion, Snapshot, Sweep, Trial, Verdict
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.cost.rate import resolve_rate
from raywf.loop.expectations import keep_expectations, make_expectations
from raywf.loop.fresh import fresh_gate, is_fresh
from raywf.loop.judging import Judge, Rows
from raywf.loop.local import may_grow
from raywf.loop.promote import is_serving, promote
from raywf.loop.span import choose_part
from raywf.loop.spending import spent_on
from raywf.loop.unfinished import part_bounds, remembered
from raywf.models.bundle import Predictor, load_bundle
from raywf.registry.registry import Lineage, Registry, code_version, open_registry
from raywf.registry.runs import log_sweep
from raywf.search.budget import taken_before
from raywf.search.ledger import Ledger
from raywf.search.run import SearchPlan, SearchResult, run_search
from raywf.snapshots.build import build_snapshot
from raywf.snapshots.catalog import load_snapshot, read_snapshot

# what another attempt would meet again; a store or an endpoint that is away is not among them
_LASTING = (SettingsError, SourceError, ValidationError, SearchError, BundleError)


FORMER = 6  # sweeps that a new one learns from
Passes = Callable[[Bundle, Rows], bool]
FORMAT = 5  # of what trials keep: a search of another one does not go on with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What hears of progress: a line of text a stage, a record a trial, and the seconds that a search has."""

    stage: Callable[[str], None] = field(default=lambda _text: None)
    trial: Callable[[Trial], None] = field(default=lambda _trial: None)
    bounded: Callable[[float], None] = field(default=lambda _left_s: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """What a retraining came to; `status` is registered on the way, promoted or rejected at its end.

    With a rollout it is challenger, and the controller brings it to its end.
    """

    status: str
    snapshot: Snapshot
    sweep: Sweep
    verdict: Verdict
    version: ModelVersion
    nodes: dict[str, str]


def retrain(workflow: Workflow, decision: Decision, *, listener: Listener | None = None) -> Retraining:
    """Carry a decision to retrain out; Ray must be initialised. Doing it again gives the same version.

    Raises:
        RaywfError: if a step refuses; the journal then has the decision as failed, with the reason.
    """
    journal = Journal(workflow.stores.root, workflow.name)
    journal.decide(decision)
    try:
        resolve_rate(workflow.cost)  # a node type without a price is refused before anything is built
        return _carry_out(workflow, decision, journal, listener=listener or Listener())
    except _LASTING as err:
        figures = spent_on(workflow.stores.root, decision.id)
        journal.record(decision, "failed", reasons=(f"{type(err).__name__}: {err}",), figures=figures)
        raise


def _carry_out(workflow: Workflow, decision: Decision, journal: Journal, *, listener: Listener) -> Retraining:
    registry = open_registry(workflow)
    made = _registered_before(workflow, registry, decision, journal)
    if made is None:
        made = _train(workflow, registry, decision, journal, listener=listener)
    status = _deliver(workflow, registry, decision, version=made.version, verdict=made.verdict)
    listener.stage(f"version {made.version.version}: {status}")
    return replace(made, status=status, version=registry.version(made.version.version))


def _registered_before(
    workflow: Workflow, registry: Registry, decision: Decision, journal: Journal
) -> Retraining | None:
    """Return what a killed attempt has registered for the decision, or None; it has only to be delivered.

    A search would start from another champion and compare the version with itself, had the alias moved.
    """
    root = workflow.stores.root
    gated = journal.stages(decision.id).get("gated")
    version = next((v for v in registry.versions() if v.decision_id == decision.id), None)
    sweep = Ledger(root, version.sweep_id).read_sweep() if version is not None else None
    if gated is None or version is None or sweep is None:
        return None
    return Retraining(
        status="registered",
        snapshot=load_snapshot(Store(root), workflow.name, version.snapshot_id),
        sweep=sweep,
        verdict=decode(Verdict, gated.figures),
        version=version,
        nodes={},
    )


def _train(
    workflow: Workflow, registry: Registry, decision: Decision, journal: Journal, *, listener: Listener
) -> Retraining:
    timed = workflow.spine.event_time is not None
    snapshot = build_snapshot(workflow, as_of=decision.time if timed else None)
    listener.stage(f"snapshot {snapshot.id}: {snapshot.rows:,} rows, {len(snapshot.columns)} features")
    journal.record(decision, "snapshot", figures={"snapshot": snapshot.id, "rows": snapshot.rows})
    table = read_snapshot(snapshot)
    champion = registry.find("champion")
    refuse_few(workflow, snapshot, table, champion)
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:

        def fetch(version: ModelVersion, _folder: Path) -> Path:
            return registry.fetch(version, Path(folder) / "champion")  # once for the two who ask

        def load(version: ModelVersion) -> Predictor:
            bundle = fetch(version, Path(folder))
            return load_bundle(bundle, digest=version.digest, trust=workflow.trusts_own_code)

        passes = Judge(
            workflow, decision, snapshot, table, champion=champion, fetch=fetch, say=listener.stage
        )
        found = search(
            replace(workflow, gate=fresh_gate(workflow, snapshot, table, champion, load=load)),
            snapshot,
            table,
            champion=champion,
            folder=Path(folder),
            listener=listener,
            effort=decision.effort,
            passes=passes,
            decision=decision.id,
        )
        spent = spent_on(workflow.stores.root, decision.id)
        journal.record(decision, "searched", figures=_sweep_figures(found.sweep) | spent)
        verdict = passes.verdict
        block = table.take(pa.array(found.gate_rows))
        made = make_expectations(workflow, snapshot, block, found.proof)
        keep_expectations(Store(workflow.stores.root), found.sweep.id, made)
        journal.record(decision, "gated", reasons=(verdict.reason,), figures=encode(verdict))
        version = _register(
            workflow, registry, decision, listener, found=found, verdict=verdict, champion=champion
        )
    journal.record(decision, "registered", figures={"version": version.version})
    return Retraining(
        status="registered",
        snapshot=snapshot,
        sweep=found.sweep,
        verdict=verdict,
        version=version,
        nodes=found.nodes,
    )


def refuse_few(
    workflow: Workflow, snapshot: Snapshot, table: pa.Table, champion: ModelVersion | None
) -> None:
    """See that the gate will have rows.

    Raises:
        ValidationError: if the snapshot leaves it too few, or too few that the champion has not seen.
    """
    held, needed = int(snapshot.rows * workflow.gate.newest), workflow.gate.min_rows
    if held < needed:
        raise ValidationError(
            f"{snapshot.rows} rows leave {held} for the gate (gate.newest {workflow.gate.newest:g}), which "
            f"needs {needed}; add rows, raise gate.newest or lower gate.min_rows"
        )
    if champion is not None:
        _refuse_seen(workflow, table, champion)


def _refuse_seen(workflow: Workflow, table: pa.Table, champion: ModelVersion) -> None:
    rows, needed = int(is_fresh(table, champion).sum()), workflow.gate.min_rows
    if rows < needed and champion.fitted_until is not None:
        raise ValidationError(
            f"{rows} labelled rows are newer than those of version {champion.version}, which go until "
            f"{format_time(champion.fitted_until)}; the gate needs {needed}: wait for labels, lower "
            f"gate.min_rows or see spine.maturity"
        )


def search_only(
    workflow: Workflow,
    *,
    as_of: datetime | None = None,
    listener: Listener | None = None,
    resumes: bool = False,
) -> SearchResult:
    """Build a snapshot as of an instant (default: now) and search all of it; Ray must be initialised.

    There is no gate and nothing is registered; the trials are runs in MLflow. The bundles are kept in
    ``bundles/<sweep id>`` of the store's root, or on this node where that is an object store.

    Raises:
        RaywfError: if a step refuses.
    """
    listener = listener or Listener()
    resolve_rate(workflow.cost)
    as_of = (as_of or datetime.now(UTC)) if workflow.spine.event_time else None
    with remembered(workflow, as_of, resumes=resumes):
        snapshot = build_snapshot(workflow, as_of=as_of)
        listener.stage(f"snapshot {snapshot.id}: {snapshot.rows:,} rows, {len(snapshot.columns)} features")
        table = read_snapshot(snapshot)
        found = search(
            workflow, snapshot, table, champion=None, listener=listener, hold_gate=False, resumes=resumes
        )
        try:
            _log(workflow, snapshot, found.sweep, listener)
        except RegistryError as err:  # the bundle is there all the same
            listener.stage(f"MLflow has no record of it: {err}")
        return found


def search(
    workflow: Workflow,
    snapshot: Snapshot,
    table: pa.Table,
    *,
    champion: ModelVersion | None,
    folder: Path | None = None,
    listener: Listener,
    hold_gate: bool = True,
    effort: Effort = "full",
    passes: Passes = lambda _proof, _rows: True,
    decision: str = "",
    resumes: bool = False,
) -> SearchResult:
    """Search from where the champion's sweep came to; the same data and settings resume the same sweep.

    An interrupted one goes on within other bounds too. Without a former sweep any effort is a full one. The
    bundles are written below `folder`, or else where those of this sweep lie.
    `passes` says by the proof and the gate's rows whether a final model is wanted. What it takes is noted for
    a `decision`, by its id. One that `resumes` says if there is nothing that it goes on with.
    """
    root = workflow.stores.root
    former = _former_sweeps(root, champion)
    effort = effort if former else "full"
    part = choose_part(workflow, snapshot, table, effort=effort, former=former)
    held = encode(workflow.gate) if hold_gate else None
    sweep_id = _sweep_id(workflow, snapshot.id, [s.id for s in former], held, effort, part.span)
    ledger = Ledger(root, sweep_id)
    before = taken_before(ledger)
    if before.wall_s:
        ended = len(ledger.ended())
        listener.stage(f"search {sweep_id} goes on after {before.wall_s:.0f} s; {ended} trials have ended")
    elif resumes and ledger.read_sweep() is None:
        listener.stage(f"search {sweep_id} begins anew: nothing is kept of one with these settings and rows")
    start = time.time()
    plan = SearchPlan(
        sweep_id=sweep_id,
        folder=folder / "bundles" if folder else ledger.bundles,
        former=former,
        effort=effort,
        span=part.span,
        hold_gate=hold_gate,
        rate=resolve_rate(workflow.cost),
        progress=listener.trial,
        grows=may_grow(workflow),
        say=listener.stage,
        bounded=listener.bounded,
        passes=lambda proof, rows: passes(proof, part.rows(rows)),
        decision=decision,
    )
    found = part.whole(run_search(workflow, snapshot, part.table, plan=plan))
    done = sum(t.status == "done" for t in found.sweep.trials)
    listener.stage(
        f"search {sweep_id}: {workflow.metric} {found.sweep.score:.4f} out of fold, {done} of "
        f"{len(found.sweep.trials)} trials, {len(found.sweep.members)} members, {time.time() - start:.0f} s"
    )
    return found


def _sweep_id(workflow: Workflow, snapshot_id: str, *what: Any) -> str:
    """Return the id of a search, by which it is taken up again, whatever its bounds are now.

    One that has ended within other bounds is not this one, which is the next then.
    """
    root, (settings, bounds) = workflow.stores.root, part_bounds(workflow.search)
    codes = [m.code for m in workflow.search.models.values()] + [m.code for m in workflow.metrics.values()]
    own = [read_code(code).digest for code in codes]
    first = found = stable_id(FORMAT, snapshot_id, settings, own, workflow.metric, *what)
    for number in itertools.count(1):
        ledger = Ledger(root, found)
        if ledger.read_sweep() is None:
            ledger.keep("bounds", bounds)
            break
        if ledger.settled("bounds") == bounds:
            break
        found = stable_id(first, number)
    return found


def _former_sweeps(root: str, champion: ModelVersion | None) -> tuple[Sweep, ...]:
    """Return the champion's sweep, the one that it started from, and so on."""
    found: list[Sweep] = []
    name = champion.sweep_id if champion is not None else None
    while name is not None and len(found) < FORMER:
        sweep = Ledger(root, name).read_sweep()
        if sweep is None:
            break
        found.append(sweep)
        name = sweep.warm_from
    return tuple(found)


def _log(workflow: Workflow, snapshot: Snapshot, sweep: Sweep, listener: Listener) -> str:
    listener.stage(f"{len(sweep.trials)} trials go to MLflow")
    return log_sweep(workflow, snapshot, sweep)


def _register(
    workflow: Workflow,
    registry: Registry,
    decision: Decision,
    listener: Listener,
    *,
    found: SearchResult,
    verdict: Verdict,
    champion: ModelVersion | None,
) -> ModelVersion:
    snapshot = load_snapshot(Store(workflow.stores.root), workflow.name, found.sweep.snapshot_id)
    run_id = _log(workflow, snapshot, found.sweep, listener)
    lineage = Lineage(
        run_id=run_id,
        sweep_id=found.sweep.id,
        decision_id=decision.id,
        code_version=code_version(Store(workflow.stores.root).node_folder.parent),
        parent=champion.version if champion else None,
        cost_usd=found.sweep.cost_usd,
        metrics={workflow.metric: verdict.challenger, f"oof_{workflow.metric}": found.sweep.score},
    )
    return registry.register(found.final, lineage, verdict)


def _deliver(
    workflow: Workflow, registry: Registry, decision: Decision, *, version: ModelVersion, verdict: Verdict
) -> str:
    journal = Journal(workflow.stores.root, workflow.name)
    figures: dict[str, object] = {"version": version.version}
    if verdict.outcome != "accept":
        registry.mark(version.version, "rejected")
        journal.record(decision, "rejected", reasons=(verdict.reason,), figures=figures)
        return "rejected"
    registry.point("challenger", version.version)
    registry.mark(version.version, "challenger")
    if workflow.rollout.mode != "direct" and is_serving(workflow):
        return _roll_out(workflow, decision, version=version, verdict=verdict)
    try:
        report = promote(workflow, registry, version)
    except ServingError as err:
        if _is_champion(registry, version):  # a replica is late; it follows the alias, which has moved
            journal.record(decision, "promoted", reasons=(verdict.reason, str(err)), figures=figures)
            return "promoted"
        registry.mark(version.version, "rejected")
        journal.record(decision, "rejected", reasons=(str(err),), figures=figures)
        return "rejected"
    if report is not None:
        figures |= {
            "prepare_s": report.prepare_s,
            "commit_s": report.commit_s,
            "replicas": len(report.replicas),
        }
    journal.record(decision, "promoted", reasons=(verdict.reason,), figures=figures)
    return "promoted"


def _roll_out(workflow: Workflow, decision: Decision, *, version: ModelVersion, verdict: Verdict) -> str:
    """Ask for a rollout, which the controller begins once none is under way, and carries on."""
    journal = Journal(workflow.stores.root, workflow.name)
    figures = {"version": version.version, "mode": workflow.rollout.mode}
    journal.record(decision, ROLLOUT, reasons=(verdict.reason,), figures=figures)
    return "challenger"


def _is_champion(registry: Registry, version: ModelVersion) -> bool:
    champion = registry.find("champion")
    return champion is not None and champion.version == version.version


def _sweep_figures(sweep: Sweep) -> dict[str, object]:
    return {
        "sweep": sweep.id,
        "effort": sweep.effort,
        "span": sweep.span,
        sweep.metric: sweep.score,
        "trials": len(sweep.trials),
        "members": [f"{m.trial_id}={m.weight:.2f}" for m in sweep.members],
        "spent_s": sweep.spent_s,
        "cpu_s": sweep.cpu_s,
        "cost_usd": sweep.cost_usd,
    }
