"""A new version on its way into production, in simulated time: who answers which row, and what follows.

The rollout's lanes, duels and moves are the running system's. What only a running system shows, the time that
a row takes, failures and memory, is not played back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.records import ColumnProfile, Decision, ModelVersion, Outcome, Prediction, Sweep
from raywf.core.rollout import Mode, Part, RolloutStep, ShadowAnswer
from raywf.core.serving_settings import RolloutSettings
from raywf.models.bundle import Predictor
from raywf.monitor.duels import DuelFold
from raywf.monitor.reference import KnownReferences, Reference
from raywf.policy.rollout import Move, judge_rollout
from raywf.serving.lanes import lane_of

_LOOKS = 24  # at a rollout between two chances to decide, where the running system looks each second


@dataclass(slots=True)
class Live:
    """A version that answers or may: its model, the sweeps that it comes from, and since when it counts."""

    version: ModelVersion
    predictor: Predictor
    sweeps: tuple[Sweep, ...]
    since: datetime
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A retraining that passed the gate: what is to be noted of it once its rollout is over."""

    decision: Decision
    reason: str
    cpu_s: float
    cost_usd: float
    is_better: bool = False


class Staged:
    """A rollout that is under way, or the watch of a version that has just become champion."""

    def __init__(
        self,
        mode: Mode,
        settings: RolloutSettings,
        *,
        number: int,
        champion: Live,
        challenger: Live,
        profile: Sequence[ColumnProfile],
        now: datetime,
        made: Made,
    ) -> None:
        self.champion, self.challenger, self.made = champion, challenger, made
        self._settings = settings
        self.step = RolloutStep(
            rollout=f"{number:06d}",
            number=1,
            mode=mode,
            stage=mode,
            champion=champion.version.version,
            challengers=(challenger.version.version,),
            share=1.0 if mode == "watch" else settings.first_share,
            time=now,
            wall_time=now,
        )
        self._texts = [p.name for p in profile if p.kind == "category"]
        told = tuple(p for p in profile if p.kind == "category")
        references = {
            one.version.version: replace(one.reference, profile=told) for one in (champion, challenger)
        }
        self._outcomes: dict[str, Outcome] = {}
        self._duels = DuelFold(KnownReferences(references), self._outcomes.get)

    @property
    def is_watch(self) -> bool:
        """Whether the challenger is champion already."""
        return self.step.mode == "watch"

    def next_look(self, now: datetime, *, start: datetime, end: datetime) -> datetime:
        """Return when to look next after `now`, of the time from one chance to decide to the other."""
        length = self._settings.watch if self.is_watch else self._settings.bake
        due = self.step.time + length
        grain = max(timedelta(microseconds=1), (end - start) / _LOOKS)
        return min(end, now + grain, due if due > now else end)

    def lanes(self, ids: Sequence[str], table: pa.Table) -> NDArray[np.bool_]:
        """Return which rows the challenger answers; a row's lane follows from its key as in the endpoint."""
        share, key = self.step.share, self._settings.key
        if share in {0.0, 1.0}:
            return np.full(len(ids), share == 1.0)
        keys: Sequence[object] = ids
        if key is not None and key in table.column_names:
            values = table.column(key).to_pylist()
            keys = [i if value is None else value for i, value in zip(ids, values, strict=True)]
        return np.array([lane_of(self.step.rollout, str(one)) < share for one in keys])

    def see(
        self,
        ids: Sequence[str],
        times: Sequence[datetime],
        table: pa.Table,
        *,
        theirs: NDArray[np.bool_],
        scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        """Take in what champion and challenger, in this order, said to rows; `theirs` the latter answered."""
        part = Part(self.step.tag)
        names = (self.champion.version.version, self.challenger.version.version)
        texts = table.select([n for n in self._texts if n in table.column_names]).to_pylist()
        said = zip(ids, times, texts, theirs.tolist(), *(s.tolist() for s in scores), strict=True)
        for one, time, features, is_theirs, *pair in said:
            live, shadow = int(is_theirs), int(not is_theirs)
            answers: tuple[Prediction, ShadowAnswer] = (
                Prediction(
                    id=one,
                    time=time,
                    version=names[live],
                    features=features,
                    scores=tuple(pair[live]),
                    part=part,
                ),
                ShadowAnswer(id=one, time=time, version=names[shadow], scores=tuple(pair[shadow]), part=part),
            )
            self._duels.update(answers)

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """Take in labels that became known."""
        self._outcomes.update((outcome.id, outcome) for outcome in outcomes)

    def judge(self, now: datetime) -> Move:
        """Return the policy's move at `now`; a new share of the traffic is given at once."""
        length = self._settings.watch if self.is_watch else self._settings.bake
        duels = self._duels.duels(self.step, length, now)
        move = judge_rollout(self.step, duels, self._settings, now=now)
        if move.stage == self.step.stage and move.share != self.step.share:
            number = self.step.number + 1
            self.step = replace(self.step, number=number, since=number, share=move.share, time=now)
        return move
