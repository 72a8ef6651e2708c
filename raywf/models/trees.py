"""One evaluator for every family of trees: LightGBM's model text, read and run by LightGBM's C code.

LightGBM writes this text itself; XGBoost's and scikit-learn's trees are translated into it, so that a server
needs neither library, one row takes microseconds, and several fitted models merge into one by putting their
trees one after another.
"""

from __future__ import annotations

import ctypes
import json
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from raywf.models.design import activate
from raywf.models.encoding import Matrix
from raywf.models.family import Contributions, Scores

_C = lgb.basic._LIB  # noqa: SLF001 - the calls for single rows have no public wrapper
_RAW, _LEAF = 1, 2  # C_API_PREDICT_RAW_SCORE, C_API_PREDICT_LEAF_INDEX
_FLOAT32 = 0  # C_API_DTYPE_FLOAT32
_FEW = 16  # rows up to which one call a row is quicker than a batch
_NAN_MISSING, _DEFAULT_LEFT, _CATEGORICAL = 8, 2, 1  # bits of LightGBM's decision_type
_THREAD_ROWS, _LEAF_ROWS = 256, 2048  # of a batch: from which on threads help, of which leaves are kept
_MOST_EXPLAINED = 250_000  # leaves: TreeSHAP visits each, which takes up to a microsecond
_MOST_COUNTED = 1_000_000  # rows that a tree's root counts, where covers are no counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How sums of leaves become scores: ``link(base + share * sum)``, by score column.

    `task` names the link ("regression" for none); `fill` are the values that missing inputs are replaced
    with, by encoded column (nan: left missing), or empty for no replacement.
    """

    task: str
    width: int
    base: tuple[float, ...]
    share: float = 1.0
    fill: tuple[float, ...] = ()


class TreeModel:
    """Trees as a member: `predict` is thread-safe, `rounds` counts boosting rounds or a forest's trees.

    Of a forest, whose trees are the same for all score columns, the text has each but once, and `leaves` its
    leaves' values ``(n_leaves, width)``, tree after tree.
    """

    def __init__(
        self, text: str, output: Output, rounds: int, leaves: NDArray[np.float32] | None = None
    ) -> None:
        self.text, self.output, self.rounds, self.leaves = text, output, rounds, leaves
        self._sums: _TreeSums | _LeafSums
        self._sums = _TreeSums(text, output.width) if leaves is None else _LeafSums(text, leaves)
        self._base = np.asarray(output.base, dtype=np.float64)
        self._fill = np.asarray(output.fill, dtype=np.float32) if output.fill else None
        self._explaining: lgb.Booster | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return TreeModel, (self.text, self.output, self.rounds, self.leaves)

    def predict(self, X: Matrix) -> Scores:
        filled = self._filled(X)
        if len(filled) == 1:
            return self._answer(filled)
        if len(filled) <= _FEW:
            found = [self._sums.of_row(row).copy() for row in filled]
            sums = np.stack(found) if found else np.zeros(0)
        else:
            sums = self._sums.of_rows(filled, threads=1 if len(filled) < _THREAD_ROWS else 0)
        raw = self._base + self.output.share * sums.reshape(len(X), self.output.width)
        return activate(raw, self.output.task)

    def _answer(self, row: Matrix) -> Scores:
        """Return the scores of one row: as above, where a call of numpy takes as long as fifty trees."""
        sums, output = self._sums.of_row(row), self.output
        if output.width > 1:
            return activate((self._base + output.share * sums)[np.newaxis], output.task)
        raw = output.base[0] + output.share * float(sums[0])
        return np.array(((raw if output.task == "regression" else 0.5 * (1 + math.tanh(0.5 * raw)),),))

    def contributions(self, X: Matrix) -> Contributions | None:
        """Return TreeSHAP's sums (Lundberg et al., Nature Machine Intelligence 2020), exact for the trees.

        The base is the mean raw answer to the rows of the fit, by the trees' own counts of them. None of
        trees that were written without these, or have so many leaves that a row would take long.
        """
        if self._explaining is None:
            if not self._is_explainable:
                return None
            self._explaining = lgb.Booster(model_str=self.apart().text)  # nothing that predicts waits for it
        found = self._explaining.predict(self._filled(X), pred_contrib=True, num_threads=1)
        width, share = self.output.width, self.output.share
        sums = share * np.asarray(found).reshape(len(X), width, -1).transpose(0, 2, 1)
        base = self._base + (sums[0, -1] if len(X) else 0.0)
        return Contributions(method="trees", link=self.output.task, base=base, added=sums[:, :-1])

    @cached_property
    def _is_explainable(self) -> bool:
        copies = 1 if self.leaves is None else self.output.width
        return _has_counts(self.text) and copies * sum(_leaves(self.text)) <= _MOST_EXPLAINED

    def _filled(self, X: Matrix) -> Matrix:
        filled = X if self._fill is None else np.where(np.isnan(X), self._fill, X)
        return np.ascontiguousarray(filled, dtype=np.float32)

    def placed(self, places: Sequence[int], width: int, *, like: int) -> TreeModel:
        """Return the same trees reading column ``places[i]`` of `width` where they read column `i`.

        What they do not read is filled as column `like` is, so that models which do read it merge with them.
        """
        header, blocks = _head(self.text), _blocks(self.text)
        fill = self.output.fill
        if fill:
            moved = np.full(width, fill[like])
            moved[list(places)] = fill
            fill = tuple(moved.tolist())
        text = _text(_header(header, width), [_renumbered(block, places) for block in blocks])
        return TreeModel(text, replace(self.output, fill=fill), self.rounds, self.leaves)

    def apart(self) -> TreeModel:
        """Return the same model with trees for each score column."""
        if self.leaves is None:
            return self
        header, width = _head(self.text), self.output.width
        for name in ("num_class", "num_tree_per_iteration"):
            header = header.replace(f"\n{name}=1\n", f"\n{name}={width}\n")
        ends = np.cumsum(_leaves(self.text))[:-1]
        each = zip(_blocks(self.text), np.split(self.leaves.astype(np.float64), ends), strict=True)
        blocks = [_with_leaves(block, column) for block, leaves in each for column in leaves.T]
        return TreeModel(_text(header, blocks), self.output, self.rounds)

    def save(self, folder: Path) -> None:
        (folder / "model.txt").write_text(self.text)
        output = {"rounds": self.rounds, **{k: getattr(self.output, k) for k in _OUTPUT_KEYS}}
        (folder / "trees.json").write_text(json.dumps(_without_nan(output)))
        if self.leaves is not None:
            save_file({"leaves": self.leaves}, folder / _LEAVES)


_OUTPUT_KEYS, _LEAVES = ("task", "width", "base", "share", "fill"), "leaves.safetensors"


def load_trees(folder: Path) -> TreeModel:
    """Load what `TreeModel.save` wrote."""
    stored = json.loads((folder / "trees.json").read_text())
    output = Output(
        task=stored["task"],
        width=stored["width"],
        base=tuple(stored["base"]),
        share=stored["share"],
        fill=tuple(float("nan") if v is None else v for v in stored["fill"]),
    )
    leaves = load_file(folder / _LEAVES)["leaves"] if (folder / _LEAVES).exists() else None
    return TreeModel((folder / "model.txt").read_text(), output, stored["rounds"], leaves)


def merge_trees(models: Sequence[TreeModel]) -> TreeModel:
    """Return one model whose raw score is the mean of the models' raw scores."""
    alike = all(model.leaves is not None for model in models)
    models = models if alike else [model.apart() for model in models]
    header = _head(models[0].text)
    first = models[0].output
    factors = [model.output.share / first.share for model in models]
    pairs = list(zip(models, factors, strict=True))
    blocks = [_times(block, factor) for model, factor in pairs for block in _blocks(model.text)]
    share = first.share / len(models)
    base = tuple(float(b) for b in np.mean([m.output.base for m in models], axis=0))
    rounds = round(float(np.mean([m.rounds for m in models])))
    fills = [np.asarray(m.output.fill) for m in models]
    same = all(np.array_equal(fills[0], fill, equal_nan=True) for fill in fills)
    if not same:
        raise ValueError("models of different kinds do not merge")
    parts = [np.float32(factor) * model.leaves for model, factor in pairs if model.leaves is not None]
    leaves = np.concatenate(parts) if alike else None
    return TreeModel(_text(header, blocks), replace(first, base=base, share=share), rounds, leaves)


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as arrays over its nodes, the root first; a leaf has ``left`` -1.

    `threshold`: a row goes left where its value is at most this. `value` are the leaves' outputs. For a node
    in `categories` a row goes left where its code is among them. `missing_left` says where nan goes, or is
    None where inputs are never missing. `cover` is how many rows of the fit came by, or their weight.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    value: NDArray[np.float64]
    missing_left: NDArray[np.bool_] | None
    categories: dict[int, NDArray[np.int64]]
    cover: NDArray[np.float64] | None = None


def trees_text(trees: Iterable[Tree], *, features: int, width: int) -> str:
    """Write trees in LightGBM's text; of `width` score columns each takes every width-th tree."""
    names = ["max_feature_idx=", "feature_names=", "feature_infos=", ""]
    header = ["tree", "version=v4", f"num_class={width}", f"num_tree_per_iteration={width}", "label_index=0"]
    return _text(_header("\n".join(header + names), features), [_block(tree) for tree in trees])


def _text(header: str, blocks: Sequence[str]) -> str:
    kept = "\n".join(line for line in header.splitlines() if not line.startswith("tree_sizes="))
    numbered = "\n\n".join(f"Tree={i}\n{block.strip()}" for i, block in enumerate(blocks))
    return f"{kept}\n\n{numbered}\n\n\nend of trees\n"


def _head(text: str) -> str:
    return text.partition("\nTree=0\n")[0]


def _blocks(text: str) -> list[str]:
    body = text.partition("\nTree=0\n")[2].partition("\nend of trees")[0]
    return [part.partition("\n")[2] for part in ("0\n" + body).split("\nTree=")]


def _header(header: str, features: int) -> str:
    """Return a header with so many features, of any values."""
    new = {
        "max_feature_idx": str(features - 1),
        "feature_names": " ".join(f"f{i}" for i in range(features)),
        "feature_infos": " ".join(["none"] * features),
    }
    lines = (line.partition("=") for line in header.splitlines())
    return "\n".join(f"{name}{sign}{new.get(name, value)}" for name, sign, value in lines)


def _renumbered(block: str, places: Sequence[int]) -> str:
    """Return a tree that reads the columns at other places."""
    before, found, rest = block.partition("split_feature=")
    if not found:
        return block
    columns, _, after = rest.partition("\n")
    return f"{before}split_feature={_join(places[int(c)] for c in columns.split())}\n{after}"


def _times(block: str, factor: float) -> str:
    """Return a tree with its leaves' values multiplied."""
    if factor == 1:
        return block
    return _with_leaves(block, factor * _leaf_values(block))


def _with_leaves(block: str, values: NDArray[np.float64]) -> str:
    """Return a tree with other values of its leaves."""
    before, _, rest = block.partition("leaf_value=")
    return f"{before}leaf_value={_join(values.tolist())}\n{rest.partition(chr(10))[2]}"


def _block(tree: Tree) -> str:
    """Number the inner nodes and the leaves apart, as LightGBM does (a leaf is its complement)."""
    inner = np.flatnonzero(tree.left >= 0)
    leaves = np.flatnonzero(tree.left < 0)
    place = np.zeros(len(tree.left), np.int64)
    place[inner], place[leaves] = np.arange(len(inner)), ~np.arange(len(leaves))
    lines = [f"num_leaves={len(leaves)}", f"num_cat={len(tree.categories)}"]
    if len(inner):
        threshold, kinds = tree.threshold.copy(), np.zeros(len(tree.left), np.int64)
        if tree.missing_left is not None:
            kinds = _NAN_MISSING + _DEFAULT_LEFT * tree.missing_left
        bounds, words = [0], []
        for i, (node, codes) in enumerate(sorted(tree.categories.items())):
            bits = _bitset(codes)
            words += bits
            bounds.append(len(words))
            threshold[node], kinds[node] = i, _CATEGORICAL
        lines += [
            f"split_feature={_join(tree.feature[inner])}",
            f"threshold={_join(threshold[inner].tolist())}",
            f"decision_type={_join(kinds[inner])}",
            f"left_child={_join(place[tree.left[inner]])}",
            f"right_child={_join(place[tree.right[inner]])}",
        ]
        if words:
            lines += [f"cat_boundaries={_join(bounds)}", f"cat_threshold={_join(words)}"]
    lines.append(f"leaf_value={_join(tree.value[leaves].tolist())}")
    if tree.cover is not None:
        counts = _counts(tree.cover)
        lines += [f"leaf_count={_join(counts[leaves])}", f"internal_count={_join(counts[inner])}"]
    lines += ["is_linear=0", "shrinkage=1"]
    return "\n".join(lines)


def _counts(cover: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return covers as the whole numbers that LightGBM's text has, none of them 0."""
    parts = cover / (float(cover.max(initial=0.0)) or 1.0)
    return np.maximum(1, np.rint(parts * _MOST_COUNTED)).astype(np.int64)


def _has_counts(text: str) -> bool:
    """Return whether each tree with a split says how many rows came by."""
    return all("\nleaf_count=" in block or block.startswith("num_leaves=1\n") for block in _blocks(text))


def _leaves(text: str) -> list[int]:
    """Return the number of each tree's leaves."""
    return [int(line[11:]) for line in text.split("\n") if line.startswith("num_leaves=")]


def _bitset(codes: NDArray[np.int64]) -> list[int]:
    words = [0] * (int(codes.max(initial=0)) // 32 + 1)
    for code in codes.tolist():
        words[code // 32] |= 1 << (code % 32)
    return words


def _join(values: Iterable[Any]) -> str:
    return " ".join(map(repr, values)) if isinstance(values, list) else " ".join(map(str, values))


def _without_nan(output: dict[str, Any]) -> dict[str, Any]:
    return {**output, "fill": [None if np.isnan(v) else v for v in output["fill"]]}


class _TreeSums:
    """Sums of leaves by score column, each of which has trees of its own."""

    def __init__(self, text: str, width: int) -> None:
        self._booster = lgb.Booster(model_str=text)
        self.of_row = _SingleRow(self._booster, width, kind=_RAW)

    def of_rows(self, X: Matrix, *, threads: int) -> NDArray[np.float64]:
        return np.asarray(self._booster.predict(X, raw_score=True, num_threads=threads))


class _LeafSums:
    """Sums of leaves where the columns' trees are the same: a leaf is found once, and has `width` values."""

    def __init__(self, text: str, values: NDArray[np.float32]) -> None:
        self._booster = lgb.Booster(model_str=text)
        self._values, counts = values, _leaves(text)
        self._starts = np.cumsum([0, *counts[:-1]])
        self._single = _SingleRow(self._booster, len(counts), kind=_LEAF)

    def of_row(self, row: Matrix) -> NDArray[np.float64]:
        leaves = self._single(row).astype(np.int64)
        return np.asarray(self._values[leaves + self._starts].sum(axis=0, dtype=np.float64))

    def of_rows(self, X: Matrix, *, threads: int) -> NDArray[np.float64]:
        parts = (X[i : i + _LEAF_ROWS] for i in range(0, len(X), _LEAF_ROWS))
        return np.concatenate([self._of_some(part, threads) for part in parts])

    def _of_some(self, X: Matrix, threads: int) -> NDArray[np.float64]:
        leaves = np.asarray(self._booster.predict(X, pred_leaf=True, num_threads=threads))
        sums = np.zeros((len(X), self._values.shape[1]))
        for tree, start in zip(leaves.reshape(len(X), -1).T, self._starts, strict=True):
            sums += self._values[tree + start]
        return sums


def _leaf_values(block: str) -> NDArray[np.float64]:
    line = block.partition("leaf_value=")[2].partition("\n")[0]
    return np.array(line.split(), dtype=np.float64)


class _SingleRow:
    """LightGBM's prepared call for one row, which its Python package does not wrap; one a thread.

    It gives `width` sums of leaves, or as many leaves' numbers. The next call in the same thread overwrites
    what it returned.
    """

    def __init__(self, booster: lgb.Booster, width: int, *, kind: int) -> None:
        self._booster, self._width, self._columns = booster, width, booster.num_feature()
        self._kind = kind
        self._local = threading.local()

    def __call__(self, row: Matrix) -> NDArray[np.float64]:
        local = self._local
        if not hasattr(local, "config"):
            self._prepare(local)
        code = _C.LGBM_BoosterPredictForMatSingleRowFast(
            local.config, ctypes.c_void_p(row.ctypes.data), local.length, local.pointer
        )
        if code:
            raise RuntimeError("LightGBM could not answer a row")
        out: NDArray[np.float64] = local.out
        return out

    def _prepare(self, local: Any) -> None:
        local.out = np.zeros(self._width)
        local.pointer = local.out.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
        local.length = ctypes.byref(ctypes.c_int64(0))
        config = ctypes.c_void_p()
        code = _C.LGBM_BoosterPredictForMatSingleRowFastInit(
            self._booster._handle,  # noqa: SLF001 - as above
            ctypes.c_int(self._kind),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_int(_FLOAT32),
            ctypes.c_int32(self._columns),
            ctypes.c_char_p(b"num_threads=1"),
            ctypes.byref(config),
        )
        if code:
            raise RuntimeError("LightGBM could not prepare single rows")
        local.config, local.free = config, _Free(config)


class _Free:
    """Gives a prepared call's memory back with its thread."""

    def __init__(self, config: ctypes.c_void_p) -> None:
        self._config = config

    def __del__(self) -> None:
        _C.LGBM_FastConfigFree(self._config)
