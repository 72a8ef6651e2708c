"""Where a sweep's tasks run: what they take, on which nodes, in which workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def placement(takes: Mapping[str, float], nodes: Mapping[str, str], sweep_id: str) -> dict[str, Any]:
    """Return the options of a Ray task that takes so many CPUs and GPUs, on nodes with these labels.

    A sweep's tasks have workers of their own, which do the next of them too, with all imported that it needs.
    What a sweep takes does not depend on what was searched before it, as it does not where each is a job.
    """
    return {
        "num_cpus": takes.get("CPU", 0),
        "num_gpus": takes.get("GPU", 0),
        "label_selector": dict(nodes) or None,
        "runtime_env": {"env_vars": {"RAYWF_SWEEP": sweep_id}},
    }
