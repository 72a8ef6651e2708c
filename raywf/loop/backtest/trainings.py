"""Trainings of a backtest, each done once: kept by what went into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from raywf.core.codec import decode, encode
from raywf.core.ids import stable_id
from raywf.core.own import read_code
from raywf.core.records import Bundle, Effort, ModelVersion, Rate, Sweep
from raywf.core.settings import GateSettings, Workflow
from raywf.core.store import Store
from raywf.cost.rate import resolve_rate
from raywf.loop.backtest.past import Past
from raywf.loop.pipeline import FORMAT, FORMER
from raywf.loop.span import choose_part
from raywf.search.run import SearchPlan, run_search


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a search came to, as JSON keeps it; `as_of` is its instant.

    The final model is made whether the gate lets it pass or not: policies without one share it. Its cost is
    at `rate`.
    """

    id: str
    as_of: datetime
    sweep: Sweep
    proof: Bundle
    final: Bundle
    gate_rows: tuple[int, ...]
    maturity_s: float
    final_cpu_s: float = 0.0
    rate: Rate | None = None

    @property
    def refused_cpu_s(self) -> float:
        """CPU-seconds until the gate refuses its proof; then no final model is made."""
        return self.sweep.cpu_s - self.final_cpu_s

    @property
    def refused_usd(self) -> float:
        """What it costs until the gate refuses its proof."""
        return self.sweep.cost_usd * self.refused_cpu_s / self.sweep.cpu_s if self.sweep.cpu_s else 0.0

    def priced(self, rate: Rate) -> Training:
        """Return it at another rate: what its CPUs cost then, and GPUs as much more or less as those."""
        if self.rate is None or rate == self.rate:  # one of before this was kept has none
            return self
        times = rate.usd_per_cpu_hour / self.rate.usd_per_cpu_hour
        trials = tuple(replace(trial, cost_usd=times * trial.cost_usd) for trial in self.sweep.trials)
        sweep = replace(self.sweep, cost_usd=times * self.sweep.cost_usd, trials=trials)
        return replace(self, sweep=sweep, rate=rate)

    def version(
        self, workflow: str, number: str, *, loss: float | None, rows: int, decision_id: str = ""
    ) -> ModelVersion:
        """Return the final model as if it were registered under a number."""
        return ModelVersion(
            workflow=workflow,
            version=number,
            uri=self.final.uri,
            digest=self.final.digest,
            run_id="",
            status="champion",
            snapshot_id=self.final.snapshot_id,
            sweep_id=self.sweep.id,
            code_version="",
            parent=None,
            decision_id=decision_id,
            metrics={},
            loss=loss,
            loss_rows=rows,
            cost_usd=self.sweep.cost_usd,
            created=self.as_of,
            fitted_until=self.final.fitted_until,
        )


class Trainings:
    """Trains on a past as it was known then; what was trained before, by any policy, is taken from a folder.

    A training is a function of the history, its instant, the settings of search and gate, its effort and what
    it starts from: of a refit the members, of a search the trials of the sweeps before it. It is done within
    its `turn`, which may have to be waited for; on a cluster that `grows` nodes may have to be too.
    """

    def __init__(
        self,
        past: Past,
        folder: Path,
        *,
        say: Callable[[str], None],
        turn: Callable[[str], AbstractContextManager[None]],
        grows: bool = False,
    ) -> None:
        self._past, self._store, self._say, self._turn = past, Store(str(folder)), say, turn
        self._grows = grows
        workflow = past.workflow
        self._folder = folder
        self._workflow = replace(workflow, stores=replace(workflow.stores, root=str(folder)))

    def train(
        self,
        instant: datetime,
        *,
        effort: Effort,
        former: tuple[Sweep, ...] = (),
        gate: GateSettings | None = None,
    ) -> Training:
        """Return the training of an instant, made now if it is new; Ray must be initialised then.

        Rows are held for `gate` (default: the workflow's).

        Raises:
            RaywfError: if the rows of that instant are refused, or the search gave nothing.
        """
        former = former[:FORMER]
        effort = effort if former else "full"
        workflow = self._workflow if gate is None else replace(self._workflow, gate=gate)
        identity = self._identity(workflow, instant, effort, former)
        path = f"trainings/{identity}.json"
        if not self._store.exists(path):
            with self._turn(identity):
                if not self._store.exists(path):  # another policy may have had it done meanwhile
                    made = self._search(workflow, identity, instant, effort=effort, former=former)
                    self._store.write(path, json.dumps(encode(made)).encode())
        found = decode(Training, json.loads(self._store.read(path)))
        return found.priced(resolve_rate(workflow.cost))

    def _search(
        self,
        workflow: Workflow,
        identity: str,
        instant: datetime,
        *,
        effort: Effort,
        former: tuple[Sweep, ...],
    ) -> Training:
        snapshot, table = self._past.as_of(instant)
        part = choose_part(workflow, snapshot, table, effort=effort, former=former)
        rate = resolve_rate(workflow.cost)
        plan = SearchPlan(
            sweep_id=identity,
            folder=self._folder / "bundles" / identity,
            former=former,
            effort=effort,
            span=part.span,
            rate=rate,
            grows=self._grows,
        )
        found = part.whole(run_search(workflow, snapshot, part.table, plan=plan))
        self._say(f"trained as of {instant:%Y-%m-%d} ({effort}): {found.sweep.cpu_s:.0f} CPU-s")
        return Training(
            id=identity,
            as_of=instant,
            sweep=found.sweep,
            proof=found.proof,
            final=found.final,
            gate_rows=tuple(found.gate_rows.tolist()),
            maturity_s=snapshot.maturity_s,
            final_cpu_s=found.final_cpu_s,
            rate=rate,
        )

    def _identity(
        self, workflow: Workflow, instant: datetime, effort: Effort, former: tuple[Sweep, ...]
    ) -> str:
        settings, window = workflow.search, workflow.validate.window
        own = [m.code for m in settings.models.values()] + [m.code for m in workflow.metrics.values()]
        members = [[m.trial_id, m.family, m.params, m.weight] for s in former[:1] for m in s.members]
        given: list[Any] = [sweep.id for sweep in former]
        if effort == "refit":
            given = [members, *[sweep.span for sweep in former[:1]]]
        return stable_id(
            FORMAT,
            self._past.digest(instant),
            encode(workflow.spine),
            instant.isoformat(),
            encode(settings),
            encode(workflow.gate),
            workflow.metric,
            [read_code(code).digest for code in own],
            effort,
            given,
            *([str(window)] if window is not None else []),
            *([encode(resolve_rate(workflow.cost))] if settings.max_usd is not None else []),
        )
