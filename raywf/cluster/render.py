"""A plan to the text of the cluster's files."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from raywf.cluster.plan import RAY_VERSION, Plan

# On every node, whatever it serves: tokens asked for, one thread a process, no figures sent to Ray's makers.
ALWAYS = {"RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
MANIFESTS = (
    "raycluster.yaml",
    "rayservice.yaml",
    "rayjob.yaml",
    "rayjob-search.yaml",
    "raycronjob.yaml",
    "around.yaml",
    "stores.yaml",
)


def render(plan: Plan, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the files by name: one for `ray up`, or KubeRay's manifests.

    `environment` is what Ray Serve reads when Ray starts on a node.
    """
    made = Environment(
        loader=PackageLoader("raywf.cluster", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML, not HTML; the settings' own checks bound what stands in it
    )
    of_cluster = plan.cloud == "kuberay"
    names = {name: f"kuberay/{name}.j2" for name in MANIFESTS}
    if not of_cluster:
        names = {f"{plan.cloud}.yaml": f"{plan.cloud}.yaml.j2"}
    values = {
        "plan": plan,
        "environment": {**ALWAYS, **environment},
        "minutes": f"{plan.settings.idle_minutes:g}",
        "settings_spot": plan.settings.spot,
        "ray_version": RAY_VERSION,
    }
    return {name: made.get_template(path).render(values) for name, path in names.items()}
