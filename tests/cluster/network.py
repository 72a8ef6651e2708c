"""Where a test cluster's nodes live: each in a network namespace with an address of its own, or on loopback.

Namespaces need Linux, root and `ip` (of iproute2). Without them all nodes share 127.0.0.1, and a test that
could do with either says which it had. RAYWFTEST_NAMESPACES=0 does without them wherever it runs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node lives; without a namespace it shares the machine's addresses."""

    address: str = "127.0.0.1"
    namespace: str = ""

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that is to run here."""
        return ("ip", "netns", "exec", self.namespace) if self.namespace else ()

    def pids(self) -> list[int]:
        """Return the ids of the processes that run in the namespace."""
        return [int(pid) for pid in _ip("netns", "pids", self.namespace).split()]


class Network(Protocol):
    """Has a place for each node."""

    def place(self) -> Place:
        """Return where another node may live."""
        ...


class Loopback:
    """All nodes at 127.0.0.1."""

    def place(self) -> Place:
        return Place()


class Bridged:
    """A bridge of this machine, and behind it a namespace for each node; their names are of this process."""

    def __init__(self) -> None:
        self._mark = f"rw{os.getpid()}"
        self._prefix = _free_prefix()
        self._places: list[Place] = []
        self._unused: list[Place] = []
        self.address = f"{self._prefix}.1"  # this machine's own, as the nodes see it
        _ip("link", "add", self._bridge, "type", "bridge")
        try:
            _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self._unused.append(self._add())  # shows whether it can be done
        except BaseException:
            self.close()
            raise

    def place(self) -> Place:
        return self._unused.pop() if self._unused else self._add()

    def _add(self) -> Place:
        number = len(self._places) + 2
        place = Place(f"{self._prefix}.{number}", f"{self._mark}-{number}")
        inside = ("-n", place.namespace)
        _ip("netns", "add", place.namespace)
        self._places.append(place)
        _ip("link", "add", place.namespace, "type", "veth", "peer", "name", "eth0", "netns", place.namespace)
        _ip("link", "set", place.namespace, "master", self._bridge, "up")
        _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{place.address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", "default", "via", self.address)
        return place

    def close(self) -> None:
        """Remove everything; a namespace whose processes have not ended yet is waited for."""
        deadline = time.monotonic() + _END_S
        for place in self._places:
            while place.pids() and time.monotonic() < deadline:
                time.sleep(0.1)
            _ip("netns", "del", place.namespace)
        self._places.clear()
        _ip("link", "del", self._bridge)

    @property
    def _bridge(self) -> str:
        return f"{self._mark}b"


@contextmanager
def open_network() -> Iterator[Bridged | Loopback]:
    """A network with namespaces where they are allowed, else loopback; nothing of it is left behind."""
    network = _bridged()
    try:
        yield network
    finally:
        if isinstance(network, Bridged):
            network.close()


def _bridged() -> Bridged | Loopback:
    wanted = os.environ.get("RAYWFTEST_NAMESPACES") != "0"
    if not wanted or os.geteuid() != 0 or shutil.which("ip") is None:
        return Loopback()
    try:
        return Bridged()
    except subprocess.CalledProcessError:  # a container without the right to
        return Loopback()


def _free_prefix() -> str:
    """Return the first three bytes of addresses that no interface of this machine has."""
    found: list[dict[str, Any]] = json.loads(_ip("-json", "addr"))
    taken = {one.get("local", "").rpartition(".")[0] for link in found for one in link.get("addr_info", ())}
    return random.SystemRandom().choice([p for i in range(1, 255) if (p := f"10.91.{i}") not in taken])


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
