"""A rollout brings a challenger to live traffic step by step; a step is written once, the last one holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from raywf.core.codec import decode, encode
from raywf.core.errors import ServingError
from raywf.core.store import Store

Mode = Literal["shadow", "canary", "ab", "watch"]
Stage = Literal["shadow", "canary", "ab", "watch", "promoted", "rolled_back", "aborted", "kept"]
OVER = frozenset({"promoted", "rolled_back", "aborted", "kept"})


@dataclass(frozen=True, slots=True)
class Part:
    """A row's part in a rollout.

    `step` is the step's tag, `took_us` what the model that answered took for the row in microseconds;
    `failed` says that the challenger should have answered and could not, so that the champion did.
    """

    step: str
    took_us: float = 0.0
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAnswer:
    """What a shadow would have answered to the prediction of the same id; no scores where it failed."""

    id: str
    time: datetime
    version: str
    scores: tuple[float, ...]
    part: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStep:
    """How a rollout stands from `time` on (event time; `wall_time` is the wall's).

    `share` of the traffic is the challenger's; of several challengers (a shadow's) each sees all.
    In a watch the challenger is champion already and has all of it; the former one, `champion`, sees it too.
    A step that is `paused` holds as it is until somebody goes on or aborts. Rows that were answered since the
    step `since` tell: a pause does not end what is being looked at.
    """

    rollout: str
    number: int
    mode: Mode
    stage: Stage
    champion: str
    challengers: tuple[str, ...]
    share: float
    time: datetime
    wall_time: datetime
    since: int = 1
    paused: bool = False
    decision_id: str = ""
    reasons: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """What the log calls the step and those since it with the same shares."""
        return f"{self.rollout}:{self.since:06d}"

    @property
    def serves(self) -> str:
        """The version that the registry's alias names while the step is under way."""
        return self.challengers[0] if self.mode == "watch" else self.champion

    @property
    def is_over(self) -> bool:
        """Whether this was the last step."""
        return self.stage in OVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums of a figure in [0, 1] over the labelled rows of one window of event time."""

    labelled: int
    loss_sum: float
    loss_squares: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """How one version did in a rollout's step.

    `rows` are those it answered, live or as a shadow, and `failed` those it should have answered and could
    not; `took_us` are the median and the 95th percentile of a row's time where it answered live, in
    microseconds, and `value_mean` what its live rows earned. Of many rows one in `one_in` is looked at.
    """

    version: str
    rows: int = 0
    failed: int = 0
    live: int = 0
    one_in: int = 1
    took_us: tuple[float, float] | None = None
    value_mean: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePairs:
    """The pairs of the rows with one value of one column."""

    column: str
    value: str
    pairs: tuple[Tally, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """One challenger beside the champion on the same rows of one step.

    A pair is a row that both answered and whose label is known; its figure is half of one plus the
    challenger's bounded loss less the champion's: above a half the challenger is worse.
    """

    champion: Side
    challenger: Side
    pairs: tuple[Tally, ...] = ()
    slices: tuple[SlicePairs, ...] = ()

    @property
    def labelled(self) -> int:
        """The number of pairs."""
        return sum(t.labelled for t in self.pairs)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """One workflow's rollouts below ``rollouts/<workflow>``; any process may read and write them.

    A step has a number and is written once: of two processes that would go on from the same step, one does.
    """

    root: str
    workflow: str

    def start(
        self,
        mode: Mode,
        *,
        champion: str,
        challengers: Sequence[str],
        share: float,
        time: datetime,
        decision_id: str = "",
        reasons: Sequence[str] = (),
    ) -> RolloutStep:
        """Write a rollout's first step; a decision's is started once.

        Raises:
            ServingError: if another rollout is under way.
        """
        latest = self.latest()
        if latest is not None and decision_id and latest.decision_id == decision_id:
            return latest
        if latest is not None and not latest.is_over:
            raise ServingError(
                f"a rollout of version {', '.join(latest.challengers)} is under way ({latest.stage}); "
                "end it first: raywf rollout abort"
            )
        step = RolloutStep(
            rollout=f"{1 if latest is None else int(latest.rollout) + 1:06d}",
            number=1,
            mode=mode,
            stage=mode,
            champion=champion,
            challengers=tuple(challengers),
            share=share,
            time=time,
            wall_time=datetime.now(UTC),
            decision_id=decision_id,
            reasons=tuple(reasons),
        )
        if not self._write(step):
            raise ServingError("another rollout was started at the same moment; look at raywf rollout status")
        return step

    def follow(self, step: RolloutStep, **changes: Any) -> RolloutStep | None:
        """Write the step after `step`, the same but for the changes; return None if there is one already."""
        number = step.number + 1
        since = number if changes.get("share", step.share) != step.share else step.since
        new = dataclasses.replace(step, number=number, since=since, wall_time=datetime.now(UTC), **changes)
        return new if self._write(new) else None

    def pause(self, step: RolloutStep, *, paused: bool, now: datetime, reason: str) -> RolloutStep | None:
        """Write that a step holds, or goes on at `now` (event time); as `follow`.

        Raises:
            ServingError: if it does already.
        """
        if step.paused == paused:
            raise ServingError(f"the rollout is {'paused' if paused else 'not paused'} already")
        return self.follow(
            step, paused=paused, time=step.time if paused else now, reasons=(reason,), figures={}
        )

    def latest(self) -> RolloutStep | None:
        """Return the last step of the newest rollout, or None where there never was one."""
        names = Store(self.root).list(self._folder)
        return self._read(names[-1]) if names else None

    def steps(self, rollout: str | None = None) -> tuple[RolloutStep, ...]:
        """Return all steps, oldest first; with an id those of one rollout."""
        names = Store(self.root).list(self._folder)
        return tuple(self._read(n) for n in names if rollout is None or n.startswith(f"{rollout}."))

    def _write(self, step: RolloutStep) -> bool:
        path = f"{self._folder}/{step.rollout}.{step.number:06d}.json"
        return Store(self.root).create(path, json.dumps(encode(step), indent=1).encode())

    def _read(self, name: str) -> RolloutStep:
        return decode(RolloutStep, json.loads(Store(self.root).read(f"{self._folder}/{name}")))

    @property
    def _folder(self) -> str:
        return f"rollouts/{self.workflow}"
