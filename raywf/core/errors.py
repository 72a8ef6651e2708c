"""Everything raywf raises on purpose.

The tree, by what the caller does next::

    RaywfError
    ├── SettingsError        mend workflow.yaml, the environment or the command line
    ├── SourceError          mend a table: it cannot be read or lacks a column
    ├── ValidationError      mend the data: a check refused the snapshot
    ├── SearchError          give more budget or look at the failed trials
    ├── BundleError          do not serve these files: digest, schema or answers differ
    ├── RegistryError        look at the registry: it cannot be reached or written
    │   └── NoVersionError   name a model version or alias that exists
    ├── ServingError         look at the cluster: the endpoint or a swap did not work
    ├── RowError             mend one row of a request (HTTP 422)
    └── JobError             look at the job's logs

Each takes one message, so that each survives pickling between processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 300  # characters of another's text that a line of ours holds


class RaywfError(Exception):
    """Root of raywf's errors; the command line prints its message on one line and exits with 1."""


class SettingsError(RaywfError):
    """A setting is unknown, of the wrong type or out of range."""


class SourceError(RaywfError):
    """A table cannot be read, or lacks a column that the workflow names."""


class ValidationError(RaywfError):
    """The data failed a check; nothing was written and nothing was trained."""


class SearchError(RaywfError):
    """No trial gave a model that can be used."""


class BundleError(RaywfError):
    """A bundle's files are incomplete, changed, or answer otherwise than they did at export."""


class RegistryError(RaywfError):
    """The registry has no such version or alias, or cannot be reached."""


class NoVersionError(RegistryError):
    """The registry has no such version or alias."""


class ServingError(RaywfError):
    """The endpoint is not up, or a swap was aborted."""


class RowError(RaywfError):
    """One row of a request does not fit the model's input schema."""


class JobError(RaywfError):
    """A cluster job failed or cannot be found."""


def describe_error(err: BaseException) -> str:
    """Return anyone's error on one line: its type and the beginning of its text.

    >>> describe_error(ValueError("three  words   here"))
    'ValueError: three words here'
    """
    text = " ".join(str(err).split())
    return f"{type(err).__name__}: {text[:_LONGEST]}" if text else type(err).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, else the list of known words.

    >>> did_you_mean("fetures", ["features", "search"])
    "; did you mean 'features'?"
    >>> did_you_mean("zzz", ["features", "search"])
    '; known: features, search'
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
