"""Shapley values by sampling, for members of which nothing is known but their answers.

After Štrumbelj and Kononenko (Knowledge and Information Systems 2014): a row's columns take the place of a
background row's one by one, in a random order; what the answer changes by at a column is its share. The
shares of one order sum to the difference between both rows' answers, so those of all orders do to the
difference from the background's mean answer. Orders come in pairs, the second one backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.models.family import Rows, Scores

SAMPLES = 32  # orders, each with a background row
_FEWEST = 4
_MOST_ASKED = 8192  # rows that one row's shares are made of
_SEED = 0

Answer = Callable[[Rows], Scores]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows to take apart and, after them, the background's; `owners` ``(n_features,)`` are the columns that
    the encoded columns of a row come from.
    """

    rows: Rows
    background: int
    owners: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Rows to take apart."""
        return len(self.rows.X) - self.background

    @property
    def columns(self) -> int:
        """Columns of a row before it is encoded."""
        return int(self.owners.max(initial=-1)) + 1

    def take(self, at: NDArray[np.int64]) -> Rows:
        """Return rows made of others: ``at[i, c]`` is the row whose column `c` row `i` has."""
        X = self.rows.X[at[:, self.owners], np.arange(len(self.owners))]
        table = self.rows.table
        if table is not None:
            taken = [table.column(c).take(pa.array(at[:, c])) for c in range(self.columns)]
            table = pa.table(taken, names=table.column_names)
        return Rows(X, np.empty(0), table=table)


def sample_shares(answer: Answer, mixture: Mixture) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the background's mean answer ``(k,)`` and each column's share ``(n_rows, n_columns, k)``.

    The same rows give the same shares, whatever their company.
    """
    count, columns = mixture.count, mixture.columns
    ranks, background = _orders(columns, mixture.background)
    starts = np.broadcast_to((count + background)[:, None, None], (len(ranks), columns + 1, columns))
    is_in = ranks[:, None, :] < np.arange(columns + 1)[:, None]  # after so many steps
    base = np.asarray(answer(mixture.take(starts[:, 0])), dtype=np.float64).mean(axis=0)
    shares = np.zeros((count, columns, len(base)))
    for row in range(count):
        at = np.where(is_in, row, starts).reshape(-1, columns)
        found = np.asarray(answer(mixture.take(at)), dtype=np.float64)
        steps = np.diff(found.reshape(len(ranks), columns + 1, -1), axis=1)
        shares[row] = np.take_along_axis(steps, ranks[:, :, None], axis=1).mean(axis=0)
    return base, shares


def _orders(columns: int, background: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each column's place by order ``(n_orders, columns)``, and each order's background row."""
    draw = np.random.default_rng(_SEED)
    half = int(np.clip(_MOST_ASKED // (columns + 1), _FEWEST, SAMPLES)) // 2
    ranks = np.array([draw.permutation(columns) for _ in range(half)], np.int64).reshape(half, columns)
    rows = draw.permutation(np.arange(half) % background)
    return np.concatenate([ranks, columns - 1 - ranks]), np.concatenate([rows, rows])
