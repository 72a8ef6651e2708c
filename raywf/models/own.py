"""Members of the user's own: a class or function whose objects fit, predict, save and load.

``made = Name(**params)``, then

* ``made.fit(X, y)`` with ``X`` float32 ``(n_rows, n_features)``: numbers as they are, categories as codes
  from 0 (nan: missing or unknown), and ``y`` class indices or values. A model whose input is a table gets a
  ``pyarrow.Table`` of the snapshot's columns instead: float64, text and instants, null where missing. Where
  its signature has them it also gets ``valid`` (a pair like ``X, y`` to stop early by), ``weights``,
  ``problem`` (a `Problem`), ``rounds`` (what the folds stopped at) and ``rung`` (how far to fit; called again
  on the same object it goes on).
* ``made.predict(X)`` or, of classes, ``made.predict_proba(X)``: ``(n_rows,)`` or ``(n_rows, k)``.
* ``made.save(folder)`` and ``made.load(folder)``: its files, without pickle; ``load`` is called on a new
  object of the same parameters.

An attribute ``rounds`` is kept as the rounds that it took. Where a team of workers fits, each has an object
of its own and every n-th row; the first one's `save` is the model, and a rung begins with `load` of the last.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raywf.core.own import OwnCode
from raywf.models.encoding import Matrix
from raywf.models.family import Model, Problem, Rows, Scores

_CODE, _FILES = "code.json", "files"


@dataclass(slots=True)
class OwnModel:
    """The user's object, with what is needed to make it again."""

    made: Any
    code: OwnCode
    params: dict[str, Any]
    problem: Problem
    rounds: int = 0
    reads_table: bool = False

    def predict(self, X: Matrix | pa.Table) -> Scores:
        asked = getattr(self.made, "predict_proba", None) if self.problem.task != "regression" else None
        found = np.asarray((asked or self.made.predict)(X), dtype=np.float64)
        if found.ndim == 1:
            found = found[:, None]
        if self.problem.task == "binary" and found.shape[1] == 2:
            found = found[:, 1:]
        if found.shape != (len(X), self.problem.width):
            raise ValueError(
                f"{self.code.name} answers {len(X)} rows with shape {found.shape}, "
                f"expected {(len(X), self.problem.width)}"
            )
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as files: the class is known to this one only."""
        with tempfile.TemporaryDirectory(prefix="raywf-") as name:
            self.made.save(Path(name))
            files = read_files(Path(name))
        return revive, (self.code, self.params, self.problem, files, self.rounds, self.reads_table)

    def save(self, folder: Path) -> None:
        code = {"file": self.code.file, "name": self.code.name, "source": self.code.source}
        kept = {**code, "params": self.params, "reads_table": self.reads_table}
        (folder / _CODE).write_text(json.dumps(kept))
        (folder / _FILES).mkdir()
        self.made.save(folder / _FILES)


@dataclass(frozen=True, slots=True)
class OwnFamily:
    """The family of a model of the user's own; picklable."""

    name: str
    code: OwnCode
    rungs: tuple[int, ...] = ()
    reads_table: bool = False

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        rungs = self.rungs[-1:] or (0,)
        *_, last = self._fits(problem, rows, params, valid=valid, rounds=rounds, rungs=rungs)
        return last

    def stages(self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows) -> Iterator[Model]:
        """Yield the model after each rung, which goes on from the one before."""
        return self._fits(problem, rows, params, valid=valid, rounds=0, rungs=self.rungs or (0,))

    def load(self, problem: Problem, folder: Path) -> Model:
        raise ValueError("a model of the user's own is loaded by `load_own`")

    def merge(self, models: Sequence[Any]) -> Model:
        raise ValueError("models of the user's own do not merge")

    def _fits(
        self,
        problem: Problem,
        rows: Rows,
        params: dict[str, Any],
        *,
        valid: Rows | None,
        rounds: int,
        rungs: tuple[int, ...],
    ) -> Iterator[Model]:
        made = make_own(self.code, params)
        for rung in rungs:
            plan = FitPlan(problem=problem, rounds=rounds, rung=rung, reads_table=self.reads_table)
            fit_rung(made, plan, rows, valid=valid)
            yield OwnModel(made, self.code, params, problem, rounds_of(made), self.reads_table)


def make_own(code: OwnCode, params: dict[str, Any], files: Mapping[str, bytes] | None = None) -> Any:
    """Return a new object of the user's, with what an earlier one has saved.

    Raises:
        TypeError: if it lacks a method.
    """
    made = code.load()(**params)
    answer = "predict_proba" if hasattr(made, "predict_proba") else "predict"
    for need in ("fit", answer, "save", "load"):
        if not callable(getattr(made, need, None)):
            raise TypeError(f"{code.name} has no method {need!r}")
    if files is not None:
        _load_files(made, files)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """What a fit of the user's own is told: the rounds or the rung to go to, and what its rows are."""

    problem: Problem
    rounds: int = 0
    rung: int = 0
    reads_table: bool = False

    def inputs(self, rows: Rows) -> Matrix | pa.Table:
        """Return the rows as the user's object takes them."""
        return rows.table if self.reads_table else rows.X


def fit_rung(made: Any, plan: FitPlan, rows: Rows, *, valid: Rows | None) -> None:
    """Call the object's `fit` with what its signature takes."""
    offered: dict[str, Any] = {
        "valid": None if valid is None else (plan.inputs(valid), valid.y),
        "weights": rows.weights,
        "problem": plan.problem,
        "rounds": plan.rounds,
        "rung": plan.rung,
    }
    made.fit(plan.inputs(rows), rows.y, **_taken(made.fit, offered))


def rounds_of(made: Any) -> int:
    """Return the rounds that an object says it took, or 0."""
    return int(getattr(made, "rounds", 0) or 0)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by their path in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def load_own(problem: Problem, folder: Path, *, trust: bool) -> Model:
    """Load what `OwnModel.save` wrote, by its own code.

    Raises:
        ValueError: without `trust`.
    """
    stored = json.loads((folder / _CODE).read_text())
    params, reads_table = stored.pop("params"), stored.pop("reads_table", False)
    code = OwnCode(**stored)
    if not trust:
        raise ValueError(f"it holds Python of {code.file}, which runs only where the workflow trusts it")
    made = make_own(code, params)
    made.load(folder / _FILES)
    return OwnModel(made, code, params, problem, reads_table=reads_table)


def revive(
    code: OwnCode,
    params: dict[str, Any],
    problem: Problem,
    files: dict[str, bytes],
    rounds: int,
    reads_table: bool,
) -> OwnModel:
    """Return the model whose object has saved these files."""
    return OwnModel(make_own(code, params, files), code, params, problem, rounds, reads_table)


def _load_files(made: Any, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="raywf-") as name:
        for path, content in files.items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(content)
        made.load(Path(name))


def _taken(function: Any, offered: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return dict(offered)
    return {name: value for name, value in offered.items() if name in known}
