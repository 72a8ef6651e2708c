"""Fits of the user's own models that Ray Train spreads over several processes, in one torch process group.

Each worker makes the object anew and fits it on every n-th row, all on as many; what they share is the
gradient, by `ray.train.torch.prepare_model` or `torch.distributed` in the user's own `fit`. What the first
worker saves is the model.
"""

from __future__ import annotations

import logging
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from raywf.core.niceness import yield_cpu
from raywf.core.own import OwnCode
from raywf.core.store import Store
from raywf.models.family import Model, Problem, Rows
from raywf.models.own import FitPlan, OwnFamily, fit_rung, make_own, read_files, revive, rounds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """How many processes fit a model, what each takes by Ray's names, and the folder that all nodes see."""

    workers: int
    each: dict[str, float]
    folder: str


@dataclass(frozen=True, slots=True)
class TeamFamily(OwnFamily):
    """A model of the user's own whose fits are a team's."""

    team: Team = field(kw_only=True)

    def _fits(
        self,
        problem: Problem,
        rows: Rows,
        params: dict[str, Any],
        *,
        valid: Rows | None,
        rounds: int,
        rungs: tuple[int, ...],
    ) -> Iterator[Model]:
        plan = FitPlan(problem=problem, rounds=rounds, reads_table=self.reads_table)
        work = _Work(code=self.code, params=params, plan=plan, rows=ray.put(rows), valid=ray.put(valid))
        for rung in rungs:
            with self._trained(replace(work, plan=replace(plan, rung=rung))) as (folder, taken):
                work = replace(work, files=read_files(folder))
            assert work.files is not None
            yield revive(self.code, params, problem, work.files, taken, self.reads_table)

    @contextmanager
    def _trained(self, work: _Work) -> Iterator[tuple[Path, int]]:
        """Yield the folder of what the first worker saved, and its rounds.

        Raises:
            Exception: whatever the user's fit raised in a worker.
        """
        # Ray Train and torch take seconds to import, and few searches need them
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import WorkerGroupError

        logging.getLogger("ray.train").setLevel(logging.ERROR)
        store, name = Store(self.team.folder), uuid.uuid4().hex
        trainer = TorchTrainer(
            _work,
            train_loop_config={"work": work},
            scaling_config=ScalingConfig(
                num_workers=self.team.workers,
                use_gpu="GPU" in self.team.each,
                resources_per_worker=self.team.each,
            ),
            run_config=RunConfig(
                name=name,
                storage_path=store.uri(""),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )
        try:
            found = trainer.fit()
            assert found.checkpoint is not None
            with found.checkpoint.as_directory() as folder:
                yield Path(folder), int((found.metrics or {}).get("rounds", 0))
        except WorkerGroupError as err:
            raise next(iter(err.worker_failures.values())) from err
        finally:
            store.remove(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What a worker is told; `rows` and `valid` are object references, `files` are the rung's before."""

    code: OwnCode
    params: dict[str, Any]
    plan: FitPlan
    rows: Any
    valid: Any
    files: dict[str, bytes] | None = None


def _work(config: dict[str, Any]) -> None:
    """Fit this worker's share of the rows, in a worker of Ray Train."""
    from ray import train

    yield_cpu()
    work: _Work = config["work"]
    rows, valid = ray.get([work.rows, work.valid])
    context = train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    share = rows.take(np.arange(rank, len(rows.y) - len(rows.y) % size, size))  # all have as many batches
    made = make_own(work.code, work.params, work.files)
    fit_rung(made, work.plan, share, valid=valid)
    if rank > 0:
        train.report({})
        return
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        made.save(Path(folder))
        train.report({"rounds": rounds_of(made)}, checkpoint=train.Checkpoint.from_directory(folder))
