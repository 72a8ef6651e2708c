"""Explanations of answered rows: asked for by ``"explain": true`` in a JSON body, and bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raywf.core.records import Bundle
from raywf.serving.cache import LoadedModel
from raywf.serving.lanes import Answered
from raywf.serving.requests import RequestError
from raywf.serving.schema import brief

MAX_EXPLAINED = 100  # rows of a request
LONGEST_S = 20.0  # of a request's explanations
_STEP = 5  # rows between two looks at the clock
_AT_ONCE = 2  # requests: others wait with their callers, not in the threads that long bodies need
_KEY = "explain"


def may_explain(body: bytes) -> bool:
    """Return whether a body may ask for explanations: never False for one that does, at next to no cost.

    JSON may escape any letter of the key: those of ``explain`` are 0061 to 0078.
    """
    return b"explain" in body or b"\\u006" in body or b"\\u007" in body


def take_explain(data: Any) -> tuple[Any, bool]:
    """Return a predict body's JSON without the key ``explain``, and whether it asks for explanations.

    Raises:
        RequestError: 422, if the key's value is not true or false.
    """
    if not isinstance(data, dict) or _KEY not in data:
        return data, False
    asked = data[_KEY]
    if not isinstance(asked, bool):
        raise RequestError(422, f"{_KEY!r} must be true or false, got {brief(asked)}")
    return {name: value for name, value in data.items() if name != _KEY}, asked


class Explanations:
    """Explains what models answered, a few requests at a time; meant for threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._monotonic = monotonic

    @contextmanager
    def turn(self, rows: int) -> Iterator[None]:
        """Let a request have its rows explained within the block.

        Raises:
            RequestError: 413 for too many rows, 503 while enough others are being explained.
        """
        if rows > MAX_EXPLAINED:
            raise RequestError(
                413, f"the body holds {rows} rows, of at most {MAX_EXPLAINED} answers are explained"
            )
        if not self._turns.acquire(blocking=False):
            reason = "other answers are being explained, nothing was taken; ask again"
            raise RequestError(503, reason, headers={"retry-after": "1"})
        try:
            yield
        finally:
            self._turns.release()

    def explain(self, groups: Sequence[Answered]) -> list[dict[str, Any]]:
        """Return why each row of all groups was answered so, in the request's order.

        Raises:
            RequestError: 413, if that takes too long; the rows' answers are in the log all the same.
        """
        deadline = self._monotonic() + LONGEST_S
        found: dict[int, dict[str, Any]] = {}
        for group in groups:
            for start in range(0, len(group.rows), _STEP):
                if self._monotonic() > deadline:
                    reason = f"explaining took longer than {LONGEST_S:g} s; ask for fewer rows at once"
                    raise RequestError(413, reason)
                places = group.places[start : start + _STEP]
                rows = [row.features for row in group.rows[start : start + _STEP]]
                found |= dict(zip(places, _explained(group.model, rows), strict=True))
        return [found[place] for place in sorted(found)]


def _explained(model: LoadedModel, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    bundle, told = model.predictor.bundle, model.explainer.explain(rows)
    base = _by_class(told.base, bundle, whole=1.0)
    names = [column.name for column in bundle.columns]
    shares = [[_by_class(part, bundle, whole=0.0) for part in parts] for parts in told.contributions]
    return [
        {"methods": told.methods, "base": base, "contributions": dict(zip(names, each, strict=True))}
        for each in shares
    ]


def _by_class(values: NDArray[np.float64], bundle: Bundle, *, whole: float) -> float | dict[str, float]:
    """Return values ``(k,)`` in the form of an answer: of a regression a number, else one a class.

    `whole` is what the values of two classes sum to: 1 for probabilities, 0 for changes of them.
    """
    if bundle.task == "regression":
        return float(values[0])
    told = [whole - float(values[0]), float(values[0])] if bundle.task == "binary" else values.tolist()
    return dict(zip(bundle.classes, told, strict=True))
