"""Keeps Tune's workers: none is ended to start another, and where a cluster grows they stay within the slots.

Tune ends a worker where two trials end at once, or starts one in vain for a trial that then gets another's;
and it asks for a new one while the former still has its CPUs. For that moment it wants more than its trials
do, and an autoscaler starts a node. So workers stay as long as trials come, and on a cluster that grows no
trial begins while others have all slots. Elsewhere they stay until the last trial has ended: many that end at
once hold up those that still work. Reads and sets what Ray 2.60's controller keeps; where another keeps it
elsewhere, nothing is held and Tune does as it would.
"""

from __future__ import annotations

from functools import partial
from typing import Any


class Hold:
    """Keeps as many free workers as there are slots.

    On a cluster that `grows` at most so many run, those included that end, and free ones go when the queue
    has no more trials.
    """

    def __init__(self, slots: int, *, grows: bool) -> None:
        self._slots, self._grows = slots, grows
        self._controller: Any = None
        self._begun = self._kept = 0
        self._runs_dry = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without the controller: Tune keeps its scheduler."""
        return partial(Hold, grows=self._grows), (self._slots,)

    def look(self, controller: Any) -> None:
        """Take in Tune's controller at each step, which then gives trials that have begun their workers."""
        self._controller, self._begun = controller, 0
        try:
            self._keep(controller._actor_cache)  # noqa: SLF001 - there is no public way
        except AttributeError:
            return

    @property
    def is_full(self) -> bool:
        """Whether all slots are taken, those of trials included that have no worker yet."""
        return self._grows and self._busy() + self._begun >= self._slots

    def begin(self) -> None:
        """Count a trial that begins."""
        self._begun += 1
        self._runs_dry = False

    def run_dry(self) -> None:
        """Let free workers go, since there is no trial to begin; the last ones must keep no idle node."""
        self._runs_dry = True

    def first(self) -> Any:
        """Return the trial that a free worker is for: one without a worker that starts; None if all have one.

        Another one's would be started in vain, and keep its slot for as long as that takes.
        """
        try:
            cached = self._controller._actor_cache.num_cached_objects  # noqa: SLF001
            pending, given = self._controller._pending_trials, self._controller._trial_to_actor  # noqa: SLF001
        except AttributeError:
            return None
        return next((trial for trial in pending if trial not in given), None) if cached else None

    def _keep(self, cache: Any) -> None:
        """Let as many workers be kept as there are slots, where all trials take alike."""
        kinds = list(cache._max_num_objects)  # noqa: SLF001
        let_go = self._grows and self._runs_dry
        wanted = self._slots if len(kinds) == 1 and not let_go else 0
        if kinds and wanted != self._kept:
            cache.increase_max(kinds[0], wanted - self._kept)
            self._kept = wanted

    def _busy(self) -> int:
        """Return how many workers are not free."""
        try:
            total = self._controller._actor_manager.num_total_actors  # noqa: SLF001
            return int(total) - int(self._controller._actor_cache.num_cached_objects)  # noqa: SLF001
        except AttributeError:
            return 0
