"""The user's own families of one search, with what a fit of each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raywf.core.own import read_code
from raywf.core.settings import OwnModelSettings, SearchSettings
from raywf.models.families import family
from raywf.models.family import Family
from raywf.models.own import OwnFamily
from raywf.search.team import Team, TeamFamily


@dataclass(frozen=True, slots=True)
class Families:
    """Finds families by name, raywf's and the user's; `settings` say what a fit of the user's takes."""

    own: Mapping[str, OwnFamily] = field(default_factory=dict)
    settings: Mapping[str, OwnModelSettings] = field(default_factory=dict)

    def find(self, name: str) -> Family:
        """Return a family.

        Raises:
            SearchError: if there is none of that name.
        """
        return self.own.get(name) or family(name)

    def cpus(self, name: str, *, default: int) -> int:
        """Return how many CPUs, and threads, a process of a fit has."""
        return self.settings[name].cpus if name in self.settings else default

    def resources(self, name: str, *, default: int) -> dict[str, float]:
        """Return the CPUs and GPUs of the process that calls a fit: none where others carry it out."""
        own = self.settings.get(name)
        if own is None:
            return {"CPU": float(default)}
        return {} if own.workers > 1 else own.resources


def find_families(settings: SearchSettings, *, folder: str) -> Families:
    """Return the families of a search, the texts of the user's read; teams work below `folder`.

    Raises:
        SettingsError: if one cannot be read.
    """
    own = {name: _family(name, model, folder) for name, model in settings.models.items()}
    return Families(own=own, settings=dict(settings.models))


def _family(name: str, model: OwnModelSettings, folder: str) -> OwnFamily:
    code, reads_table = read_code(model.code), model.input == "table"
    if model.workers == 1:
        return OwnFamily(name, code, model.rungs, reads_table)
    team = Team(workers=model.workers, each=model.resources, folder=folder)
    return TeamFamily(name, code, model.rungs, reads_table, team=team)
