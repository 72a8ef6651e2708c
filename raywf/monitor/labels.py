"""Labels in columns: texts and flags by their place in a pool, numbers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from raywf.core.metrics import Array
from raywf.monitor.reference import Reference

Kinds = NDArray[np.int32]
NONE, REAL, WHOLE = -1, -2, -3  # kinds; others are places in the pool
_EXACT = 2**53


@dataclass(slots=True)
class LabelPool:
    """The distinct labels that are no numbers; a row's label is a kind and, where it is one, a number."""

    texts: list[str | float] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _others: dict[bytes, int] = field(default_factory=dict)
    _tables: dict[str, Array] = field(default_factory=dict)

    def encode(self, labels: Sequence[str | float]) -> tuple[Kinds, Array]:
        """Return the kinds and numbers of labels, shape ``(n_labels,)``."""
        places = list(map(self._places.get, labels))  # type: ignore[arg-type]  # a number finds nothing
        numbers = np.full(len(labels), np.nan)
        if None in places:
            for at, place in enumerate(places):
                if place is None:
                    places[at], numbers[at] = self._encode(labels[at])
        return np.array(places, dtype=np.int32), numbers

    def decode(self, kind: int, number: float) -> str | float:
        """Return a label as the log has it."""
        if kind >= 0:
            return self.texts[kind]
        return int(number) if kind == WHOLE else number

    def values(self, reference: Reference, kinds: Kinds, numbers: Array) -> Array:
        """Return class indices or values by a version's reference, NaN for what it does not know."""
        table = self._tables.get(reference.version, np.empty(0))
        if len(table) <= len(self.texts):
            table = np.array([_value(reference, text) for text in (*self.texts, None)])  # -1 is NONE
            self._tables[reference.version] = table
        found = table[np.maximum(kinds, NONE)]
        plain = kinds <= REAL
        if plain.any():
            distinct, places = np.unique(numbers[plain], return_inverse=True)
            if reference.classes:
                distinct = np.array([_value(reference, float(number)) for number in distinct])
            found[plain] = distinct[places]
        return found

    def _encode(self, label: str | float) -> tuple[int, float]:
        if type(label) is float:
            return REAL, label
        if type(label) is int and abs(label) < _EXACT:
            return WHOLE, float(label)
        if isinstance(label, str):
            place = self._places.setdefault(label, len(self.texts))
        else:
            place = self._others.setdefault(orjson.dumps(label), len(self.texts))
        if place == len(self.texts):
            self.texts.append(label)
        return place, np.nan


def restored_pool(texts: Sequence[str | float]) -> LabelPool:
    """Return a pool that gives labels the same kinds as the one whose texts these are."""
    pool = LabelPool()
    pool.encode(texts)
    return pool


def label_content(label: str | float, value: float) -> bytes:
    """Return what settles which of two outcomes counts where their times do not: their lines' last part."""
    data: dict[str, Any] = {"l": label}
    if value == value:
        data["u"] = value
    return orjson.dumps(data)


def _value(reference: Reference, label: str | float | None) -> float:
    value = None if label is None else reference.label_value(label)
    return np.nan if value is None else value
