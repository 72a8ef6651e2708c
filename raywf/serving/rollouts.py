"""A replica's part in a rollout: it reads the present step, loads what the step names, and takes its lane."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from raywf.core.errors import BundleError, RaywfError
from raywf.core.records import ModelVersion
from raywf.core.rollout import Rollouts, RolloutStep
from raywf.core.source import ModelSource
from raywf.serving.cache import BundleCache, LoadedModel, rss_mb
from raywf.serving.lanes import Answered, Lanes
from raywf.serving.shadow import Copies, ShadowQueue, Worker
from raywf.serving.slots import ModelSlots

_TIMED_ROWS = 16

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """What a replica says of a rollout.

    `step` is the tag of the step that it carries out, if any; `ok` is False where it cannot, for `reason`.
    `copied` and `dropped` count rows for shadows since the rollout began, `growth_mb` is how much its memory
    has grown since it took part. In a watch `row_us` is what the former and the new champion take for a
    reference row, in microseconds, in turns.
    """

    replica: str
    ok: bool
    step: str = ""
    reason: str = ""
    copied: int = 0
    dropped: int = 0
    growth_mb: float = 0.0
    row_us: tuple[float, float] | None = None


class RolloutFollower:
    """Keeps `lanes` as the newest rollout's last step says; None while the champion answers alone.

    `start_worker` makes what answers copies for the versions that it is given.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        source: ModelSource,
        cache: BundleCache,
        slots: ModelSlots,
        *,
        start_worker: Callable[[Sequence[ModelVersion]], Worker],
        key: str | None = None,
    ) -> None:
        self._rollouts, self._source, self._cache, self._slots = rollouts, source, cache, slots
        self._start_worker, self._key = start_worker, key
        self._changing = threading.Lock()
        self._shadows: ShadowQueue | None = None
        self._refused: dict[str, str] = {}  # rollouts that cannot be taken part in, and why
        self._unwatched: dict[str, str] = {}  # watches whose former champion cannot be had, and why
        self._row_us: tuple[float, float] | None = None
        self._began_mb = 0.0
        self.lanes: Lanes | None = None

    def converge(self) -> LaneStatus:
        """Look at the newest rollout, and take its present step up, or end what is over.

        Raises:
            RaywfError: if a version cannot be looked up or fetched now.
        """
        if not self._changing.acquire(blocking=False):  # another thread is at it
            return self._status()
        try:
            step = self._rollouts.latest()
            if step is None or step.is_over or step.serves != self._slots.active.version.version:
                self._end()
                return self._status()
            reason = self._refused.get(step.rollout)
            if reason is None:
                try:
                    self._take(step)
                except BundleError as err:
                    self._end()
                    reason = self._refused[step.rollout] = str(err)
            if reason is not None:
                return self._status(reason, ok=False)
            return self._status(self._unwatched.get(step.rollout, ""))
        finally:
            self._changing.release()

    def copy(self, answered: Sequence[Answered]) -> None:
        """Give rows to the versions of the rollout that did not answer them; never waits."""
        lanes, shadows = self.lanes, self._shadows
        if lanes is None or shadows is None:
            return
        for group in answered:
            took_part = {group.model.version.version}
            if group.part is not None and group.part.failed:
                took_part |= set(lanes.step.challengers)
            versions = (lanes.step.champion, *lanes.step.challengers)
            others = tuple(version for version in versions if version not in took_part)
            if others:
                shadows.offer(lanes.step.tag, Copies(group.rows, others))

    def counts(self) -> tuple[int, int]:
        """Return the rows that shadows answered since the rollout began, and those dropped."""
        shadows = self._shadows
        return (0, 0) if shadows is None else (shadows.copied, shadows.dropped)

    def close(self) -> None:
        """End what runs beside the replica."""
        with self._changing:
            self._end()

    def _take(self, step: RolloutStep) -> None:
        lanes, champion = self.lanes, self._slots.active
        if step.mode == "watch":
            champion.predictor.check_reference()
        if lanes is not None and lanes.step.rollout == step.rollout:
            self.lanes = Lanes(step, lanes.champion, lanes.challenger, self._key)
            self._row_us = _row_us(lanes.champion, champion) if step.mode == "watch" else None
            return
        self._end()
        if step.mode == "watch":
            self._take_watch(step)
            return
        if self._key is not None and all(c.name != self._key for c in champion.predictor.bundle.columns):
            raise BundleError(f"rollout.key {self._key!r} is not a feature of version {step.champion}")
        models = [self._load(name, champion) for name in step.challengers]
        self._open(step, champion, models, live=models[0] if step.mode != "shadow" else None)

    def _take_watch(self, step: RolloutStep) -> None:
        """Let the former champion see what the new one answers; where it cannot be had, go without."""
        former, champion = self._slots.previous, self._slots.active
        if step.rollout in self._unwatched:
            return
        try:
            if former is None or former.version.version != step.champion:
                former = self._cache.load(self._source.version(step.champion))
        except BundleError as err:
            self._unwatched[step.rollout] = f"version {step.champion} cannot be had, no harm is seen: {err}"
            return
        self._open(step, former, [champion], live=champion)

    def _open(
        self,
        step: RolloutStep,
        champion: LoadedModel,
        others: Sequence[LoadedModel],
        *,
        live: LoadedModel | None,
    ) -> None:
        self._began_mb = rss_mb()
        self._shadows = ShadowQueue(partial(self._start_worker, [m.version for m in (champion, *others)]))
        self.lanes = Lanes(step, champion, live, self._key)

    def _load(self, name: str, champion: LoadedModel) -> LoadedModel:
        model = self._cache.load(self._source.version(name))
        missing = set(model.predictor.bundle.columns) - set(champion.predictor.bundle.columns)
        if missing:
            names = ", ".join(sorted(repr(column.name) for column in missing))
            raise BundleError(f"version {name} reads what requests need not have: {names}")
        return model

    def _end(self) -> None:
        self.lanes = self._row_us = None
        shadows, self._shadows = self._shadows, None
        if shadows is not None:
            shadows.close()

    def _status(self, reason: str = "", *, ok: bool = True) -> LaneStatus:
        lanes, shadows = self.lanes, self._shadows
        grown = rss_mb() - self._began_mb if lanes is not None else 0.0
        return LaneStatus(
            replica=self._slots.replica,
            ok=ok,
            step=lanes.step.tag if lanes is not None else "",
            reason=reason or (shadows.problem if shadows is not None else ""),
            copied=shadows.copied if shadows is not None else 0,
            dropped=shadows.dropped if shadows is not None else 0,
            growth_mb=max(0.0, grown),
            row_us=self._row_us,
        )


def _row_us(former: LoadedModel, champion: LoadedModel) -> tuple[float, float] | None:
    """Return both median times for some of the champion's reference rows; None if one cannot answer."""
    times: tuple[list[float], list[float]] = ([], [])
    for row in champion.predictor.reference_rows()[:_TIMED_ROWS]:
        for model, took in zip((former, champion), times, strict=True):
            start = time.perf_counter()
            try:
                model.predictor.predict_row(row)
            except Exception:  # noqa: BLE001 whatever a model raises, there is then no time to compare
                return None
            took.append(1e6 * (time.perf_counter() - start))
    return (median(times[0]), median(times[1])) if times[0] else None


def follow_rollouts(follower: RolloutFollower, stop: threading.Event, *, every_s: float) -> None:
    """Converge again and again until `stop` is set; meant for a daemon thread."""
    while not stop.wait(every_s):
        try:
            follower.converge()
        except (RaywfError, OSError) as err:
            _logger.info("the rollout cannot be looked at, all stays as it is: %s", err)
        except Exception:  # this thread must outlive whatever a registry's client raises
            _logger.exception("taking part in a rollout failed, all stays as it is")
