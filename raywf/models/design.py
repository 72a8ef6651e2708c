"""The dense design for linear and neural members: scaled numbers, missing flags, one-hot categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raywf.models.encoding import Matrix

_MAX_HOT = 64
_CLIP = 6.0


@dataclass(frozen=True, slots=True)
class Design:
    """Arrays that turn encoded rows into dense ones.

    `numbers` and `categories` are indices of encoded columns; `hot` the one-hot width of each category
    column (codes beyond it are dropped, being rare); `center` and `spread` scale the numbers, shape
    ``(n_numbers,)``. Several designs of the same columns are one with shape ``(n_designs, 1, n_numbers)``.
    """

    numbers: NDArray[np.int64]
    categories: NDArray[np.int64]
    hot: NDArray[np.int64]
    center: NDArray[np.float32]
    spread: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Columns of the dense matrix."""
        return 2 * len(self.numbers) + int(self.hot.sum())

    @property
    def owners(self) -> NDArray[np.int64]:
        """The encoded column that each dense column is made of, shape ``(width,)``."""
        return np.concatenate([self.numbers, self.numbers, np.repeat(self.categories, self.hot)])

    def transform(self, X: Matrix) -> Matrix:
        """Return the dense matrix ``(n_rows, width)``; a missing number becomes 0 with its flag set.

        Of several designs the matrices, ``(n_designs, n_rows, width)``.
        """
        k = len(self.numbers)
        values = X[:, self.numbers]
        missing = np.isnan(values)
        with np.errstate(over="ignore"):  # what is beyond float32 is clipped
            scaled = np.clip((values - self.center) / self.spread, -_CLIP, _CLIP)
        out = np.zeros((*scaled.shape[:-1], self.width), dtype=np.float32)
        out[..., :k] = np.where(missing, 0, scaled)
        out[..., k : 2 * k] = missing
        at = 2 * k
        for column, width in zip(self.categories, self.hot, strict=True):
            codes = X[:, column]
            rows = np.flatnonzero(codes < width)
            out[..., rows, at + codes[rows].astype(np.int64)] = 1
            at += int(width)
        return out

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name, for safetensors."""
        return {f"design.{name}": getattr(self, name) for name in _NAMES}


_NAMES = ("numbers", "categories", "hot", "center", "spread")


def fit_design(X: Matrix, sizes: tuple[int, ...]) -> Design:
    """Learn centres and spreads from the rows, categories from `sizes`."""
    sized = np.asarray(sizes, dtype=np.int64)
    numbers = np.flatnonzero(sized == 0)
    categories = np.flatnonzero(sized > 0)
    values = X[:, numbers].astype(np.float64)
    count = (~np.isnan(values)).sum(axis=0)
    filled = np.where(np.isnan(values), 0, values)
    center = filled.sum(axis=0) / np.maximum(count, 1)
    square = np.where(np.isnan(values), 0, (values - center) ** 2).sum(axis=0)
    spread = np.sqrt(square / np.maximum(count, 1)).astype(np.float32)
    return Design(
        numbers,
        categories,
        np.minimum(sized[categories], _MAX_HOT),
        center.astype(np.float32),
        np.where(spread > 0, spread, np.float32(1)),
    )


def design_from(arrays: dict[str, NDArray[np.generic]]) -> Design:
    """Rebuild a design from `Design.arrays`."""
    numbers, categories, hot, center, spread = (arrays[f"design.{name}"] for name in _NAMES)
    as_int, as_float = np.int64, np.float32
    return Design(
        numbers.astype(as_int),
        categories.astype(as_int),
        hot.astype(as_int),
        center.astype(as_float),
        spread.astype(as_float),
    )


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logistic function, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))


def softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's softmax."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def activate(z: NDArray[np.float64], task: str) -> NDArray[np.float64]:
    """Turn raw outputs ``(..., n_rows, width)`` into scores."""
    if task == "binary":
        return sigmoid(z)
    return softmax(z) if task == "multiclass" else z


def through_softmax(shares: NDArray[np.float64], moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how a softmax's shares ``(n, k)`` move where its inputs do by small `moves` ``(n, m, k)``."""
    at = shares[:, None]
    return np.asarray(at * (moves - (at * moves).sum(axis=-1, keepdims=True)))


def through_link(
    z: NDArray[np.float64], moves: NDArray[np.float64], task: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of raw outputs ``(n, k)``, and how they move as these do by `moves` ``(n, m, k)``."""
    scores = activate(z, task)
    if task == "binary":
        return scores, np.asarray(moves * (scores * (1 - scores))[:, None])
    return scores, through_softmax(scores, moves) if task == "multiclass" else moves
