"""The seam between serving and the registry: who says what serves, and where its files are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from raywf.core.records import ModelVersion


class ModelSource(Protocol):
    """Resolves an alias to a version and brings its bundle; picklable, safe to call from threads."""

    def resolve(self, alias: str) -> ModelVersion:
        """Return the version that the alias names now.

        Raises:
            RegistryError: if there is no such alias, or the registry cannot be reached.
        """
        ...

    def version(self, version: str) -> ModelVersion:
        """Return a version by its name.

        Raises:
            RegistryError: if there is no such version, or the registry cannot be reached.
        """
        ...

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        """Copy the version's bundle below `folder` and return the bundle's own folder.

        Raises:
            RegistryError: if the files cannot be read.
        """
        ...
