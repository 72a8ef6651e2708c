"""The rows that the fold still looks at, in columns: one an id, be it of a prediction, a label or both."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raywf.monitor.drift import MISSING, Codes
from raywf.monitor.key_index import KeyIndex, RowNumbers
from raywf.monitor.labels import NONE, Kinds
from raywf.outcomes.columns import Keys, Micros

Column = NDArray[np.float64]
NOWHERE, FREE = -1, -2  # windows of a row without a prediction, and of one without an id
NEVER = np.iinfo(np.int64).min
_GROWTH, _FEWEST = 1.3, 1024


def _empty(kind: type) -> NDArray[np.generic]:
    return np.empty(0, dtype=kind)


@dataclass(slots=True)
class Rows:
    """Columns of equal length, of which the first `used` rows are or were somebody's.

    Of the prediction: `windows` (a window's number), `times`, `scores` by position and `codes` by feature,
    each an array. Of the outcome: `known` (when, or NEVER), `kinds` and `numbers` (its label), `values`.
    """

    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    windows: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    times: Micros = field(default_factory=lambda: np.empty(0, np.int64))
    known: Micros = field(default_factory=lambda: np.empty(0, np.int64))
    kinds: Kinds = field(default_factory=lambda: np.empty(0, np.int32))
    numbers: Column = field(default_factory=lambda: np.empty(0))
    values: Column = field(default_factory=lambda: np.empty(0))
    scores: list[Column] = field(default_factory=list)
    codes: list[Codes] = field(default_factory=list)
    index: KeyIndex = field(default_factory=KeyIndex)
    used: int = 0
    free: list[RowNumbers] = field(default_factory=list)

    def find(self, keys: Keys) -> RowNumbers:
        """Return each id's row, or -1."""
        return self.index.find(keys, self.keys)

    def add(self, keys: Keys) -> RowNumbers:
        """Give rows to ids that have none, each once; they have no prediction and no outcome yet."""
        rows = self.claim(len(keys))
        self.keys[rows] = keys
        self.windows[rows] = NOWHERE
        self.known[rows] = NEVER
        self.kinds[rows] = NONE
        self.numbers[rows] = np.nan
        self.values[rows] = np.nan
        self.index.add(keys, rows, self.keys)
        return rows

    def drop(self, rows: RowNumbers) -> None:
        """Forget ids; their rows are given to others."""
        if len(rows):
            self.keys[rows] = 0
            self.windows[rows] = FREE
            self.free.append(rows)

    def widen(self, *, scores: int, codes: int) -> None:
        """Make room for so many scores and features; what rows lack is NaN and missing."""
        while len(self.scores) < scores:
            self.scores.append(np.full(len(self.keys), np.nan))
        while len(self.codes) < codes:
            self.codes.append(np.full(len(self.keys), MISSING, dtype=np.uint8))

    def answer(self, rows: RowNumbers, times: Micros, scores: NDArray[np.float64], codes: Codes) -> None:
        """Set predictions: `scores` has shape ``(n_rows, k)``, `codes` ``(n_features, n_rows)``."""
        self.widen(scores=scores.shape[1], codes=len(codes))
        self.times[rows] = times
        for i, column in enumerate(self.scores):
            column[rows] = scores[:, i] if i < scores.shape[1] else np.nan
        for i, bins in enumerate(self.codes):
            bins[rows] = codes[i] if i < len(codes) else MISSING

    def whole_scores(self, rows: RowNumbers) -> tuple[Column, NDArray[np.bool_]]:
        """Return scores ``(n_rows, k)``, as many as most rows have, and which rows have just those."""
        columns = [column[rows] for column in self.scores]
        widths = np.array([~np.isnan(column) for column in columns]).sum(axis=0)
        width = max(1, int(np.bincount(widths).argmax()))
        return np.ascontiguousarray(np.array(columns[:width]).T), widths == width

    def content(self, row: int) -> tuple[bytes, bytes]:
        """Return a row's scores and bins: what settles which of two predictions counts."""
        scores = np.array([column[row] for column in self.scores])
        return scores.tobytes(), bytes(int(column[row]) for column in self.codes)

    def claim(self, count: int) -> RowNumbers:
        """Return rows that are nobody's, whose columns are to be set."""
        parts: list[RowNumbers] = []
        while self.free and count:
            last = self.free.pop()
            if len(last) > count:
                self.free.append(last[count:])
                last = last[:count]
            parts.append(last)
            count -= len(last)
        if count:
            self._grow(self.used + count)
            parts.append(np.arange(self.used, self.used + count, dtype=np.int64))
            self.used += count
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _grow(self, least: int) -> None:
        if least <= len(self.keys):
            return
        size = max(least, int(len(self.keys) * _GROWTH), _FEWEST)
        for name in ("keys", "windows", "times", "known", "kinds", "numbers", "values"):
            setattr(self, name, _grown(getattr(self, name), size))
        self.scores = [_grown(column, size) for column in self.scores]
        self.codes = [_grown(column, size) for column in self.codes]


def _grown(column: NDArray[np.generic], size: int) -> NDArray:  # type: ignore[type-arg]
    made = np.empty(size, dtype=column.dtype)
    made[: len(column)] = column
    return made
