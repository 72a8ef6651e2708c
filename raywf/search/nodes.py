"""What the nodes offer on which a search may run."""

from __future__ import annotations

from collections.abc import Mapping

import ray

from raywf.core.errors import SettingsError
from raywf.core.pools import selector
from raywf.core.settings import SearchSettings, Workflow


def training_nodes(workflow: Workflow) -> dict[str, str]:
    """Return the labels of the nodes that trials and last fits may run on; all may where there are none."""
    return selector("train", labelled=workflow.cluster.pools)


def offered(nodes: Mapping[str, str], kind: str) -> float:
    """Return how much of a resource the live nodes with these labels have.

    Of a cluster that grows from none it is 0.
    """
    if not nodes:
        return float(ray.cluster_resources().get(kind, 0))
    return sum(float(has.get(kind, 0)) for has in _resources(nodes))


def refuse_too_large(search: SearchSettings, nodes: Mapping[str, str]) -> None:
    """Refuse a trial that no node can hold, which would wait until the budget's end.

    Raises:
        SettingsError: naming the setting, what it takes and what there is.
    """
    here = _resources(nodes)
    asked = {f"models.{name}": (model.resources, model.workers) for name, model in search.models.items()}
    if search.families:
        asked["trial_cpus"] = ({"CPU": float(search.trial_cpus)}, 1)
    for setting, (takes, workers) in asked.items():
        alone = any(all(has.get(kind, 0) >= much for kind, much in takes.items()) for has in here)
        in_all = {kind: sum(has.get(kind, 0) for has in here) for kind in takes}
        if alone and all(in_all[kind] >= workers * much for kind, much in takes.items()):
            continue
        largest = {kind: max((has.get(kind, 0) for has in here), default=0) for kind in takes}
        times = f" for each of {workers} workers" if workers > 1 else ""
        raise SettingsError(
            f"search.{setting} takes {_words(takes)}{times}, and the largest node has {_words(largest)}, "
            f"all together {_words(in_all)}: lower it, or start nodes that have as much"
        )


def _resources(nodes: Mapping[str, str]) -> list[dict[str, float]]:
    """Return what each live node with these labels has."""
    live = (node for node in ray.nodes() if node["Alive"])
    return [node["Resources"] for node in live if nodes.items() <= node["Labels"].items()]


def _words(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{much:g} {kind}s" for kind, much in resources.items())
