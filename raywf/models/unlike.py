"""Which values of a row are unlike anything that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raywf.core.category import spellings
from raywf.core.records import ColumnProfile, tells_range


class Unlike:
    """Looks at rows by the profile of training, ready to be asked often; immutable and thread-safe.

    A profile of before ranges were kept tells nothing.

    >>> seen = Unlike([ColumnProfile(name="x", kind="number", edges=(0.0, 5.0, 9.0), counts=(0, 3, 3, 0))])
    >>> [seen.names({"x": x}) for x in (7.5, 9.5, None)]
    [[], ['x'], ['x']]
    """

    def __init__(self, profile: Sequence[ColumnProfile]) -> None:
        known = profile if tells_range(profile) else ()
        self._ranges = tuple((one.name, one.edges[0], one.edges[-1]) for one in known if one.has_range)
        self._lists = tuple((one.name, frozenset(spellings(one.values))) for one in known if one.is_listed)
        self._filled = tuple(one.name for one in known if one.missing == 0)
        self._empty = tuple(one.name for one in known if one.is_empty and not one.is_listed)

    def names(self, row: Mapping[str, Any]) -> list[str]:
        """Return the columns of a row, as `RowSchema` reads it, whose value training had not.

        These are numbers beyond its range, categories that it did not hold, and missing values of columns
        that always had one. What the row lacks is missing, and what is no number is beyond any range.
        """
        found = [n for n, low, high in self._ranges if _lies_out(row.get(n), low, high)]
        found += [n for n, known in self._lists if (at := row.get(n)) is not None and at not in known]
        found += [n for n in self._filled if row.get(n) is None]
        found += [n for n in self._empty if row.get(n) is not None]
        return found


def _lies_out(value: Any, low: float, high: float) -> bool:
    return value is not None and not (isinstance(value, (int, float)) and low < value <= high)
