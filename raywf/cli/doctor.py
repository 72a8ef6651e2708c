"""`raywf doctor`: what is wrong on this machine, and how to mend it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from raywf.cli.options import show, table
from raywf.core.errors import RaywfError
from raywf.core.loader import load_workflow
from raywf.core.settings import Workflow
from raywf.core.store import Store

_WANTED = {"ray": "2.60.", "mlflow": "3.17.", "lightgbm": "4.", "torch": "2."}
_LEAST_FREE_BYTES = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: good or not, what was seen, what to do."""

    name: str
    good: bool
    seen: str
    mend: str = ""


@click.command()
@click.option("-f", "--file", default="workflow.yaml", show_default=True, help="The workflow's settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(file: str, *, as_json: bool) -> None:
    """Say what is wrong on this machine and how to mend it; exits 1 if anything is."""
    found = [*_versions(), *_machine()]
    try:
        workflow = load_workflow(file)
        found += [Finding("workflow", good=True, seen=f"{file}: {workflow.name}"), *_stores(workflow)]
    except RaywfError as err:
        found.append(Finding("workflow", good=False, seen=str(err), mend="raywf init DIR, or -f FILE"))
    rows = [("ok" if f.good else "BAD", f.name, f.seen, f.mend) for f in found]
    show(found, as_json=as_json, lines=table(["", "what", "seen", "mend"], rows))
    if not all(f.good for f in found):
        raise click.exceptions.Exit(1)


def _versions() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding(
        "python", good=good, seen=sys.version.split()[0], mend="" if good else "Python 3.11 or later"
    )
    for name, wanted in _WANTED.items():
        try:
            seen = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            seen = "not installed"
        good = seen.startswith(wanted)
        yield Finding(name, good=good, seen=seen, mend="" if good else f"pip install '{name}=={wanted}*'")
    names = {d.metadata["Name"].lower() for d in importlib.metadata.distributions() if d.metadata["Name"]}
    without = "not installed; searches do without: pip install 'raywf[catboost]'"
    yield Finding("catboost", good=True, seen="installed" if "catboost" in names else without)
    both = {"xgboost", "xgboost-cpu"} <= names
    mend = "pip uninstall xgboost xgboost-cpu; pip install xgboost-cpu" if both else ""
    yield Finding("xgboost", good=not both, seen="both builds" if both else "one build", mend=mend)


def _machine() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    good = free > _LEAST_FREE_BYTES
    yield Finding("disk", good=good, seen=f"{free / 1e9:.0f} GB free", mend="" if good else "free 2 GB here")
    address = os.environ.get("RAY_ADDRESS", "")
    mode = os.environ.get("RAY_AUTH_MODE", "")
    good = not address or bool(mode)
    mend = "" if good else "set RAY_AUTH_MODE=token (or disabled), as the cluster was started"
    yield Finding("ray address", good=good, seen=address or "none: a cluster on this machine", mend=mend)


def _stores(workflow: Workflow) -> Iterator[Finding]:
    from raywf.loop.local import find_local
    from raywf.registry.registry import open_registry

    local = find_local(workflow)
    port = workflow.serving.port
    busy = _listens(port)
    good = not busy or local is not None
    seen = f"{port} {'in use' if busy else 'free'}"
    yield Finding("port", good=good, seen=seen, mend="" if good else "raywf serve up --set serving.port=8001")
    yield Finding(
        "ray", good=True, seen=f"up at {local.address}" if local else "not up; raywf serve up starts it"
    )
    try:
        Store(workflow.stores.root).write("doctor.txt", b"written by raywf doctor\n")
        yield Finding("store", good=True, seen=f"{workflow.stores.root} can be written")
    except OSError as err:
        yield Finding("store", good=False, seen=str(err), mend="name a folder or URI in stores.root")
    try:
        count = len(open_registry(workflow).versions())
        yield Finding("registry", good=True, seen=f"{count} version(s)")
    except RaywfError as err:
        yield Finding("registry", good=False, seen=str(err), mend="mend stores.mlflow")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
