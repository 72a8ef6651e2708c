"""What Tune asks for the next trials: the portfolio in order, then draws from spaces, and neighbours."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from raywf.core.codec import encode
from raywf.core.records import Trial
from raywf.core.settings import SearchSettings
from raywf.core.space import Space, parse_space
from raywf.models.families import is_family
from raywf.search.hold import Hold
from raywf.search.pace import Pace, fit_seconds
from raywf.search.portfolio import neighbour
from raywf.search.studies import Studies

_PATIENCE = 1.5  # a trial begins if it is likely to end within so many times the time left
_NEIGHBOURS_AFTER = 3  # finished trials that neighbours are chosen beside
QUICK_S = 0.5  # trials that take less are handed out together, to take so long:
_LEAST_HAND_S, _HAND_S = 0.5, 4.0
_FIRST, _MANY, _SLOTS = 9, 4, 8  # more in a first hand, where so many times the slots wait, which are so many
_SERVE_S = 0.015  # that a hand takes the driver, which serves one slot after the other
_KNOWN = 40  # of a family's last trials, which tell what the next ones take


@dataclass(frozen=True, slots=True, kw_only=True)
class Spaces:
    """What trials are drawn from by family: at most `most` of one; `base` are parameters that stay."""

    spaces: Mapping[str, Space] = field(default_factory=dict)
    base: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    most: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    """Which trials, within what: `most` in all, none begun after `deadline`; folds of `fold_rows` rows.

    Once trials are done, all those in `sure` among them, `until` says by them when all are to end, at the
    `latest` possible. Those in `sure` are handed out before it however long they are. `ended`
    are the trials that an interrupted search has finished or given up; `slots` is how many run at once. On a
    cluster that `grows` no worker is asked for beyond them, not even while another ends.
    """

    trials: tuple[Trial, ...]
    fold_rows: tuple[int, ...]
    most: int
    deadline: float
    seed: int
    slots: int = 1
    grows: bool = False
    sure: frozenset[str] = frozenset()
    latest: float = float("inf")
    until: Callable[[Sequence[Trial]], float] | None = None
    pace: Pace | None = None
    more: bool = True
    drawn: Spaces = field(default_factory=Spaces)
    ended: tuple[Trial, ...] = ()


class TrialQueue(Searcher):  # type: ignore[misc]
    """Hands trials out in order; one that the time left is too short for is passed over.

    Trials of a family whose former ones took but a moment are handed out several at a time: a slot's share of
    what is left and under way, less what such a share may take longer by the spread of former trials, so that
    all slots end together with few hands (after factoring, Hummel, Schonberg and Flynn, 1992); all of it
    where that is less than the driver takes to serve every slot once more. Of a family
    with very many trials and none known yet the first hands are of a few, and a worker returns those that it
    did not begin within half a second, the next one a little later: the driver serves one after the other.
    `handed` are the trials that were begun, in order; `rungs` are losses at rungs of those that have ended.
    """

    def __init__(
        self,
        plan: QueuePlan,
        *,
        hold: Hold | None = None,
        rungs: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        super().__init__(metric="loss", mode="min")
        self._plan, self._hold = plan, hold
        self.handed: dict[str, Trial] = {t.id: t for t in plan.ended}
        self._waiting = [t for t in plan.trials if t.id not in self.handed]
        self._running: dict[str, list[Trial]] = {}
        self._ends: dict[str, float] = {}  # when hands of quick trials are likely to end
        self._slices: dict[str, float] = {}  # seconds of first hands, after which the rest comes back
        self._again: list[Trial] = []
        self._done: list[Trial] = []
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._until = (0, plan.deadline)  # by so many trials that are done
        self._missing = set(plan.sure)
        wanted = {t.id for t in plan.trials}
        self._shaken, self._turn = sum(t.id not in wanted for t in plan.ended), 0
        drawn = plan.drawn
        self._studies = Studies(drawn.spaces, base=drawn.base, seed=plan.seed) if drawn.spaces else None
        for trial in plan.ended:
            reached = (rungs or {}).get(trial.id, ())
            self._learn(trial, rungs={len(reached): reached[-1]} if reached else {})

    @property
    def deadline(self) -> float:
        """When trials are to end by what is known now."""
        plan, count = self._plan, len(self._done)
        if self._is_foreseen and count != self._until[0]:
            assert plan.until is not None
            self._until = count, min(plan.latest, plan.until(self._done))
        return self._until[1]

    @property
    def _is_foreseen(self) -> bool:
        return self._plan.until is not None and bool(self._done) and not self._missing

    def suggest(self, trial_id: str) -> Any:
        if self._hold is not None and self._hold.is_full:
            return None
        found = self._suggest(trial_id)
        if self._hold is not None:
            self._hold.begin() if isinstance(found, dict) else self._hold.run_dry()
        return found

    def _suggest(self, trial_id: str) -> Any:
        if self.handed and time.time() > self.deadline:
            return Searcher.FINISHED
        if self._again:
            return self._hand(trial_id, [self._again.pop(0)])
        trial = self._next() if len(self.handed) < self._plan.most else None
        if trial is not None:
            return self._hand(trial_id, [trial, *self._others(trial)])
        return None if self._running and self._waits() else Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._take_back(trial_id, result.get("returned", ()))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._take_back(trial_id, (result or {}).get("returned", ()))
        hand = self._running.pop(trial_id, [])
        self._ends.pop(trial_id, None)
        self._slices.pop(trial_id, None)
        if error and len(hand) > 1:
            self._again += hand  # each alone, so that only the one that ended the worker is lost
        elif error:
            for trial in hand:
                self._learn(dataclasses.replace(trial, status="failed"))
        rungs = {result["rung"]: result["loss"]} if result and result.get("rung") else {}
        for trial in (result or {}).get("trials", ()):
            self._learn(trial, rungs=rungs)

    def _hand(self, trial_id: str, hand: list[Trial]) -> dict[str, Any]:
        self._running[trial_id] = hand
        each, now, slice_s = self._each_s(hand[0].family), time.time(), None
        if each is not None:
            self._ends[trial_id] = now + len(hand) * each
        elif len(hand) > 1:
            slice_s = _LEAST_HAND_S + _SERVE_S * len(self._slices)  # lest all come back at once
            self._slices[trial_id], self._ends[trial_id] = slice_s, now + slice_s
        jobs, until = [encode(t) for t in hand], self.deadline
        return {
            "jobs": jobs,
            "until": until,
            "last": until if self._is_foreseen else None,
            "slice_s": slice_s,
        }

    def _take_back(self, trial_id: str, returned: Sequence[str]) -> None:
        """Let trials of a hand wait again that its worker did not begin; safe to repeat."""
        hand = self._running.get(trial_id, [])
        again = [trial for trial in hand if trial.id in returned]
        for trial in again:
            hand.remove(trial)
            del self.handed[trial.id]
        self._waiting = again + self._waiting

    def _waits(self) -> bool:
        """Whether trials that run are waited for: for more after them, or where workers end together."""
        more = self._plan.more and len(self.handed) < self._plan.most
        return not self._plan.grows or more or any(len(hand) > 1 for hand in self._running.values())

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what lasts."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is what lasts."""

    def _learn(self, trial: Trial, *, rungs: Mapping[int, float] | None = None) -> None:
        self._missing.discard(trial.id)
        if trial.status == "done":
            self._done.append(trial)
            self._seconds[trial.family].append(trial.seconds)
        if self._studies is not None:
            self._studies.tell(trial, rungs=rungs)

    def _next(self) -> Trial | None:
        """Return the next trial, as handed out."""
        trial = self._from_portfolio() or (self._more() if self._plan.more else None)
        if trial is not None:
            self.handed[trial.id] = trial
        return trial

    def _from_portfolio(self) -> Trial | None:
        while self._waiting:
            trial = self._waiting.pop(0)
            if not self.handed or trial.id in self._plan.sure or self._fits(trial):
                return trial
        return None

    def _others(self, first: Trial) -> list[Trial]:
        """Return what goes into the same hand: more of the same family, where they are quick."""
        each = self._each_s(first.family)
        if each is None:
            alike = sum(1 for _ in itertools.takewhile(lambda t: t.family == first.family, self._waiting))
            few = min(_FIRST, self._plan.most - len(self.handed))
            slots = self._plan.slots
            return self._take(first.family, few) if slots >= _SLOTS and alike >= _MANY * slots else []
        if each >= QUICK_S:
            return []
        slots = self._plan.slots
        most = self._plan.most - len(self.handed)
        left = min(most, max(len(self._waiting), slots)) + self._returning(first.family, each)
        fair_s = self._fair_s(left * each)
        spread_s = self._spread_s(first.family) * math.sqrt(fair_s / each)
        serve_s = _SERVE_S * slots
        sure_s = fair_s if spread_s < serve_s else fair_s - spread_s
        hand_s = min(_HAND_S, max(sure_s, min(_LEAST_HAND_S, serve_s, left * each / slots)))
        return self._take(first.family, min(left, most, round(hand_s / each) - 1))

    def _returning(self, family: str, each: float) -> int:
        """Return how many trials of the family's first hands are likely to come back, at so long a trial."""
        hands = ((self._running[name], slice_s) for name, slice_s in self._slices.items())
        alike = [(len(hand), slice_s) for hand, slice_s in hands if hand[0].family == family]
        return sum(max(0, count - math.ceil(slice_s / each)) for count, slice_s in alike)

    def _fair_s(self, left_s: float) -> float:
        """Return the seconds after which all slots end together that share so many seconds of trials.

        A slot that gets some of them waits until the driver has served those that are free before it.
        """
        now, slots = time.time(), self._plan.slots
        busy = [max(0.0, end - now) for end in self._ends.values()]
        free = sorted([*busy, *[0.0] * (slots - 1 - len(busy))])
        roughly_s, at = (left_s + sum(free)) / slots, 0.0
        for i, free_s in enumerate(free):
            if free_s < roughly_s:
                free[i] = at = max(at + _SERVE_S, free_s)
        return (left_s + sum(free)) / slots

    def _take(self, family: str, count: int) -> list[Trial]:
        """Hand out the next trials, at most so many, as long as they are of the family."""
        found: list[Trial] = []
        while len(found) < count and self._waiting and self._waiting[0].family == family:
            trial = self._waiting.pop(0)
            self.handed[trial.id] = trial
            found.append(trial)
        return found

    def _spread_s(self, family: str) -> float:
        """Return the standard deviation of what the family's last trials took."""
        known = self._seconds[family][-_KNOWN:]
        return statistics.stdev(known) if len(known) > 1 else known[0]

    def _each_s(self, family: str) -> float | None:
        """Return what the family's last trials took on average, or None before the first has ended."""
        known = self._seconds[family][-_KNOWN:]
        return max(1e-3, sum(known) / len(known)) if known else None

    def _more(self) -> Trial | None:
        """Return a drawn trial or a neighbour, in turn."""
        drawn = self._plan.drawn
        sources = [name for name in drawn.spaces if self._count(name) < drawn.most.get(name, 10**9)]
        ways = [*sources, ""]  # the last stands for the neighbours
        for _ in ways:
            way = ways[self._turn % len(ways)]
            self._turn += 1
            trial = self._draw(way) if way else self._neighbour()
            if trial is not None:
                return trial
        return None

    def _count(self, family: str) -> int:
        return sum(t.family == family for t in self.handed.values())

    def _draw(self, family: str) -> Trial | None:
        assert self._studies is not None
        trial = self._studies.draw(family, known=self.handed)
        if trial is not None and not self._fits(trial):
            self._studies.drop(trial)
            return None
        return trial

    def _neighbour(self) -> Trial | None:
        if self._plan.pace is None:
            return None
        for _ in range(20):
            if len(self._done) < min(_NEIGHBOURS_AFTER, len(self._plan.trials)):
                return None
            trial = neighbour(self._done, self._shaken, seed=self._plan.seed)
            self._shaken += 1
            if trial is not None and trial.id not in self.handed and self._fits(trial):
                return trial
        return None

    def _fits(self, trial: Trial) -> bool:
        left = self.deadline - time.time()
        if self._plan.pace is None or not is_family(trial.family):  # its own trials tell
            needed = max(self._seconds[trial.family], default=0.0)
        else:
            folds = len(self._plan.fold_rows)
            needed = folds * fit_seconds(self._plan.pace, trial.family, trial.params)
        return needed < _PATIENCE * left


def planned(
    trials: Sequence[Trial], *, fold_rows: tuple[int, ...], deadline: float, slots: int = 1
) -> QueuePlan:
    """Return the plan that runs exactly these trials."""
    return QueuePlan(
        trials=tuple(trials),
        fold_rows=fold_rows,
        most=len(trials),
        deadline=deadline,
        seed=0,
        slots=slots,
        more=False,
    )


def read_spaces(settings: SearchSettings) -> Spaces:
    """Return what the settings say trials are drawn from."""
    own = {name: model for name, model in settings.models.items() if model.space}
    spaces = {name: parse_space(space) for name, space in settings.spaces.items()}
    return Spaces(
        spaces=spaces | {name: parse_space(model.space) for name, model in own.items()},
        base={name: model.params for name, model in own.items()},
        most={name: model.trials for name, model in own.items()},
    )
