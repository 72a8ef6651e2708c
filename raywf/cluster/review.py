"""A cluster's file to what is wrong with it, what it makes and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from raywf.cluster.budget import Budget, reckon
from raywf.cluster.layout import Layout, read_layouts
from raywf.cluster.schema import manifest_problems, ray_up_problems
from raywf.core.cluster_settings import is_pinned
from raywf.core.errors import SettingsError
from raywf.core.settings import CostSettings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend (an error: the file is refused) or to think about (a warning)."""

    level: Literal["error", "warning"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What was found of one file; a file has several clusters where it has several documents."""

    file: str
    layouts: tuple[Layout, ...]
    budgets: tuple[Budget, ...]
    findings: tuple[Finding, ...]

    @property
    def is_good(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == "error" for finding in self.findings)


def review(path: Path, cost: CostSettings, *, crds: Path | None = None) -> Review:
    """Return the review of a file for `ray up` or of KubeRay's manifests, the latter checked by `crds`.

    Raises:
        SettingsError: if the file cannot be read, is no YAML or has no cluster in it.
    """
    documents = _read(path)
    errors: list[Finding] = []
    for document in documents:
        if "provider" in document:
            problems = ray_up_problems(document)
        else:
            problems = manifest_problems(document, crds) if crds is not None else ()
        errors += [Finding(level="error", text=text) for text in problems]
    try:
        layouts = read_layouts(documents)
        budgets = tuple(reckon(layout, cost) for layout in layouts)
    except (TypeError, ValueError, AttributeError) as err:
        if not errors:
            raise SettingsError(f"{path}: its values are not of the kinds that Ray takes: {err}") from err
        return Review(file=str(path), layouts=(), budgets=(), findings=tuple(errors))
    warnings = [Finding(level="warning", text=text) for layout in layouts for text in warnings_of(layout)]
    warnings += [Finding(level="warning", text=text) for budget in budgets for text in budget.missing]
    if "REPLACE" in path.read_text(encoding="utf-8"):
        warnings.append(Finding(level="warning", text="REPLACE stands in it: put values of your own there"))
    return Review(file=str(path), layouts=layouts, budgets=budgets, findings=(*errors, *warnings))


def warnings_of(layout: Layout) -> tuple[str, ...]:
    """Return what of a cluster is dangerous or dear without being wrong."""
    found = []
    if layout.is_open and layout.kind == "ray up":
        found.append(
            "the dashboard listens on every address: whoever reaches it runs code; "
            "give head_start_ray_commands with --dashboard-host=127.0.0.1"
        )
    if not layout.has_tokens:
        found.append(f"no token is asked for: whoever reaches Ray's ports runs code; {_tokens(layout)}")
    if layout.ungrouped:
        found.append(
            f"without SecurityGroupIds ({', '.join(layout.ungrouped)}): Ray makes a group that opens port 22 "
            "to the whole internet"
        )
    found += [f"open to every address: {ports}" for ports in layout.open_ports]
    if not layout.images and not layout.has_pinned_wheel:
        found.append("neither an image nor a version of Ray is named: what runs is what the machines have")
    found += [
        f"image {image!r} is not pinned to a version" for image in layout.images if not is_pinned(image)
    ]
    found += [f"a Ray of no fixed version is installed: {command}" for command in layout.nightly]
    head = next((node for node in layout.nodes if node.is_head), None)
    if head is not None and head.cpus != 0:
        has = "an unknown number of CPUs" if head.cpus is None else f"{head.cpus:g} CPUs"
        found.append(
            f"the head has {has} for work: trials there can take Ray's control plane down; give it 0"
        )
    if head is not None and head.spot:
        found.append("the head is a spot node: when it goes, the cluster goes")
    return tuple(found)


def _tokens(layout: Layout) -> str:
    if layout.kind == "ray up":
        return "put RAY_AUTH_MODE=token before `ray start` on head and workers"
    return "give authOptions: {mode: token}"


def _read(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise SettingsError(f"cannot read {path}: {reason}") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{path} line {mark.line + 1}" if mark else str(path)
        raise SettingsError(f"{where}: not valid YAML: {getattr(err, 'problem', None) or err}") from err
    if not documents or not all(isinstance(d, dict) for d in documents):
        raise SettingsError(f"{path}: expected a cluster's settings, got no mapping")
    return documents
