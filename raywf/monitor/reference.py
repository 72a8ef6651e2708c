"""What a model version's answers are compared with: its classes, its loss scale, its training columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raywf.core.metrics import Array, bounded_loss
from raywf.core.records import ColumnProfile
from raywf.monitor.drift import as_text
from raywf.monitor.expectations import Expectations


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The facts of one model version that evidence rests on; `quantile` is what a regression is judged by."""

    version: str
    task: str
    classes: tuple[str, ...] = ()
    loss_scale: float | None = None
    quantile: float | None = None
    threshold: float = 0.5
    profile: tuple[ColumnProfile, ...] = ()
    maturity_s: float = 0.0
    expectations: Expectations | None = None

    @property
    def width(self) -> int:
        """How many scores an answer has."""
        return len(self.classes) if self.task == "multiclass" else 1

    def label_value(self, label: str | float) -> float | None:
        """Return a label's class index or value; None if the version knows no such label."""
        if not self.classes:
            return _number(label)
        text = as_text(label)
        for name in (text, text.lower()):
            if name in self.classes:
                return float(self.classes.index(name))
        return None

    def losses(self, labels: Array, scores: Array) -> Array:
        """Return the bounded loss of each row; `labels` has shape ``(n_rows,)``, `scores` ``(n_rows, k)``."""
        if len(labels) == 0:
            return np.array([])
        scale = None if self.classes else (self.loss_scale or 1.0)
        return bounded_loss(labels, scores, scale=scale, quantile=self.quantile)


class ReferenceSource(Protocol):
    """Says what a version is compared with; picklable."""

    def reference(self, version: str) -> Reference | None:
        """Return the version's reference, or None while it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class KnownReferences:
    """References held in memory."""

    by_version: Mapping[str, Reference]

    def reference(self, version: str) -> Reference | None:
        """Return the version's reference, or None."""
        return self.by_version.get(version)


def _number(label: str | float) -> float | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
