"""Why a bundle answers a row as it does: a base and what each column adds to it, in the answer's own unit.

A member's raw answer (log-odds of a boosted model or a linear one, a probability of a forest, a net or a
model of the user's own, the label's unit of a regression) is a sum over its columns: exact by TreeSHAP or
coefficients, or sampled. The way from these sums to the answer (each member's link, the weighted mean,
the calibration) bends. It is shared out by the Aumann-Shapley rule (Sun and Sundararajan, EC 2011): all
columns of all members come in together, from nothing to all of it, and each has what the answer moves by on
its account. So contributions sum to the answer less the base, and one linear member's of a regression are its
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.models.bundle import Predictor
from raywf.models.design import through_link
from raywf.models.encoding import Encoder
from raywf.models.family import Contributions, Model, Rows, answer
from raywf.models.pairs import Pairs
from raywf.models.shapley import Mixture, sample_shares

_STEPS, _LENGTHS = np.polynomial.legendre.leggauss(48)  # on [-1, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Rows taken apart: ``base + contributions.sum(axis=1)`` are their scores, as `Predictor` gives them.

    `base` has shape ``(k,)``, `contributions` ``(n_rows, n_columns, k)`` by the bundle's columns; `methods`
    are the members' ("trees", "linear" or "sampled"), each once.
    """

    methods: tuple[str, ...]
    base: NDArray[np.float64]
    contributions: NDArray[np.float64]


class Explainer:
    """Explains a bundle's answers; thread-safe, and much slower than these."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._owners = owners_of(predictor.encoder)
        self._background: Rows | None = None

    def explain(self, rows: Sequence[Mapping[str, Any]]) -> Explanation:
        """Take the answers to rows by column name apart.

        Raises:
            RowError: if a value is of the wrong type, naming the field.
            OSError: if the bundle's reference rows are needed and gone.
        """
        given = self._predictor.encode(rows)
        members = [
            (self._member(model, pairs, given), weight) for model, pairs, weight in self._predictor.members
        ]
        methods = dict.fromkeys(member.method for member, _ in members)
        base, _ = self._point(members, 0.0)
        shares = sum(
            length / 2 * self._point(members, (1 + step) / 2)[1]
            for step, length in zip(_STEPS, _LENGTHS, strict=True)
        )
        wanted = self._predictor.predict_rows(rows) - base
        return Explanation(
            methods=tuple(methods), base=base[0], contributions=_summing_to(wanted, np.asarray(shares))
        )

    def _point(
        self, members: Sequence[tuple[Contributions, float]], part: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the answers where each column has come in by this part, and how they move by columns."""
        scores, moves = np.zeros(()), np.zeros(())
        for member, weight in members:
            raw = member.base + part * member.added.sum(axis=1)
            found, moved = through_link(raw, member.added, member.link)
            scores, moves = scores + weight * found, moves + weight * moved
        calibration = self._predictor.calibration
        if calibration is None:
            return scores, moves
        return calibration.apply(scores), calibration.moved(scores, moves)

    def _member(self, model: Model, pairs: Pairs, given: Rows) -> Contributions:
        """Return a member's raw answers as sums over the bundle's columns."""
        exact = getattr(model, "contributions", None)
        found: Contributions | None = None if exact is None else exact(pairs.widen(given.X))
        if found is None:
            return self._sampled(model, pairs, given)
        added = _by_column(pairs.narrow(found.added, given.X.shape[1]), self._owners)
        return Contributions(method=found.method, link=found.link, base=found.base, added=added)

    def _sampled(self, model: Model, pairs: Pairs, given: Rows) -> Contributions:
        if self._background is None:
            self._background = self._predictor.encode(self._predictor.reference_rows() or [{}])
        back = self._background
        table = None if given.table is None else pa.concat_tables([given.table, back.table])
        together = Rows(np.concatenate([given.X, back.X]), given.y, table=table)

        def ask(rows: Rows) -> NDArray[np.float64]:
            return answer(model, Rows(pairs.widen(rows.X), rows.y, table=rows.table))

        base, added = sample_shares(ask, Mixture(together, len(back.X), self._owners))
        return Contributions(method="sampled", link="regression", base=base, added=added)


def owners_of(encoder: Encoder) -> NDArray[np.int64]:
    """Return the place of the column that each encoded column comes from, shape ``(n_features,)``."""
    widths = [4 if column.kind == "time" else 1 for column in encoder.columns]
    return np.repeat(np.arange(len(widths)), widths)


def _by_column(added: NDArray[np.float64], owners: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.add.reduceat(added, np.unique(owners, return_index=True)[1], axis=1))


def _summing_to(wanted: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread what the integral and single precision left out of `wanted` ``(n_rows, k)``, by size."""
    size = np.abs(shares)
    total = size.sum(axis=1, keepdims=True)
    parts = np.divide(size, total, out=np.full_like(size, 1 / max(1, size.shape[1])), where=total > 0)
    return np.asarray(shares + parts * (wanted - shares.sum(axis=1))[:, None])
