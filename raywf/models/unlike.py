"""Which values of a row are unlike anything that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raywf.core.records import ColumnProfile


class Unlike:
    """Looks at rows by the profile of training, ready to be asked often; immutable and thread-safe.

    >>> seen = Unlike([ColumnProfile(name="x", kind="number", edges=(0.0, 5.0, 9.0), counts=(0, 3, 3, 0))])
    >>> [seen.names({"x": x}) for x in (7.5, 9.5, None)]
    [[], ['x'], ['x']]
    """

    def __init__(self, profile: Sequence[ColumnProfile]) -> None:
        self._ranges = tuple((one.name, one.edges[0], one.edges[-1]) for one in profile if one.has_range)
        self._lists = tuple((one.name, frozenset(one.values)) for one in profile if one.is_listed)
        self._filled = tuple(one.name for one in profile if one.missing == 0)

    def names(self, row: Mapping[str, Any]) -> list[str]:
        """Return the columns of a row, as `RowSchema` reads it, whose value training had not.

        These are numbers beyond its range, categories that it did not hold, and missing values of columns
        that always had one.
        """
        found = [n for n, low, high in self._ranges if (at := row[n]) is not None and not low < at <= high]
        found += [n for n, known in self._lists if (at := row[n]) is not None and at not in known]
        found += [n for n in self._filled if row[n] is None]
        return found
