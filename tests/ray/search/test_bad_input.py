"""What a search makes of families that crash and of rows that tell little: a model, or one clear error."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_own_models import search
from test_search import describe, make_table

from raywf.core.errors import SearchError
from raywf.core.records import Column
from raywf.core.settings import FAMILIES
from raywf.models.bundle import load_bundle

pytestmark = pytest.mark.usefixtures("ray_session")
CRASHES = '''
import os
import signal
import sys
import time
import numpy as np

class Odd(Exception):
    """One that cannot be brought to another process."""

    def __init__(self, one, two):
        super().__init__(one)
        self.held = (x for x in two)

def _exit():
    os._exit(1)

def _killed():
    os.kill(os.getpid(), signal.SIGKILL)

def _odd():
    raise Odd("two\\nlines of it", [1])

def _leave():
    sys.exit("enough")

def _huge():
    return np.ones((1 << 45,))

def _sleep():
    time.sleep(600)

class Crashing:
    """Does what `how` says in every fit, or, `when` is last, in that without rows to score only."""

    def __init__(self, how="fine", when="always", good=False, depth=0):
        self.how, self.when, self.good = how, when, good

    def fit(self, X, y, valid=None):
        if self.when == "always" or valid is None:
            globals().get("_" + self.how, lambda: None)()

    def predict_proba(self, X):
        p = np.full(len(X), np.nan if self.how == "nan" else 0.5)
        if self.good:
            p = 0.01 + 0.98 * (np.nan_to_num(X[:, 0]) > 0)
        return np.column_stack([1 - p, p])

    def save(self, folder):
        (folder / "x.txt").write_text("x")

    def load(self, folder):
        pass
'''


@pytest.fixture
def crashing(tmp_path: Path) -> Any:
    """Settings of a model that misbehaves as told."""
    path = tmp_path / "own.py"
    path.write_text(CRASHES)

    def settings(how: str, **params: Any) -> dict[str, Any]:
        return {"code": f"{path}:Crashing", "trust": True, "params": {"how": how, **params}}

    return settings


def sweep_with(root: Path, models: dict[str, Any], **settings: Any) -> Any:
    """Search two classes, told apart by the sign of x, with the user's models beside a linear one."""
    table = make_table("binary", timed=False)
    signs = np.nan_to_num(table.column("x").to_numpy(zero_copy_only=False)) > 0
    table = table.set_column(table.column_names.index("__label"), "__label", pa.array(signs.astype(float)))
    wanted = {"families": ["linear"], "trials": 1 + len(models), "budget_s": 12, **settings}
    return search(root, table, models=models, **wanted)


REASONS = {
    "exit": r"^its worker died, killed for its memory or ended by the model's code: Worker ",
    "killed": r"^its worker died, killed for its memory",
    "leave": r"^its worker died.*exit code enough",
    "odd": r"^Odd: two lines of it$",
    "huge": r"^MemoryError: Unable to allocate 256",
    "nan": r"^ValueError: the model's answers to \d+ of \d+ rows are not finite$",
}


def test_crashing_families_fail_alone(crashing: Any, tmp_path: Path) -> None:
    """Whatever they do to their process: each trial has its reason, and the other one makes the model."""
    models = {how: crashing(how) for how in REASONS}
    sweep = sweep_with(tmp_path / "r", models, max_failures=0, budget_s=60).sweep  # a worker a death
    found = {t.family: t for t in sweep.trials}
    for how, reason in REASONS.items():
        assert found[how].status == "failed"
        assert re.search(reason, found[how].error)
    assert {m.family for m in sweep.members} == {"linear"}


def test_a_fit_that_never_ends_is_cut(crashing: Any, tmp_path: Path) -> None:
    """The budget is kept, though the fit minds no deadline."""
    sweep = sweep_with(tmp_path / "r", {"mine": crashing("sleep")}, budget_s=8).sweep
    assert {t.family: t.status for t in sweep.trials} == {"mine": "stopped", "linear": "done"}
    assert sweep.spent_s < 16


def test_crashes_of_all_are_one_error(crashing: Any, tmp_path: Path) -> None:
    """It names each reason once, on one line."""
    models = {"one": crashing("odd"), "two": crashing("huge"), "three": crashing("odd", depth=1)}
    with pytest.raises(
        SearchError, match=r"^no trial of 3 gave a model: one-\w+: Odd.*; two-\w+: Mem"
    ) as found:
        sweep_with(tmp_path / "r", models, families=[])
    assert "\n" not in str(found.value)


def test_last_fits_crash(crashing: Any, tmp_path: Path) -> None:
    """The best families fail on all rows only: another takes their place, and the reasons are told."""
    models = {how: crashing(how, when="last", good=True) for how in ("exit", "odd")}
    sweep = sweep_with(tmp_path / "r", models, folds=2, budget_s=40).sweep
    found = {t.family: t for t in sweep.trials}
    assert any(found[how].error.startswith("its last fit failed: ") for how in models)
    assert {m.family for m in sweep.members} == {"linear"}


@pytest.mark.slow
def test_a_last_fit_that_never_ends(crashing: Any, tmp_path: Path) -> None:
    """It is ended, and without another family the error says so."""
    with pytest.raises(SearchError, match=r"^no trial of 1 gave a model: mine.* its last fit did not end"):
        sweep_with(tmp_path / "r", {"mine": crashing("sleep", when="last")}, families=[], budget_s=4)


def test_rows_that_say_nothing(tmp_path: Path) -> None:
    """Constant, wholly missing and infinite columns only: the class's share is the answer."""
    table = make_table("binary", timed=False)
    rows = table.num_rows
    for name, values in (
        ("x", pa.array([np.inf, -np.inf, np.nan] * (rows // 3))),
        ("lane", pa.array(["a"] * rows)),
    ):
        table = table.set_column(table.column_names.index(name), name, values)
    result = search(tmp_path / "r", table, families=FAMILIES, trials=7, budget_s=9)
    assert result.sweep.members
    share = table.column("__label").to_numpy().mean()
    scores = load_bundle(result.final.uri).predict_table(table.slice(0, 5))
    assert scores == pytest.approx(np.full((5, 1), share), abs=0.05)


def test_many_columns_and_categories(tmp_path: Path) -> None:
    """Two thousand columns beside one of ten thousand categories, within the budget."""
    table, draw = make_table("binary", timed=False), np.random.default_rng(0)
    rows, added = table.num_rows, {}
    for number in range(2000):
        added[f"n{number}"] = pa.array(draw.normal(size=rows).astype(np.float32) * 10.0 ** (number % 60 - 30))
    names = [f"v{i}" for i in draw.integers(0, 10_000, rows)]
    table = table.set_column(table.column_names.index("lane"), "lane", pa.array(names))
    for name, values in added.items():
        table = table.append_column(name, values)
    columns = tuple(Column(name=name, kind="number") for name in added)
    snapshot = describe("binary", timed=False)
    snapshot = dataclasses.replace(snapshot, columns=(*snapshot.columns, *columns))
    found = search(
        tmp_path / "r", table, snapshot=snapshot, families=["lightgbm", "linear"], trials=3, budget_s=24
    )
    assert found.sweep.members
    assert found.sweep.spent_s < 24 * 2
