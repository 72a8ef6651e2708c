"""The one way to settings: ``workflow.yaml`` < environment ``RAYWF_A__B`` < command line ``a.b=value``."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import SettingsError, did_you_mean
from raywf.core.own import read_code
from raywf.core.settings import Workflow

_Origins = dict[tuple[str, ...], str]


def load_workflow(
    path: str | Path, *, overrides: Iterable[str] = (), environ: Mapping[str, str] | None = None
) -> Workflow:
    """Return the resolved settings; relative paths in them are taken from the file's folder.

    `overrides` are ``section.key=value`` texts, values in YAML. `environ` defaults to the process' own.

    Raises:
        SettingsError: with file and line (or variable, or option), the value got and the nearest known key.

    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as err:
        raise SettingsError(
            f"cannot read {file}: {err.strerror}; 'raywf init DIR' writes a first one"
        ) from err
    data, origins = _read_yaml(text, file.name)
    environ = os.environ if environ is None else environ
    for name, value in sorted(environ.items()):
        if name.startswith("RAYWF_"):
            keys = tuple(name.removeprefix("RAYWF_").lower().split("__"))
            _put(data, keys, _scalar(value), origins, f"environment variable {name}")
    for option in overrides:
        key, sign, value = option.partition("=")
        if not sign:
            raise SettingsError(f"an override is section.key=value, got {option!r}")
        _put(data, tuple(key.split(".")), _scalar(value), origins, f"option --set {option}")
    try:
        workflow = decode(Workflow, data)
    except DecodeError as err:
        raise SettingsError(f"{_origin(err.path, origins, file.name)}: {_dotted(err)}") from err
    return _anchor(workflow, file.absolute().parent)


def dump_workflow(workflow: Workflow) -> str:
    """Return the resolved settings as JSON, which `load_workflow` reads back unchanged."""
    return json.dumps(encode(workflow), indent=2)


def _read_yaml(text: str, name: str) -> tuple[dict[str, Any], _Origins]:
    origins: _Origins = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _collect_lines(node, (), name, origins)
        data = yaml.safe_load(text)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{name} line {mark.line + 1}" if mark else name
        raise SettingsError(f"{where}: not valid YAML: {getattr(err, 'problem', None) or err}") from err
    if not isinstance(data, dict):
        raise SettingsError(f"{name}: expected a mapping of settings, got {data!r}")
    return data, origins


def _collect_lines(node: yaml.Node, path: tuple[str, ...], name: str, origins: _Origins) -> None:
    origins.setdefault(path, f"{name} line {node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            child = (*path, str(key.value))
            if child in origins:
                raise SettingsError(
                    f"{name} line {key.start_mark.line + 1}: key {key.value!r} is given twice"
                )
            origins[child] = f"{name} line {key.start_mark.line + 1}"
            _collect_lines(value, child, name, origins)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _collect_lines(value, (*path, str(i)), name, origins)


def _put(data: dict[str, Any], keys: tuple[str, ...], value: Any, origins: _Origins, origin: str) -> None:
    here = data
    for i, key in enumerate(keys[:-1]):
        if i == 0 and key not in {f.name for f in dataclasses.fields(Workflow)}:
            known = [f.name for f in dataclasses.fields(Workflow)]
            raise SettingsError(f"{origin}: unknown key {key!r}{did_you_mean(key, known)}")
        child = here.get(key)
        if child is None:
            child = here[key] = {}
        if not isinstance(child, dict):
            raise SettingsError(f"{origin}: {'.'.join(keys[: i + 1])!r} is a value, not a section")
        here = child
    here[keys[-1]] = value
    origins[keys] = origin


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _origin(path: tuple[str, ...], origins: _Origins, name: str) -> str:
    for end in range(len(path), 0, -1):
        if path[:end] in origins:
            return origins[path[:end]]
    return name


def _dotted(err: DecodeError) -> str:
    dotted = ".".join(err.path)
    return f"{dotted}: {err.message}" if dotted and "key" not in err.message.split()[:2] else err.message


def _anchor(workflow: Workflow, folder: Path) -> Workflow:
    def absolute(path: str) -> str:
        return path if "://" in path else str(folder / Path(path).expanduser())

    views = {k: dataclasses.replace(v, path=absolute(v.path)) for k, v in workflow.features.views.items()}

    def anchored(settings: Any) -> Any:
        return {k: dataclasses.replace(v, code=absolute(v.code)) for k, v in settings.items()}

    search = dataclasses.replace(workflow.search, models=anchored(workflow.search.models))
    metrics = anchored(workflow.metrics)
    for one in (*search.models.values(), *metrics.values()):
        read_code(one.code)
    prices = workflow.cost.prices
    return dataclasses.replace(
        workflow,
        search=search,
        metrics=metrics,
        spine=dataclasses.replace(workflow.spine, path=absolute(workflow.spine.path)),
        features=dataclasses.replace(workflow.features, views=views),
        stores=dataclasses.replace(workflow.stores, root=absolute(workflow.stores.root)),
        cost=dataclasses.replace(workflow.cost, prices=prices and absolute(prices)),
    )
