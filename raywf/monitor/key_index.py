"""Which row an id has: sorted runs of keys, and a filter that knows most of the keys that have none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raywf.outcomes.columns import Keys

RowNumbers = NDArray[np.int64]
_LEAST_BITS, _SPARE_BITS = 12, 3  # of the filter: at least, and beyond those that count its keys
_Run = tuple[Keys, NDArray[np.int32]]


class _Filter:
    """A mark for the first bits of each key; at most one mark in four is set."""

    def __init__(self, bits: int) -> None:
        self._shift, self._room = np.uint64(64 - bits), 1 << (bits - 2)
        self._marks = np.zeros(2**bits, dtype=bool)

    def has_room(self, count: int) -> bool:
        return count <= self._room

    def add(self, keys: Keys) -> None:
        self._room -= len(keys)
        self._marks[(keys >> self._shift).astype(np.int64)] = True

    def may_hold(self, keys: Keys) -> NDArray[np.bool_]:
        held: NDArray[np.bool_] = self._marks[(keys >> self._shift).astype(np.int64)]
        return held


@dataclass(slots=True)
class KeyIndex:
    """Keys and their rows, in runs that are merged as they grow, so that a key is moved some ten times.

    A row may be given to another key: whoever asks says which key each row has now (`owners`), and entries
    that do not agree are passed over and left out of the next merge.
    """

    runs: list[_Run] = field(default_factory=list)
    _filter: _Filter = field(default_factory=lambda: _Filter(_LEAST_BITS))

    def find(self, keys: Keys, owners: Keys) -> RowNumbers:
        """Return each key's row, or -1; shape ``(n_keys,)``."""
        found = np.full(len(keys), -1, dtype=np.int64)
        left = np.flatnonzero(self._filter.may_hold(keys))
        left = left[np.argsort(keys[left])]
        wanted = keys[left]
        for held, rows in reversed(self.runs):
            if not len(left):
                break
            at = np.minimum(np.searchsorted(held, wanted), len(held) - 1)
            row = rows[at]
            hits = (held[at] == wanted) & (owners[row] == wanted)
            found[left[hits]] = row[hits]
            left, wanted = left[~hits], wanted[~hits]
        return found

    def add(self, keys: Keys, rows: RowNumbers, owners: Keys) -> None:
        """Take in keys that have no row yet, each once."""
        if not len(keys):
            return
        order = np.argsort(keys)
        self.runs.append((keys[order], rows[order].astype(np.int32)))
        if not self._filter.has_room(len(keys)):  # keys that are gone leave their marks
            self._filter = _Filter(sum(len(held) for held, _ in self.runs).bit_length() + _SPARE_BITS)
            for held, _ in self.runs:
                self._filter.add(held)
        else:
            self._filter.add(self.runs[-1][0])
        while len(self.runs) > 1 and len(self.runs[-2][0]) < 2 * len(self.runs[-1][0]):
            newer, older = self.runs.pop(), self.runs.pop()
            self.runs.append(_merged(older, newer, owners))
        if not len(self.runs[-1][0]):
            self.runs.pop()


def _merged(older: _Run, newer: _Run, owners: Keys) -> _Run:
    keys, rows = np.concatenate([older[0], newer[0]]), np.concatenate([older[1], newer[1]])
    order = np.argsort(keys, kind="stable")  # two sorted runs: linear
    keys, rows = keys[order], rows[order]
    valid = owners[rows] == keys
    keys, rows = keys[valid], rows[valid]
    once = np.ones(len(keys), dtype=bool)
    once[1:] = keys[1:] != keys[:-1]
    return keys[once], rows[once]
