"""Columns made of two numbers each: their difference, sum, product or quotient, which a tree sees at once.

A tree splits one column at a time, so what depends on a ratio or a distance takes it many splits to follow.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raywf.models.encoding import Matrix
from raywf.models.family import Model, Scores

KINDS = (np.subtract, np.add, np.multiply, np.divide)
Pair = tuple[int, int, int]
_FILE = "pairs.json"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Columns to make: (place in `KINDS`, left, right) each, sorted; left and right are encoded columns.

    What is missing in one of the two, or not finite, is missing.
    """

    made: tuple[Pair, ...] = ()
    _both: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _spans: tuple[tuple[np.ufunc, int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind, left, right = np.asarray(self.made, dtype=np.int64).reshape(-1, 3).T
        ends = np.searchsorted(kind, np.arange(len(KINDS) + 1)).tolist()
        spans = zip(KINDS, ends, ends[1:], strict=False)
        object.__setattr__(self, "_both", np.concatenate([left, right]))
        object.__setattr__(self, "_spans", tuple(span for span in spans if span[2] > span[1]))

    def __len__(self) -> int:
        return len(self.made)

    def widen(self, X: Matrix) -> Matrix:
        """Return the columns of X ``(n_rows, n)`` and the pairs' after them, ``(n_rows, n + n_pairs)``.

        >>> two = make_pairs([(0, 0, 1), (3, 0, 1)])
        >>> two.widen(np.array([[6.0, 3.0], [1.0, 0.0]], dtype=np.float32)).tolist()
        [[6.0, 3.0, 3.0, 2.0], [1.0, 0.0, 1.0, nan]]
        """
        count = len(self.made)
        if not count:
            return X
        both = X.take(self._both, axis=1)
        made = np.empty((len(X), count), dtype=np.float32)
        with np.errstate(all="ignore"):
            for combine, start, end in self._spans:
                combine(both[:, start:end], both[:, count + start : count + end], out=made[:, start:end])
        made[~np.isfinite(made)] = np.nan
        return np.concatenate((X, made), axis=1)

    def narrow(self, added: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
        """Share what each pair's column adds between its two: of ``(n, columns + n_pairs, k)`` the columns.

        >>> make_pairs([(0, 0, 1)]).narrow(np.array([[[1.0], [2.0], [4.0]]]), 2).tolist()
        [[[3.0], [4.0]]]
        """
        found = added[:, :columns].copy()
        for at, (_, left, right) in enumerate(self.made, start=columns):
            found[:, left] += added[:, at] / 2
            found[:, right] += added[:, at] / 2
        return found


def make_pairs(made: Iterable[Pair]) -> Pairs:
    """Return pairs of (kind, left, right), each once."""
    return Pairs(tuple(sorted(set(made))))


@dataclass(slots=True)
class WideModel:
    """A member that answers from more columns: `inner` reads the row's `columns` and those of the pairs."""

    inner: Any
    pairs: Pairs
    columns: int

    @property
    def rounds(self) -> int:
        return int(self.inner.rounds)

    def predict(self, X: Matrix) -> Scores:
        found: Scores = self.inner.predict(self.pairs.widen(X))
        return found

    def save(self, folder: Path) -> None:
        self.inner.save(folder)
        (folder / _FILE).write_text(json.dumps({"columns": self.columns, "pairs": self.pairs.made}))


def load_wide(inner: Model, folder: Path) -> Model:
    """Return a loaded model with the pairs that were saved beside it, if there are any."""
    if not (folder / _FILE).exists():
        return inner
    stored = json.loads((folder / _FILE).read_text())
    return WideModel(inner, make_pairs([tuple(pair) for pair in stored["pairs"]]), stored["columns"])


def unwrap(model: Any) -> tuple[Any, Pairs]:
    """Return the model that reads wide rows, and what makes them; of another model itself and no pairs."""
    return (model.inner, model.pairs) if isinstance(model, WideModel) else (model, Pairs())


def widest(models: Sequence[Any]) -> tuple[list[Any], Pairs, int] | None:
    """Return models that all read the pairs of all, these pairs, and the columns; None where none has any.

    Models must have ``placed(places, width, like=number)``: themselves, reading column ``places[i]`` of
    `width` for `i`; the columns that they do not read are numbers, as column `number` is.
    """
    columns = next((m.columns for m in models if isinstance(m, WideModel)), None)
    if columns is None:
        return None
    parts = [unwrap(m) for m in models]
    union = make_pairs(pair for _, pairs in parts for pair in pairs.made)
    at = {pair: columns + i for i, pair in enumerate(union.made)}
    width = columns + len(union)
    _, number, _ = union.made[0]
    found = [
        inner.placed([*range(columns), *(at[pair] for pair in pairs.made)], width, like=number)
        for inner, pairs in parts
    ]
    return found, union, columns
