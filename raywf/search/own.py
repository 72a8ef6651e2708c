"""The user's own families of one search, with what a fit of each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raywf.core.own import read_code
from raywf.core.settings import SearchSettings
from raywf.models.families import family
from raywf.models.family import Family
from raywf.models.own import OwnFamily


@dataclass(frozen=True, slots=True)
class Families:
    """Finds families by name, raywf's and the user's; `resources` are the CPUs and GPUs of the user's."""

    own: Mapping[str, OwnFamily] = field(default_factory=dict)
    resources: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def find(self, name: str) -> Family:
        """Return a family.

        Raises:
            SearchError: if there is none of that name.
        """
        return self.own.get(name) or family(name)

    def cpus(self, name: str, *, default: int) -> int:
        """Return how many CPUs, and threads, a fit has."""
        return self.resources[name][0] if name in self.resources else default

    def gpus(self, name: str) -> float:
        """Return how many GPUs a fit has."""
        return self.resources[name][1] if name in self.resources else 0.0


def find_families(settings: SearchSettings) -> Families:
    """Return the families of a search, the texts of the user's read.

    Raises:
        SettingsError: if one cannot be read.
    """
    models = settings.models.items()
    return Families(
        own={name: OwnFamily(name, read_code(model.code), model.rungs) for name, model in models},
        resources={name: (model.cpus, model.gpus) for name, model in models},
    )
