"""Which row an id has: sorted runs of keys, of which a few are many and the newest are short."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raywf.outcomes.columns import Keys

RowNumbers = NDArray[np.int64]
_Run = tuple[Keys, NDArray[np.int32]]


@dataclass(slots=True)
class KeyIndex:
    """Keys and their rows, in runs that are merged as they grow, so that a key is moved some ten times.

    A row may be given to another key: whoever asks says which key each row has now (`owners`), and entries
    that do not agree are passed over and left out of the next merge.
    """

    runs: list[_Run] = field(default_factory=list)

    def find(self, keys: Keys, owners: Keys) -> RowNumbers:
        """Return each key's row, or -1; shape ``(n_keys,)``."""
        found = np.full(len(keys), -1, dtype=np.int64)
        left = np.argsort(keys)
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
