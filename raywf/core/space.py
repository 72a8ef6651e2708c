"""What a search may choose a parameter from, as a workflow writes it.

>>> parse_space({"lr": {"low": 0.001, "high": 0.1, "log": True}, "layers": {"low": 1, "high": 4}})["layers"]
Range(low=1, high=4, log=False, step=None)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, whole ones where both are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value may be drawn."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values: texts, numbers, flags or nothing."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value may be drawn."""
        return value in self.values


Space = dict[str, Range | Choice]


def parse_space(space: Mapping[str, Any]) -> Space:
    """Return the ranges and choices by parameter: ``{low, high, log, step}``, or a list of values.

    Raises:
        ValueError: naming the parameter and what is wrong with it.
    """
    return {str(name): _parse(str(name), given) for name, given in space.items()}


def _number(given: Any) -> Any:
    """Return a text such as ``1e-4``, which YAML does not take for a number, as one."""
    try:
        return float(given) if isinstance(given, str) else given
    except ValueError:
        return given


def _parse(name: str, given: Any) -> Range | Choice:
    if isinstance(given, (list, tuple)):
        if not given or not all(v is None or isinstance(v, (str, int, float)) for v in given):
            raise ValueError(f"{name!r} must list texts, numbers, true or false, got {given!r}")
        return Choice(tuple(given))
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given) <= _KEYS:
        raise ValueError(f"{name!r} must be a list or {{low, high, log, step}}, got {given!r}")
    low, high, step = (_number(given.get(key)) for key in ("low", "high", "step"))
    numbers = [low, high, *([] if step is None else [step])]
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in numbers):
        raise ValueError(f"{name!r} must have numbers as low, high and step, got {given!r}")
    log = bool(given.get("log", False))
    if not low < high or (log and low <= 0) or (log and step is not None) or (step is not None and step <= 0):
        raise ValueError(
            f"{name!r} must have low < high, both above 0 with log, and no step with log, got {given!r}"
        )
    return Range(low, high, log, step)
