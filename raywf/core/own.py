"""Python of the user's own: models and metrics that a workflow names with ``trust: true``.

The text travels with the settings, so that no node needs the file, and is run only where it is used.
"""

from __future__ import annotations

import ast
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raywf.core.errors import SettingsError, describe_error, did_you_mean
from raywf.core.ids import stable_id
from raywf.core.metrics import Array, Metric, find_metric
from raywf.core.settings import Workflow
from raywf.core.store import Store

_loading = threading.RLock()  # a module that another thread is half through has not all its names


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCode:
    """A class or function by name, with the text of its file."""

    file: str
    name: str
    source: str

    @property
    def digest(self) -> str:
        """A digest of the text and the name."""
        return stable_id(self.name, self.source, length=16)

    def load(self) -> Any:
        """Run the text, once a process, and return what has the name.

        Raises:
            SettingsError: if it raises, or has no such name.
        """
        module = f"raywf_own_{stable_id(self.source)}"
        with _loading:
            if module not in sys.modules:
                self._run(module)
            return getattr(sys.modules[module], self.name)

    def _run(self, module: str) -> None:
        made = types.ModuleType(module)
        made.__file__ = self.file
        sys.modules[module] = made  # dataclasses look their module up while it runs
        try:
            exec(compile(self.source, self.file, "exec"), made.__dict__)  # noqa: S102 - the user said trust: true
        except Exception as err:  # the user's text may raise anything
            del sys.modules[module]
            raise SettingsError(f"{self.file} cannot be run: {describe_error(err)}") from err


def read_code(reference: str) -> OwnCode:
    """Return the code that a reference such as ``models/mine.py:Mine`` names, a path or URI; it is not run.

    Raises:
        SettingsError: if there is no such file, it is not Python, or nothing at its top has the name.
    """
    path, sign, name = reference.rpartition(":")
    if not sign or not path.endswith(".py") or not name.isidentifier():
        raise SettingsError(f"code is given as file.py:Name, got {reference!r}")
    try:
        source = _read(path)
        tree = ast.parse(source)
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or err
        raise SettingsError(f"cannot read {path}: {reason}") from err
    except SyntaxError as err:
        raise SettingsError(f"{path} line {err.lineno}: {err.msg}") from err
    names = {n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}
    if name not in names:
        raise SettingsError(f"{path} defines no {name!r} at its top{did_you_mean(name, names)}")
    return OwnCode(file=Path(path).name, name=name, source=source)


def _read(path: str) -> str:
    if "://" not in path:
        return Path(path).read_text(encoding="utf-8")
    folder, _, name = path.rpartition("/")
    return Store(folder).read(name).decode()


@dataclass(frozen=True, slots=True)
class OwnScore:
    """A metric's function of the user's own; of one score column it gets a vector."""

    code: OwnCode

    def __call__(self, labels: Array, scores: Array) -> float:
        """Return its value."""
        given = scores[:, 0] if scores.shape[1] == 1 else scores
        return float(self.code.load()(labels, given))


def metric_id(metric: Metric) -> str:
    """Return a metric's name, with a digest of its text where it is the user's own."""
    of = metric.of
    return f"{metric.name}:{of.code.digest}" if isinstance(of, OwnScore) else metric.name


def workflow_metric(workflow: Workflow) -> Metric:
    """Return the workflow's metric.

    Raises:
        SettingsError: if its code cannot be read.
    """
    return named_metric(workflow, workflow.metric)


def named_metric(workflow: Workflow, name: str) -> Metric:
    """Return a metric by name: one of the user's or of raywf's.

    Raises:
        SettingsError: if there is none, or its code cannot be read.
    """
    own = workflow.metrics.get(name)
    if own is not None:
        of = OwnScore(read_code(own.code))
        return Metric(name, own.greater_is_better, (workflow.task,), of)
    found = find_metric(name)
    if found is None:
        raise SettingsError(f"unknown metric {name!r}")
    return found
