"""Symmetric trees by numpy: every node of a level asks the same, so all trees of a row are answered at once.

A tree of depth d is d questions and a table of 2**d leaves; the answers' bits are the leaf's number. One row
asks all trees in a handful of array operations, some tens of microseconds for a thousand trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from raywf.models.design import activate
from raywf.models.encoding import Matrix
from raywf.models.family import Contributions, Scores
from raywf.models.trees import Output, Tree, TreeModel, trees_text

MAX_DEPTH = 8  # a leaf's number is one byte
_BEYOND = float(np.finfo(np.float32).max)  # for infinite, which a missing number may become
_FEW = 24  # rows up to which one pass a row is quicker than one a tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """T symmetric trees of at most 8 questions, of lesser depth padded with questions answered no.

    `column` and `border` ``(T, 8)``: yes where the column's value is above the border. `place`, `asked` and
    `start` ``(S,)``: the flat places of questions about categories, their columns, and where each one's row
    begins in `yes`, one byte a code. `leaves` ``(T * 2**depth, k)`` are raw scores, tree by tree. `fill`
    ``(n_features,)`` replaces missing values, `base` ``(k,)`` is where the sum begins. `cover`
    ``(T * 2**depth,)`` is the weight of the fit's rows by leaf, or empty where that is not known.
    """

    column: NDArray[np.int32]
    border: NDArray[np.float32]
    place: NDArray[np.int64]
    asked: NDArray[np.int64]
    start: NDArray[np.int64]
    yes: NDArray[np.uint8]
    leaves: NDArray[np.float64]
    fill: NDArray[np.float32]
    base: NDArray[np.float64]
    cover: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class SymmetricModel:
    """A forest as a member; `rounds` is its number of trees before any merge. `predict` is thread-safe."""

    def __init__(self, forest: Forest, task: str, rounds: int) -> None:
        self.forest, self.task, self.rounds = forest, task, rounds
        self._size = len(forest.leaves) // max(1, len(forest.column))
        self._first = np.arange(len(forest.column)) * self._size
        self._flat = forest.column.ravel()
        self._borders = forest.border.ravel()
        self._explaining: TreeModel | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return SymmetricModel, (self.forest, self.task, self.rounds)

    def predict(self, X: Matrix) -> Scores:
        filled = np.where(np.isnan(X), self.forest.fill, X)
        if len(X) <= _FEW:
            raw = np.array([self._row(row) for row in filled]).reshape(len(X), -1)
        else:
            raw = self._batch(np.ascontiguousarray(filled.T))
        return activate(raw + self.forest.base, self.task)

    def contributions(self, X: Matrix) -> Contributions | None:
        """As `TreeModel.contributions`, of the same trees."""
        if not len(self.forest.cover):
            return None
        if self._explaining is None:
            self._explaining = _as_trees(self.forest, self.task, self.rounds)
        return self._explaining.contributions(X)

    def placed(self, places: Sequence[int], width: int, *, like: int) -> SymmetricModel:
        """Return the same trees reading column ``places[i]`` of `width` where they read column `i`."""
        forest, at = self.forest, np.asarray(places, dtype=np.int64)
        fill = np.full(width, forest.fill[like], dtype=np.float32)
        fill[at] = forest.fill
        moved = replace(forest, column=at[forest.column].astype(np.int32), asked=at[forest.asked], fill=fill)
        return SymmetricModel(moved, self.task, self.rounds)

    def save(self, folder: Path) -> None:
        arrays = {name: np.ascontiguousarray(getattr(self.forest, name)) for name in Forest.__slots__}
        arrays["rounds"] = np.asarray([self.rounds])
        save_file(arrays, folder / "forest.safetensors")

    def _row(self, row: Matrix) -> NDArray[np.float64]:
        forest = self.forest
        bits = row[self._flat] > self._borders
        if len(forest.place):
            codes = row[forest.asked].astype(np.int64)
            bits[forest.place] = forest.yes[forest.start + codes]
        numbers = np.packbits(bits, bitorder="little") if len(bits) else np.zeros(0, np.uint8)
        found: NDArray[np.float64] = forest.leaves[self._first + numbers].sum(axis=0)
        return found

    def _batch(self, columns: Matrix) -> NDArray[np.float64]:
        """Answer many rows tree by tree; `columns` is ``(n_features, n_rows)``."""
        forest, out = self.forest, np.zeros((columns.shape[1], self.forest.leaves.shape[1]))
        sets = dict(zip(forest.place.tolist(), zip(forest.asked, forest.start, strict=True), strict=True))
        codes = {int(c): columns[c].astype(np.int64) for c in np.unique(forest.asked)}
        for tree, (asked, borders) in enumerate(zip(forest.column, forest.border, strict=True)):
            numbers = np.zeros(columns.shape[1], np.int64)
            for level in range(MAX_DEPTH):
                found = sets.get(tree * MAX_DEPTH + level)
                if found is not None:
                    numbers |= forest.yes[found[1] + codes[int(found[0])]].astype(np.int64) << level
                elif borders[level] < np.inf:
                    numbers |= (columns[asked[level]] > borders[level]).astype(np.int64) << level
            out += forest.leaves[tree * self._size + numbers]
        return out


def load_symmetric(folder: Path, task: str) -> SymmetricModel:
    """Load what `SymmetricModel.save` wrote."""
    arrays = load_file(folder / "forest.safetensors")
    forest = Forest(**{name: arrays[name] for name in Forest.__slots__ if name in arrays})
    return SymmetricModel(forest, task, int(arrays["rounds"][0]))


def merge_symmetric(models: Sequence[SymmetricModel]) -> SymmetricModel:
    """Return one model whose raw score is the mean of the models' raw scores."""
    forests = [m.forest for m in models]
    if any(not np.array_equal(f.fill, forests[0].fill) for f in forests):
        raise ValueError("models of different kinds do not merge")
    are_covered = all(len(f.cover) for f in forests)
    trees = np.cumsum([0, *(len(f.column) for f in forests)])
    bytes_before = np.cumsum([0, *(len(f.yes) for f in forests)])
    joined = {name: np.concatenate([getattr(f, name) for f in forests]) for name in _JOINED}
    forest = replace(
        forests[0],
        **joined,
        place=np.concatenate([f.place + MAX_DEPTH * at for f, at in zip(forests, trees[:-1], strict=True)]),
        start=np.concatenate([f.start + at for f, at in zip(forests, bytes_before[:-1], strict=True)]),
        leaves=np.concatenate([f.leaves for f in forests]) / len(forests),
        base=np.mean([f.base for f in forests], axis=0),
        cover=np.concatenate([f.cover for f in forests]) if are_covered else np.zeros(0),
    )
    return SymmetricModel(forest, models[0].task, round(float(np.mean([m.rounds for m in models]))))


def _as_trees(forest: Forest, task: str, rounds: int) -> TreeModel:
    """Return the forest as trees of nodes, one a score column."""
    width, features = forest.leaves.shape[1], len(forest.fill)
    output = Output(
        task=task,
        width=width,
        base=tuple(forest.base.tolist()),
        fill=tuple(np.nan_to_num(forest.fill, nan=0.0, posinf=_BEYOND, neginf=-_BEYOND).tolist()),
    )
    return TreeModel(trees_text(_trees(forest), features=features, width=width), output, rounds)


def _trees(forest: Forest) -> Iterator[Tree]:
    """Yield each symmetric tree as nodes numbered level by level: the children of `i` are 2i+1 and 2i+2.

    The last question stands at the root, so that the leaves come in the order of their numbers. A question
    about categories has its yes on the left, where LightGBM has the codes of its sets, so its leaves change
    sides.
    """
    size = len(forest.leaves) // max(1, len(forest.column))
    ends = np.append(forest.start, len(forest.yes))[1:]
    spans = zip(forest.asked.tolist(), forest.start.tolist(), ends.tolist(), strict=True)
    sets = dict(zip(forest.place.tolist(), spans, strict=True))
    for t, (columns, borders) in enumerate(zip(forest.column, forest.border, strict=True)):
        asked = [at for at in range(MAX_DEPTH) if t * MAX_DEPTH + at in sets or borders[at] < np.inf]
        depth = len(asked)
        inner, count = 2**depth - 1, 2 ** (depth + 1) - 1
        level = np.floor(np.log2(np.arange(1, inner + 1))).astype(np.int64)
        feature, threshold = np.full(count, -1, np.int64), np.zeros(count)
        numbers = np.zeros(2**depth, np.int64)
        categories: dict[int, NDArray[np.int64]] = {}
        for place, at in enumerate(reversed(asked)):
            nodes = np.flatnonzero(level == place)
            bit = (np.arange(2**depth) >> (depth - 1 - place)) & 1
            known = sets.get(t * MAX_DEPTH + at)
            if known is not None:
                column, start, end = known
                codes = np.flatnonzero(forest.yes[start:end])
                categories |= {int(node): codes for node in nodes}
                feature[nodes], bit = column, 1 - bit
            else:
                feature[nodes], threshold[nodes] = columns[at], borders[at]
            numbers |= bit << at
        left = np.where(np.arange(count) < inner, 2 * np.arange(count) + 1, -1)
        leaves = t * size + numbers
        cover = np.concatenate([np.zeros(inner), forest.cover[leaves]])
        for node in range(inner - 1, -1, -1):
            cover[node] = cover[2 * node + 1] + cover[2 * node + 2]
        for k in range(forest.leaves.shape[1]):
            yield Tree(
                left=left,
                right=np.where(left < 0, -1, left + 1),
                feature=feature,
                threshold=threshold,
                value=np.concatenate([np.zeros(inner), forest.leaves[leaves, k]]),
                missing_left=None,
                categories=categories,
                cover=cover,
            )


_JOINED = ("column", "border", "asked", "yes")
