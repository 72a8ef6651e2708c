"""Brings an error of a Ray task home as what it was: one line, of raywf's own kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from ray.exceptions import RayTaskError

from raywf.core.errors import RaywfError, SourceError


@contextmanager
def task_errors(table: str) -> Iterator[None]:
    """Raise the raywf error that a task raised within the block, or say that the table cannot be read.

    Raises:
        RaywfError: the task's own.
        SourceError: if Arrow or the file system refused a file.

    """
    try:
        yield
    except RayTaskError as err:
        causes = list(_causes(err))
        for cause in causes:
            if isinstance(cause, RaywfError) and not isinstance(cause, RayTaskError):
                raise cause from None
        for cause in causes:
            if isinstance(cause, (pa.ArrowException, OSError)) and not isinstance(cause, RayTaskError):
                raise SourceError(f"{table} table cannot be read: {str(cause).splitlines()[0]}") from err
        line = re.search(r"CSV parse error[^\n]*|Failed to read CSV file[^\n]*", str(err))
        if line:  # Ray hands on a ValueError with the reason in the trace's text only
            raise SourceError(f"{table} table cannot be read: {line[0]}") from err
        raise


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue = [err]
    while queue:
        here = queue.pop(0)
        if here is None or id(here) in seen:
            continue
        seen.add(id(here))
        yield here
        queue += [getattr(here, "cause", None), here.__cause__, here.__context__]
