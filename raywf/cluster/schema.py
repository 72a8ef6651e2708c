"""A cluster's file against the schema of who reads it: Ray's for `ray up`, KubeRay's where it is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from raywf.core.errors import SettingsError

_MOST = 20


def ray_up_problems(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what Ray's schema finds wrong and what `ray up` refuses besides; nothing of Ray is imported."""
    found = find_spec("ray")
    if found is None or found.origin is None:
        raise SettingsError("Ray is not installed: its schema of cluster files is a part of it")
    path = Path(found.origin).parent / "autoscaler" / "ray-schema.json"
    problems = _problems(Draft7Validator(json.loads(path.read_text(encoding="utf-8"))), config)
    if not problems:
        problems = _refused(config)
    return tuple(problems)


def manifest_problems(document: Mapping[str, Any], crds: Path) -> tuple[str, ...]:
    """Return what KubeRay's schema finds wrong with a manifest; nothing for kinds that the folder has not.

    `crds` holds ``ray.io_rayclusters.yaml`` and so on, as KubeRay's release does, or JSON schemas made of
    them, ``rayclusters.schema.json``.
    """
    plural = f"{str(document.get('kind', '')).lower()}s"
    made, original = crds / f"{plural}.schema.json", crds / f"ray.io_{plural}.yaml"
    if made.exists():
        schema = json.loads(made.read_text(encoding="utf-8"))
    elif original.exists():
        schema = _of_crd(yaml.safe_load(original.read_text(encoding="utf-8")))
    else:
        return ()
    return tuple(_problems(Draft202012Validator(schema), document))


def _problems(validator: Any, value: Any) -> list[str]:
    errors = sorted(validator.iter_errors(value), key=lambda e: list(map(str, e.absolute_path)))
    return [
        f"{'.'.join(map(str, e.absolute_path)) or 'the file'}: {_shortened(e.message)}"
        for e in errors[:_MOST]
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}"


def _refused(config: Mapping[str, Any]) -> list[str]:
    """Return what Ray checks in code: the head's type, and that the least nodes are not too many."""
    types = config.get("available_node_types")
    if types is None:
        return []
    found = []
    head = config.get("head_node_type")
    if head not in types:
        found.append(f"head_node_type: {head!r} is none of available_node_types: {', '.join(types)}")
    least, most = sum(t.get("min_workers", 0) for t in types.values()), config.get("max_workers", 2)
    if least > most:
        found.append(f"max_workers: {most} is below the sum of min_workers, {least}")
    return found


def _of_crd(crd: Mapping[str, Any]) -> Any:
    """Return the schema of a custom resource as Kubernetes means it: unknown keys are refused."""
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema = _hardened(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _hardened(node: Any) -> Any:
    if isinstance(node, list):
        return [_hardened(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _hardened(value) for key, value in node.items()}
    if node.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if "properties" in node and "additionalProperties" not in node:
        made["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
    return made
