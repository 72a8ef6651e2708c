"""A table in parts, here or in the object store, with one way to work on both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data

from raywf.snapshots.sources import TASK_CPUS


@dataclass(frozen=True, slots=True)
class Blocks:
    """Arrow tables of this process, or references to such; each may have no rows."""

    parts: tuple[Any, ...]
    here: bool

    def reduce(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Return ``function(table, *args)`` of every part, in order."""
        if self.here:
            return [function(part, *args) for part in self.parts]
        return list(ray.get(self._submit(function, args)))

    def transform(self, function: Callable[..., pa.Table], *args: Any) -> Blocks:
        """Return the tables ``function(table, *args)``, left where the parts are."""
        if self.here:
            return Blocks(tuple(function(part, *args) for part in self.parts), here=True)
        return Blocks(tuple(self._submit(function, args)), here=False)

    def table(self) -> pa.Table:
        """Bring all parts here as one table."""
        parts = self.parts if self.here else ray.get(list(self.parts))
        return pa.concat_tables(parts)

    def dataset(self) -> ray.data.Dataset:
        """Return the parts as a Ray Dataset."""
        return (
            ray.data.from_arrow(list(self.parts)) if self.here else ray.data.from_arrow_refs(list(self.parts))
        )

    def _submit(self, function: Callable[..., Any], args: tuple[Any, ...]) -> list[ray.ObjectRef]:
        task = ray.remote(function).options(num_cpus=TASK_CPUS)
        return [task.remote(part, *args) for part in self.parts]


def to_blocks(dataset: ray.data.Dataset, *, gather_bytes: int) -> Blocks:
    """Take a materialised dataset's blocks, as one table here if small; none if there are no rows."""
    refs = dataset.to_arrow_refs()
    if dataset.count() == 0:
        return Blocks((), here=True)
    if (dataset.size_bytes() or 0) > gather_bytes:
        return Blocks(tuple(refs), here=False)
    tables = [table for table in ray.get(refs) if table.num_rows]
    return Blocks((pa.concat_tables(tables).combine_chunks(),), here=True)
