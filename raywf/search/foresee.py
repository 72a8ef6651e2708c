"""How long the members' last fits will take, were the trials to end now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raywf.core.metrics import Metric
from raywf.core.records import Trial
from raywf.search.budget import WORKER_S
from raywf.search.choose import Bounds, Former, alone_s, choose, chosen_fits_s, fits_to_come_s
from raywf.search.data import SearchData
from raywf.search.ledger import Ledger

_WORTH_SHARE = 0.05  # of the time in all: shorter fits are not looked at more closely
_REST = 10.0  # times what a look took, until the next


@dataclass(slots=True, kw_only=True)
class LastFits:
    """Foresees the last fits from the best trials, and from the choice itself where they are long.

    The best trials are a poor guide to the members: a slow one among them may not be worth its time for a
    row. A fit that is longer than what is left until `closing` (`time.time()`) is not waited for. A choice
    takes a moment, in which no trial is handed out; so there is one in eleven moments at most. New workers
    take `start_s` until they begin; where fits `may_be_here`, quick ones need none.
    """

    data: SearchData
    ledger: Ledger
    metric: Metric
    bounds: Bounds
    closing: float
    former: Former | None = None
    start_s: float = WORKER_S
    may_be_here: bool = False
    _looked: float = 0.0
    _took: float = 0.0
    _found: tuple[float, float] | None = None

    def seconds(self, done: Sequence[Trial]) -> float:
        """Return the seconds that fits would take, of the members chosen among these trials."""
        fits_s, in_a_row_s = self._fits_s(done)
        if not fits_s or (self.may_be_here and in_a_row_s <= self.start_s):
            return in_a_row_s
        return fits_s + self.start_s

    def _fits_s(self, done: Sequence[Trial]) -> tuple[float, float]:
        """Return the seconds that fits would take side by side, and at most in one process."""
        bounds = self.bounds
        guess = fits_to_come_s(done, self.data, row_ms=bounds.row_ms, slots=bounds.slots, bag=bounds.bag)
        if guess < _WORTH_SHARE * bounds.left_s:
            return guess, guess * bounds.slots
        now = time.monotonic()
        if self._found is None or now > self._looked + _REST * self._took:
            left = replace(bounds, left_s=max(0.0, self.closing - time.time()))
            chosen = choose(
                self.data, list(done), self.ledger, metric=self.metric, bounds=left, former=self.former
            )
            self._found = (
                chosen_fits_s(chosen, done, self.data, slots=bounds.slots),
                alone_s(chosen.members, done, self.data),
            )
            self._looked = time.monotonic()
            self._took = self._looked - now
        fits_s, in_a_row_s = self._found
        return fits_s + self._took, in_a_row_s + self._took
