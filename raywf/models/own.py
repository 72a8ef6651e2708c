"""Members of the user's own: a class or function whose objects fit, predict, save and load.

``made = Name(**params)``, then

* ``made.fit(X, y)`` with ``X`` float32 ``(n_rows, n_features)``: numbers as they are, categories as codes
  from 0 (nan: missing or unknown), and ``y`` class indices or values. Where its signature has them it also
  gets ``valid`` (a pair like ``X, y`` to stop early by), ``weights``, ``problem`` (a `Problem`), ``rounds``
  (what the folds stopped at) and ``rung`` (how far to fit; called again on the same object it goes on).
* ``made.predict(X)`` or, of classes, ``made.predict_proba(X)``: ``(n_rows,)`` or ``(n_rows, k)``.
* ``made.save(folder)`` and ``made.load(folder)``: its files, without pickle; ``load`` is called on a new
  object of the same parameters.

An attribute ``rounds`` is kept as the rounds that it took.
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

    def predict(self, X: Matrix) -> Scores:
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
            files = {
                p.relative_to(name).as_posix(): p.read_bytes() for p in Path(name).rglob("*") if p.is_file()
            }
        return _revive, (self.code, self.params, self.problem, files, self.rounds)

    def save(self, folder: Path) -> None:
        code = {"file": self.code.file, "name": self.code.name, "source": self.code.source}
        (folder / _CODE).write_text(json.dumps({**code, "params": self.params}))
        (folder / _FILES).mkdir()
        self.made.save(folder / _FILES)


@dataclass(slots=True)
class OwnFamily:
    """The family of a model of the user's own; picklable."""

    name: str
    code: OwnCode
    rungs: tuple[int, ...] = ()

    def fit(
        self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows | None, rounds: int
    ) -> Model:
        rungs = self.rungs[-1:] or (0,)
        *_, last = self._fits(problem, rows, params, valid=valid, rounds=rounds, rungs=rungs)
        return last

    def stages(self, problem: Problem, rows: Rows, params: dict[str, Any], *, valid: Rows) -> Iterator[Model]:
        """Yield the model after each rung; it is one object that is fitted on and on."""
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
        made = self.code.load()(**params)
        answer = "predict_proba" if hasattr(made, "predict_proba") else "predict"
        for need in ("fit", answer, "save", "load"):
            if not callable(getattr(made, need, None)):
                raise TypeError(f"{self.code.name} has no method {need!r}")
        offered: dict[str, Any] = {
            "valid": None if valid is None else (valid.X, valid.y),
            "weights": rows.weights,
            "problem": problem,
            "rounds": rounds,
        }
        for rung in rungs:
            taken = _taken(made.fit, {**offered, "rung": rung})
            made.fit(rows.X, rows.y, **taken)
            yield OwnModel(made, self.code, params, problem, int(getattr(made, "rounds", 0) or 0))


def load_own(problem: Problem, folder: Path, *, trust: bool) -> Model:
    """Load what `OwnModel.save` wrote, by its own code.

    Raises:
        ValueError: without `trust`.
    """
    stored = json.loads((folder / _CODE).read_text())
    params = stored.pop("params")
    code = OwnCode(**stored)
    if not trust:
        raise ValueError(f"it holds Python of {code.file}, which runs only where the workflow trusts it")
    made = code.load()(**params)
    made.load(folder / _FILES)
    return OwnModel(made, code, params, problem)


def _revive(
    code: OwnCode, params: dict[str, Any], problem: Problem, files: dict[str, bytes], rounds: int
) -> OwnModel:
    made = code.load()(**params)
    with tempfile.TemporaryDirectory(prefix="raywf-") as name:
        for path, content in files.items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(content)
        made.load(Path(name))
    return OwnModel(made, code, params, problem, rounds)


def _taken(function: Any, offered: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return dict(offered)
    return {name: value for name, value in offered.items() if name in known}
