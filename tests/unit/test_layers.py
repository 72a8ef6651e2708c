"""The layers, read from the imports: what a folder may import, and how long its pieces may be."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "raywf"
STEPS = {
    "snapshots",
    "search",
    "models",
    "gate",
    "registry",
    "serving",
    "outcomes",
    "monitor",
    "policy",
    "cost",
}
MAY: dict[str, set[str]] = {
    "core": set(),
    "snapshots": {"core"},
    "models": {"core"},
    "search": {"core", "models"},
    "gate": {"core"},
    "registry": {"core"},
    "outcomes": {"core"},
    "serving": {"core", "models", "outcomes"},
    "monitor": {"core", "outcomes"},
    "policy": {"core"},
    "cost": {"core"},
    "cluster": {"core", "cost"},
    "loop": {"core", *STEPS},
    "report": {"core", "registry", "loop"},
    "demo": {"core", "loop", "report", *STEPS},
    "testing": {"core", "models"},
    "client": {"core"},
    "cli": {"core", "cluster", "loop", "report", "demo", "", *STEPS},
    "": set(),
}
RAY = {"snapshots", "search", "serving", "loop", "demo"}
RAY_FILES = {"raywf.monitor.actor"}
MLFLOW = {"registry"}
FILE_LINES, FUNCTION_LINES = 500, 60
BROAD = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Module:
    """One file of the package: its dotted name and its text."""

    name: str
    text: str
    is_package: bool = False
    tree: ast.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.text))

    @property
    def package(self) -> str:
        """The folder below raywf, or the file's own name; empty for raywf itself."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""


@dataclass(frozen=True)
class Import:
    """One imported module, and whether a function hides it."""

    module: str
    hidden: bool
    line: int


def read_modules() -> list[Module]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("raywf", *path.relative_to(ROOT).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


@functools.cache
def imports(module: Module) -> tuple[Import, ...]:
    """Return every import, those of functions and of type checking included."""
    return tuple(_imports(module))


def _imports(module: Module) -> Iterator[Import]:
    functions = [n for n in ast.walk(module.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    hidden = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = _targets(module, node)
        else:
            continue
        for name in names:
            yield Import(name, id(node) in hidden, node.lineno)


def _targets(module: Module, node: ast.ImportFrom) -> list[str]:
    base = node.module or ""
    if node.level:
        parts = module.name.split(".")
        kept = parts[: len(parts) - node.level + module.is_package]
        base = ".".join([*kept, *([base] if base else [])])
    if base == "raywf" or base == "ray":
        return [f"{base}.{alias.name}" for alias in node.names]
    return [base]


def own_package(name: str) -> str | None:
    """Return the raywf package that a module name lies in, or None for others' modules."""
    parts = name.split(".")
    if parts[0] != "raywf":
        return None
    return parts[1] if (len(parts) > 1 and (ROOT / parts[1]).exists()) or parts[-1] == "testing" else ""


def broken_layers(module: Module) -> list[str]:
    """Return a line for each import that the layers forbid."""
    if module.package not in MAY:
        return [f"{module.name}: no layer is given for {module.package!r}"]
    allowed = MAY[module.package] | {module.package}
    found = []
    for each in imports(module):
        target, top = own_package(each.module), each.module.split(".")[0]
        where = f"{module.name} line {each.line}: imports {each.module}"
        if target is not None and target not in allowed:
            found.append(where)
        if target is not None and each.hidden and module.package != "cli":
            found.append(f"{where} inside a function")
        if top == "ray" and module.package not in RAY and module.name not in RAY_FILES:
            found.append(where)
        if top == "mlflow" and module.package not in MLFLOW:
            found.append(where)
    return found


def package_cycle(modules: list[Module]) -> list[str]:
    """Return the packages of an import cycle, or nothing."""
    graph: dict[str, set[str]] = {}
    for module in modules:
        targets = {own_package(each.module) for each in imports(module)} - {None, module.package}
        graph.setdefault(module.package, set()).update(t for t in targets if t)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        return list(err.args[1])
    return []


def oversized(module: Module) -> list[str]:
    """Return a line for the file and for each function that is too long."""
    lines = len(module.text.splitlines())
    found = [f"{module.name}: {lines} lines"] if lines > FILE_LINES else []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{module.name}.{node.name}: {length} lines")
    return found


def unexplained_excepts(module: Module) -> list[str]:
    """Return a line for each broad or bare except that neither ends in a raise nor says why on its line."""
    lines = module.text.splitlines()
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler) or not _is_broad(node.type):
            continue
        comment = re.sub(r"noqa: ?[A-Z0-9, ]+", "", lines[node.lineno - 1].partition("#")[2])
        raises = isinstance(node.body[-1], ast.Raise)
        if not raises and len(comment.strip(" -")) < 10:
            found.append(f"{module.name} line {node.lineno}: broad except without a reason")
    return found


def _is_broad(kind: ast.expr | None) -> bool:
    names = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(n is None or (isinstance(n, ast.Name) and n.id in BROAD) for n in names)


MODULES = read_modules()


def test_imports_run_inward() -> None:
    """No file imports a layer above it, Ray or MLflow where they do not belong, or raywf in a function."""
    assert [line for module in MODULES for line in broken_layers(module)] == []


def test_packages_have_no_cycle() -> None:
    """The packages can be put in an order in which each imports only what came before."""
    assert package_cycle(MODULES) == []


def test_files_and_functions_are_short() -> None:
    """A file has at most 500 lines and a function at most 60."""
    assert [line for module in MODULES for line in oversized(module)] == []


def test_broad_excepts_say_why() -> None:
    """Who catches everything says why on the same line, or raises."""
    assert [line for module in MODULES for line in unexplained_excepts(module)] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raywf.core.new", "from raywf.models.bundle import load_bundle"),
        ("raywf.core.new", "from raywf import models"),
        ("raywf.core.new", "from ..models import bundle"),
        ("raywf.gate.new", "import ray"),
        ("raywf.monitor.fold", "from ray.util import metrics"),
        ("raywf.search.new", "import mlflow.tracking"),
        ("raywf.search.new", "from raywf.snapshots.build import build_snapshot"),
        ("raywf.loop.new", "import raywf.cli.main"),
        ("raywf.loop.new", "def f():\n    from raywf.core.ids import stable_id"),
        ("raywf.models.new", "class A:\n    async def f(self):\n        import ray"),
        ("raywf.other.new", "x = 1"),
    ],
)
def test_a_planted_import_is_caught(name: str, text: str) -> None:
    """The checker sees plain, relative, nested and hidden imports."""
    assert broken_layers(Module(name, text)) != []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raywf.monitor.actor", "import ray"),
        ("raywf.core.new", "import rayon"),
        ("raywf.cli.new", "def f():\n    from raywf.loop.system import up"),
        ("raywf.core.new", "from .ids import stable_id"),
        ("raywf.core.new", "def f():\n    import pyarrow"),
    ],
)
def test_an_allowed_import_passes(name: str, text: str) -> None:
    """The checker leaves alone what the layers allow."""
    assert broken_layers(Module(name, text)) == []


def test_a_planted_cycle_is_caught() -> None:
    """Two packages that import each other are named."""
    pair = [
        Module("raywf.gate.a", "from raywf.policy.b import c"),
        Module("raywf.policy.b", "import raywf.gate.a"),
    ]
    assert {"gate", "policy"} <= set(package_cycle(pair))


def test_a_long_function_is_caught() -> None:
    """One line over the limit is named."""
    text = "def long():\n" + "    x = 1\n" * FUNCTION_LINES
    assert oversized(Module("raywf.core.new", text)) == [f"raywf.core.new.long: {FUNCTION_LINES + 1} lines"]


def test_a_long_file_is_caught() -> None:
    """One line over the limit is named."""
    assert oversized(Module("raywf.core.new", "x = 1\n" * (FILE_LINES + 1))) != []


@pytest.mark.parametrize(
    "clause", ["except Exception:", "except:", "except (KeyError, BaseException):  # noqa: BLE001"]
)
def test_an_unexplained_except_is_caught(clause: str) -> None:
    """A linter's code alone is no reason."""
    text = f"try:\n    x = 1\n{clause}\n    x = 2\n"
    assert unexplained_excepts(Module("raywf.core.new", text)) != []
