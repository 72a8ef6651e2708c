"""The labels of a regression on a scale that the libraries' float32 arithmetic bears."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raywf.models.family import Labels, Problem

_SPREADS = (1e-4, 1e6)  # ordinary ones; scikit-learn's trees take a variance below 2e-16 for none
_OFFSET = 30.0  # spreads that the mean may lie from 0


@dataclass(frozen=True, slots=True)
class Scale:
    """A label is ``center + spread * scaled``."""

    center: float = 0.0
    spread: float = 1.0

    def scaled(self, labels: Labels) -> Labels:
        """Return labels on this scale."""
        return labels if self == Scale() else (labels - self.center) / self.spread


def find_scale(labels: Labels) -> Scale:
    """Return the scale of mean 0 and standard deviation 1; huge and tiny labels neither over- nor underflow.

    >>> find_scale(np.array([1.0, 3.0]) * 2.0**600) == Scale(2.0**601, 2.0**600)
    True
    """
    size = float(np.abs(labels).max(initial=0.0)) or 1.0
    parts = labels / size
    return Scale(size * float(parts.mean()), size * float(parts.std()) or 1.0)


def label_scale(problem: Problem, labels: Labels) -> Scale:
    """Return the scale to fit on: the labels' own where it is an ordinary one, or they are classes."""
    if problem.task != "regression":
        return Scale()
    found = find_scale(labels)
    ordinary = _SPREADS[0] <= found.spread <= _SPREADS[1] and abs(found.center) <= _OFFSET * found.spread
    return Scale() if ordinary else found
