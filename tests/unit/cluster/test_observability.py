"""Dashboard, alert rules and scraping ask for names and labels that raywf, Ray and Serve really give."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric
from ray.autoscaler._private.prom_metrics import AutoscalerPrometheusMetrics

from raywf.core.records import Drift, Evidence
from raywf.loop.gauges import KINDS, STAGES, decided, quality, spent, standing
from raywf.serving.meter import Meter
from raywf.testing import make_version

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "cluster" / "observability"
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAME = re.compile(r"\b(?:ray|autoscaler)_[a-z0-9_]+")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FULL = Evidence(
    version="1",
    start=NOON,
    end=NOON,
    rows=1,
    labelled=1,
    loss_sum=0.0,
    loss_squares=0.0,
    metric=0.5,
    metric_low=0.4,
    metric_high=0.6,
    value_mean=1.0,
    estimate=0.5,
    drift=(Drift(column="a", psi=0.1, rows=1, missing=0.0),),
)
CHAMPION = make_version(
    "1",
    uri="u",
    digest="d",
    run_id="r",
    snapshot_id="s",
    sweep_id="s",
    code_version="c",
    decision_id="d",
    metrics={"auc": 0.5},
    loss=0.2,
    loss_rows=9,
    created=NOON,
)


class Names:
    """Keeps the names and labels that it is told."""

    def __init__(self) -> None:
        self.labels: dict[str, set[str]] = {}

    def count(self, name: str, more: float, tags: Mapping[str, str]) -> None:
        self.labels[f"ray_{name}_total"] = {"workflow", "replica", *tags}

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self.labels[f"ray_{name}"] = {"workflow", "replica", *tags}


@cache
def of_raywf(folder: str = "") -> dict[str, set[str]]:
    """Return raywf's names with their labels: what a meter tells, and what the code names itself."""
    meter, names = Meter(), Names()
    meter.request("/v1/predict", 200, 0.1)
    meter.rows("1", 1)
    meter.tell(names, dict.fromkeys(facts_of_a_replica(), 0.0))
    figures = standing(CHAMPION, "auc") | quality([FULL]) | spent(str(ROOT / "none"), "w", NOON)
    for name in (*figures, *told_in(ROOT / "raywf" / "loop" / "gauges.py")):
        names.gauge(f"raywf_{name}", 0.0, {})
    names.gauge("raywf_decisions", 0.0, dict.fromkeys(("kind", "stage"), ""))
    for name, labels in gauges_of(ROOT / "raywf" / "monitor" / "actor.py"):
        names.labels[f"ray_{name}"] = labels
    return names.labels


def facts_of_a_replica() -> list[str]:
    """Return the keys of the dict that the endpoint's `_facts` returns."""
    tree = ast.parse((ROOT / "raywf" / "serving" / "app.py").read_text())
    (facts,) = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_facts"]
    (found,) = [n.value for n in ast.walk(facts) if isinstance(n, ast.Return)]
    assert isinstance(found, ast.Dict)
    return [ast.literal_eval(key) for key in found.keys if key is not None]


def told_in(path: Path) -> Iterator[str]:
    """Yield the keys of the dicts that a file's calls of `_tell` are given."""
    for call in calls(path):
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr == "_tell"
            and isinstance(call.args[0], ast.Dict)
        ):
            yield from (ast.literal_eval(key) for key in call.args[0].keys if key is not None)


def gauges_of(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Yield names and tags of the gauges that a file makes of Ray's."""
    for call in calls(path):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "Gauge":
            (tags,) = [k.value for k in call.keywords if k.arg == "tag_keys"]
            yield ast.literal_eval(call.args[0]), set(ast.literal_eval(tags))


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@cache
def of_ray() -> set[str]:
    """Return the names of the installed Ray: its autoscaler's, Serve's, its nodes' and its dashboards'."""
    package = file_of("ray").parent
    found = {name for each in autoscaler() for name in (each.name, f"{each.name}_total")}
    for path in (package / "serve" / "_private").glob("*.py"):
        for kind, name in re.findall(r'(Counter|Gauge|Histogram)\(\s*"(serve_\w+)"', path.read_text()):
            ends = {"Counter": ("_total",), "Histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
            found |= {f"ray_{name}{end}" for end in ends}
    nodes = (package / "dashboard" / "modules" / "reporter" / "reporter_agent.py").read_text()
    found |= {f"ray_{name}" for name in re.findall(r'Gauge\(\s*"(\w+)"', nodes)}
    panels = package / "dashboard" / "modules" / "metrics" / "dashboards" / "default_dashboard_panels.py"
    return found | set(NAME.findall(panels.read_text()))


def file_of(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None
    return Path(str(spec.origin))


def autoscaler() -> list[Metric]:
    return list(AutoscalerPrometheusMetrics(session_name="s").registry.collect())


def expressions() -> list[tuple[str, str]]:
    alerts = [(rule["alert"], rule["expr"]) for rule in RULES]
    return [*alerts, *((panel["title"], t["expr"]) for panel in PANELS for t in panel["targets"])]


@pytest.mark.parametrize(("where", "expr"), expressions())
def test_names_are_exported(where: str, expr: str) -> None:
    """By raywf, or by the Ray that is installed."""
    asked = set(NAME.findall(expr))
    assert asked
    assert {name for name in asked if name not in of_raywf() and name not in of_ray()} == set()


@pytest.mark.parametrize(("where", "expr"), expressions())
def test_labels_of_raywf_s_names_are_theirs(where: str, expr: str) -> None:
    """A selector by a label that a name does not have finds nothing, and says nothing."""
    for name, selector in re.findall(r"(ray_raywf_\w+)\{([^}]*)\}", expr):
        assert set(re.findall(r"(\w+)\s*=~?", selector)) <= of_raywf()[name]


@pytest.mark.parametrize(("where", "expr"), expressions())
def test_brackets_are_closed(where: str, expr: str) -> None:
    """Prometheus itself is not at hand to read them."""
    assert all(expr.count(a) == expr.count(b) for a, b in ("()", "{}", "[]"))


def test_an_unknown_name_is_caught() -> None:
    """The check above can fail."""
    known = {*of_raywf(), *of_ray()}
    assert not {"ray_raywf_version", "ray_serve_queue", "autoscaler_nodes", "ray_raywf_requests"} & known
    assert {
        "ray_raywf_requests_total",
        "ray_serve_deployment_replica_healthy",
        "autoscaler_active_nodes",
    } <= known


def test_every_figure_of_the_loop_is_on_the_dashboard() -> None:
    """What the controller tells is told for somebody."""
    shown = set(NAME.findall(json.dumps([DASHBOARD, ALERTS])))
    unseen = {"ray_raywf_window_end_seconds", "ray_raywf_from_cache"}
    assert set(of_raywf()) - shown <= unseen | {"ray_raywf_rollout_under_way", "ray_raywf_shadow_rows"}


def test_stages_of_decisions_are_those_that_alerts_ask_for() -> None:
    """A stage that is never told never fires."""
    asked = re.findall(r'kind="(\w+)", stage="(\w+)"', " ".join(expr for _, expr in expressions()))
    assert set(asked) <= set(decided([], []))
    assert {kind for kind, _ in asked} <= set(KINDS)
    assert {stage for _, stage in asked} <= set(STAGES)


def test_alerts_are_those_that_the_loop_needs() -> None:
    """Each once, with a severity, what happened and what to do."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "action"}
        assert re.fullmatch(r"\d+[mhd]", rule.get("for", "1m"))


def test_the_dashboard_s_panels_do_not_overlap() -> None:
    """Each has a place of its own, and every query a legend."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(target["legendFormat"] for panel in PANELS for target in panel["targets"])


def test_scraping_goes_where_the_cluster_files_have_metrics() -> None:
    """The pods' label and the ports' names are those of the manifests."""
    (job,) = yaml.safe_load((FOLDER / "prometheus-kubernetes.yaml").read_text())["scrape_configs"]
    kept = {r["source_labels"][0]: r["regex"] for r in job["relabel_configs"] if r.get("action") == "keep"}
    cluster: Any = yaml.safe_load((ROOT / "cluster" / "kuberay" / "raycluster.yaml").read_text())["spec"]
    head = cluster["headGroupSpec"]["template"]
    label = head["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert kept["__meta_kubernetes_pod_label_app_kubernetes_io_instance"] == label
    ports = {p["name"] for p in head["spec"]["containers"][0]["ports"]}
    assert set(kept["__meta_kubernetes_pod_container_port_name"].split("|")) <= ports


def test_scraping_a_cluster_of_ray_up_reads_ray_s_list() -> None:
    """Of the name that Ray writes."""
    (job,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    (path,) = job["file_sd_configs"][0]["files"]
    assert f'"{Path(path).name}"' in file_of("ray._private.ray_constants").read_text()
