"""`raywf cluster`: the files that make a Ray cluster, what such a file makes, and what a node is told."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from raywf.cli.options import show, table
from raywf.cluster.budget import HOURS_A_MONTH, Budget
from raywf.cluster.layout import Layout
from raywf.cluster.notice import LOOK_EVERY_S, SPOT_CLOUDS, Metadata, SpotCloud, await_notice, drained_by
from raywf.cluster.plan import make_plan
from raywf.cluster.render import render as render_plan
from raywf.cluster.review import LOOPBACK, Review, review
from raywf.core.clock import format_time
from raywf.core.cluster_settings import CLOUDS, Cloud, ClusterSettings
from raywf.core.codec import DecodeError
from raywf.core.errors import JobError, SettingsError
from raywf.core.loader import load_workflow
from raywf.core.settings import CostSettings
from raywf.cost.money import format_usd
from raywf.serving.environment import EVERY_NODE

_AGAIN_S, _LATE = 1.0, timedelta(minutes=1)


@click.group()
def cluster() -> None:
    """Write the files that make a Ray cluster; say what such a file makes; watch a node's cloud."""


@cluster.command()
@click.option(
    "-f", "--file", default="workflow.yaml", show_default=True, help="Whose settings, if it is there."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override: cluster.disk_gb=300.")
@click.option("--cloud", type=click.Choice(CLOUDS), help="Where. [default: cluster.cloud]")
@click.option("--region", help="The cloud's region. [default: cluster.region]")
@click.option("--max-workers", type=click.IntRange(min=1), help="Nodes beside the head, at most.")
@click.option("--spot/--no-spot", default=None, help="Train on spot nodes. [default: cluster.spot]")
@click.option(
    "--output", type=click.Path(path_type=Path), help="A file; for kuberay a folder. [default: the terminal]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the files' names and texts as JSON.")
def render(
    file: str,
    overrides: tuple[str, ...],
    cloud: Cloud | None,
    region: str | None,
    max_workers: int | None,
    spot: bool | None,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    """Write the file for `ray up`, or KubeRay's manifests, that the settings of `cluster` ask for."""
    given = {"cloud": cloud, "region": region, "max_workers": max_workers, "spot": spot}
    settings, cost = _settings(file, overrides)
    settings = _replaced(settings, {k: v for k, v in given.items() if v is not None})
    files = render_plan(make_plan(settings, prices=cost.prices), EVERY_NODE)
    if output is not None:
        _write(files, output)
    lines = [] if output is not None else _as_stream(files)
    show({"files": files}, as_json=as_json, lines=lines)


@cluster.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--workflow", "file", default="workflow.yaml", show_default=True, help="Whose `cost` has the prices."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override: cost.prices=own.csv.")
@click.option(
    "--crds",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of KubeRay's CRDs, to check its manifests by.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def check(path: Path, file: str, overrides: tuple[str, ...], crds: Path | None, *, as_json: bool) -> None:
    """Say what FILE makes, what of it is dangerous and what it costs; exits 1 if Ray would refuse it."""
    found = review(path, _settings(file, overrides)[1], crds=crds)
    show(found, as_json=as_json, lines=_told(found, crds))
    if not found.is_good:
        raise click.exceptions.Exit(1)


@cluster.command()
@click.option("--cloud", type=click.Choice(SPOT_CLOUDS), required=True, help="Whose machine this is.")
@click.option("--address", metavar="HOST:PORT", required=True, help="The cluster, as `ray start` takes it.")
@click.option("--node-id", help="The node to drain. [default: every node of this machine]")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds between two looks. [default: as the cloud advises]",
)
@click.option("--endpoint", metavar="URL", help="Of the metadata service. [default: the cloud's]")
@click.option("--json", "as_json", is_flag=True, help="Print what was drained as JSON.")
def watch_spot(
    cloud: SpotCloud,
    address: str,
    node_id: str | None,
    every_s: float | None,
    endpoint: str | None,
    *,
    as_json: bool,
) -> None:
    """Wait until the cloud takes this machine back, then drain its node, so that no new work begins there.

    What ran there goes on elsewhere, and is no failure. Started beside `ray start` on workers.
    """
    metadata = Metadata(cloud, endpoint)
    _say(f"asking {cloud} whether this machine is taken back")
    end = await_notice(metadata, every_s=every_s or LOOK_EVERY_S[cloud], say=_say)
    _say(f"taken back at {format_time(end)}")
    drained = _drain(address, node_id, end)
    result = {"ends": format_time(end), "nodes": drained}
    show(result, as_json=as_json, lines=[f"drained: {', '.join(drained) or 'no node of Ray is here'}"])


@cluster.command()
@click.option("--cloud", type=click.Choice(SPOT_CLOUDS), required=True, help="Whose machine this is.")
@click.option("--endpoint", metavar="URL", help="Of the metadata service. [default: the cloud's]")
@click.option("--json", "as_json", is_flag=True, help="Print the labels as JSON.")
def labels(cloud: SpotCloud, endpoint: str | None, *, as_json: bool) -> None:
    """Print this machine's labels for `ray start --labels`: what the cloud's bill calls it, and its type.

    Where the cloud does not tell, it prints none: a node without them is better than no node.
    """
    try:
        found = Metadata(cloud, endpoint).labels()
    except (OSError, ValueError) as err:
        _say(f"the metadata service does not answer: {type(err).__name__}: {err}")
        found = {}
    show(found, as_json=as_json, lines=[",".join(f"{name}={value}" for name, value in found.items())])


def _drain(address: str, node_id: str | None, end: datetime) -> tuple[str, ...]:
    """Return the nodes that were drained; where the head is away, or no node here yet, it is tried again."""
    from raywf.loop.drain import drain, nodes_here

    while True:
        now = datetime.now(UTC)
        try:
            nodes = (node_id,) if node_id else nodes_here(address)
            reason = f"taken back by the cloud at {format_time(end)}"
            drain(address, nodes, by=drained_by(end, now=now), reason=reason)
            if nodes or now > end + _LATE:
                return nodes
        except JobError as err:
            _say(str(err))
            if now > end + _LATE:
                raise
        time.sleep(_AGAIN_S)


def _say(text: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}", err=True)


def _settings(file: str, overrides: tuple[str, ...]) -> tuple[ClusterSettings, CostSettings]:
    """Return the settings of `cluster` and `cost`; the defaults where there is no workflow.yaml here."""
    if Path(file).exists() or file != "workflow.yaml":
        workflow = load_workflow(file, overrides=overrides)
        return workflow.cluster, workflow.cost
    if overrides:
        raise SettingsError(f"--set overrides a workflow's settings, and there is no {file} here")
    return ClusterSettings(), CostSettings()


def _replaced(settings: ClusterSettings, given: Mapping[str, object]) -> ClusterSettings:
    try:
        return dataclasses.replace(settings, **given)  # type: ignore[arg-type]
    except DecodeError as err:
        raise SettingsError(f"cluster: {err.message}") from err


def _write(files: Mapping[str, str], output: Path) -> None:
    target = {output / name: text for name, text in files.items()}
    if len(files) == 1:
        target = {output: next(iter(files.values()))}
    try:
        for path, text in target.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            click.echo(f"written: {path}", err=True)
    except OSError as err:
        raise SettingsError(f"--output: cannot write {output}: {err}") from err


def _as_stream(files: Mapping[str, str]) -> list[str]:
    if len(files) == 1:
        return [next(iter(files.values())).rstrip("\n")]
    return ["---\n".join(f"# {name}\n{text}" for name, text in files.items()).rstrip("\n")]


def _told(found: Review, crds: Path | None) -> list[str]:
    lines: list[str] = []
    for layout, budget in zip(found.layouts, found.budgets, strict=True):
        lines += [*_makes(layout), *_nodes(layout, budget), *_costs(budget), ""]
        if layout.kind != "ray up" and crds is None:
            lines.append("not checked against KubeRay's schema: --crds names the folder that has it")
    lines += [f"{finding.level}: {finding.text}" for finding in found.findings]
    errors = sum(finding.level == "error" for finding in found.findings)
    warnings = len(found.findings) - errors
    lines.append(f"{found.file}: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}")
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _makes(layout: Layout) -> list[str]:
    place = " ".join(word for word in (layout.cloud, layout.region) if word)
    least = sum(node.least for node in layout.workers)
    if layout.dashboard in LOOPBACK:
        dashboard = "on the head's loopback, reached through a tunnel"
    else:
        dashboard = f"on {layout.dashboard}"
    tokens = "asked for" if layout.has_tokens else "not asked for"
    return [
        f"{layout.kind} {layout.name}: a head and {least} to {layout.max_workers} workers on {place}",
        f"  dashboard {dashboard}; tokens {tokens}; image {', '.join(layout.images) or 'none'}",
        f"  opened to every address by this file: {', '.join(layout.open_ports) or 'nothing'}",
    ]


def _nodes(layout: Layout, budget: Budget) -> list[str]:
    rows = []
    for node, price in zip(layout.nodes, budget.prices, strict=True):
        count = f"{node.least}" if node.least == node.limit else f"{node.least} to {node.limit}"
        cpus = "found by Ray" if node.cpus is None else f"{node.cpus:g}"
        bought = "spot" if node.spot else "on demand"
        each = [None if usd is None else f"${usd:.4f}" for usd in (price.on_demand, price.spot)]
        rows.append((node.name, node.node_type or "-", count, cpus, bought, *each))
    headers = ["type", "machine", "nodes", "CPUs for work", "bought", "on demand/h", "spot/h"]
    return [f"  {line}".rstrip() for line in table(headers, rows)]


def _costs(budget: Budget) -> list[str]:
    def both(usd: float) -> str:
        return f"{format_usd(usd)} an hour, {format_usd(usd * HOURS_A_MONTH)} a month"

    if not budget.most:
        return ["  what it costs is not known"]
    return [
        f"  at least {both(budget.least)}; at most {both(budget.most)}",
        f"  were all on demand: at most {both(budget.most_on_demand)}",
        f"  by {budget.basis}; without disks, traffic and taxes",
    ]
