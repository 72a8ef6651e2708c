"""How many trials run at once: on what is there, and on what a cluster that grows may add.

Ray tells no driver how large a cluster may become. So it is assumed that a cluster which may grow comes to
have room for `search.max_concurrent` trials, and that a new node takes two minutes to come. Trials that wait
are what asks for nodes, hence never more than so many; without `max_concurrent` a search asks for none
beyond a first slot. Where CPU-seconds or money are bounded, it asks for no more slots than may be paid for
all the time that it would have without them: a bound makes a growing cluster smaller, not its search shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

from raywf.core.records import Rate
from raywf.core.settings import SearchSettings
from raywf.search.budget import Occupied, Taken, allowed_seconds, count_slots

NODE_S = 120.0  # until a node that was asked for takes its first trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The slots of a search: those `there` at its start, and the `most` that it asks for."""

    search: SearchSettings
    there: int
    most: int

    @property
    def grows(self) -> bool:
        """Whether more slots may come than there are."""
        return self.most > self.there

    def occupied(self, *, cpus: float, gpus: float = 0.0) -> Occupied:
        """Return what the search may occupy of so many CPUs and GPUs.

        >>> room = Room(search=SearchSettings(max_concurrent=4), there=1, most=4)
        >>> room.occupied(cpus=3), room.occupied(cpus=9)
        (Occupied(slots=3, cpus=3, gpus=0.0), Occupied(slots=4, cpus=4, gpus=0.0))
        """
        slots = min(self.most, int(cpus) // self.search.slot_cpus)
        at_once = max(1, slots)
        return Occupied(
            slots=slots,
            cpus=min(cpus, at_once * _widest(self.search)),
            gpus=min(gpus, at_once * _most_gpus(self.search)) if cpus else 0.0,
        )

    def slot_seconds(self, seconds: float) -> float:
        """Return the slots' time in so many seconds; those that have yet to come are there for the rest.

        >>> Room(search=SearchSettings(), there=1, most=5).slot_seconds(300)
        1020.0
        """
        return self.there * seconds + (self.most - self.there) * max(0.0, seconds - NODE_S)


def room_for(
    search: SearchSettings,
    rate: Rate | None,
    *,
    cpus: float,
    gpus: float = 0.0,
    grows: bool = False,
    taken: Taken | None = None,
) -> Room:
    """Return the room on a cluster of so many CPUs and GPUs, which may be one that `grows`.

    >>> search = SearchSettings(budget_s=600, max_concurrent=8, max_cpu_s=2000)
    >>> room = room_for(search, None, cpus=1, grows=True)
    >>> (room.there, room.most)
    (1, 3)
    """
    there = count_slots(search, cpus=cpus)

    def allowed_s(slots: int) -> float:
        most = most_occupied(search, slots, cpus=cpus, gpus=gpus, grows=grows)
        return allowed_seconds(search, rate, cpus=most.cpus, gpus=most.gpus, taken=taken)

    asked = search.max_concurrent or there
    wanted = range(asked if grows else there, there, -1)
    enough = allowed_s(there)
    return Room(search=search, there=there, most=next((n for n in wanted if allowed_s(n) >= enough), there))


def most_occupied(
    search: SearchSettings, slots: int, *, cpus: float, gpus: float = 0.0, grows: bool = False
) -> Occupied:
    """Return the most that so many slots may come to occupy on a cluster that has so much now."""
    most_cpus, most_gpus = float(slots * _widest(search)), slots * _most_gpus(search)
    if not grows:
        return Occupied(slots=slots, cpus=max(1.0, min(cpus, most_cpus)), gpus=min(gpus, most_gpus))
    return Occupied(slots=slots, cpus=most_cpus, gpus=most_gpus)


def _widest(search: SearchSettings) -> int:
    """Return the CPUs of the trial that takes most."""
    return max([search.slot_cpus, *(model.cpus * model.workers for model in search.models.values())])


def _most_gpus(search: SearchSettings) -> float:
    """Return the GPUs of the trial that takes most: none, unless a model of the user's own takes some."""
    return max([0.0, *(model.gpus * model.workers for model in search.models.values())])
