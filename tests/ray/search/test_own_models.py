"""Models, spaces and metrics of the user's own in a whole search, with weights, groups and thresholds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_search import ROWS, describe, make_table

from raywf.core.codec import decode
from raywf.core.errors import SettingsError
from raywf.core.records import Column, Snapshot, Sweep
from raywf.core.settings import Workflow
from raywf.models.bundle import load_bundle
from raywf.search.run import SearchPlan, SearchResult, run_search

OWN = '''
import json
import numpy as np

class Nearest:
    """The share of positives among the nearest training rows, by the first column alone."""

    def __init__(self, neighbours=5, blur=0.0):
        if neighbours == 13:
            raise RuntimeError("unlucky")
        self.neighbours, self.blur, self.rounds = neighbours, blur, 0

    def fit(self, X, y, rung=None):
        order = np.argsort(np.nan_to_num(X[:, 0]))
        self.x, self.y = np.nan_to_num(X[order, 0]), y[order]
        self.rounds = rung or 0

    def predict_proba(self, X):
        at = np.searchsorted(self.x, np.nan_to_num(X[:, 0]))
        near = np.clip(at[:, None] + np.arange(-self.neighbours, self.neighbours), 0, len(self.y) - 1)
        p = self.y[near].mean(axis=1) * (1 - self.blur) + self.blur / 2
        return np.column_stack([1 - p, p])

    def save(self, folder):
        np.savez(folder / "rows.npz", x=self.x, y=self.y)

    def load(self, folder):
        rows = np.load(folder / "rows.npz")
        self.x, self.y = rows["x"], rows["y"]

def wins(labels, scores):
    return float(np.mean((scores > 0.6) * (labels - 0.3)))
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The file of the user's own."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def search(
    root: Path,
    table: pa.Table,
    *,
    metric: str = "",
    metrics: Any = None,
    snapshot: Snapshot | None = None,
    **settings: Any,
) -> SearchResult:
    """Search a table of two classes."""
    workflow = decode(
        Workflow,
        {
            "name": "w",
            "task": "binary",
            "metric": metric,
            "metrics": metrics or {},
            "spine": {"path": "x.csv", "label": "y"},
            "search": {"budget_s": 40, "folds": 2, **settings},
            "stores": {"root": str(root)},
        },
    )
    snapshot = snapshot or describe("binary", timed=False)
    return run_search(workflow, snapshot, table, plan=SearchPlan(sweep_id="sweep", folder=root / "bundles"))


def trials_of(sweep: Sweep, family: str) -> list[Any]:
    """The trials of one family."""
    return [t for t in sweep.trials if t.family == family]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"gpus": 0.5},
            r"search\.models\.mine takes 1 CPUs and 0\.5 GPUs, and the largest node has 2 CPUs and 0",
        ),
        (
            {"cpus": 2, "workers": 2},
            "takes 2 CPUs for each of 2 workers, and .*, all together 2 CPUs: lower it",
        ),
    ],
)
def test_what_no_node_can_hold_is_refused(
    ray_session: None, own: Path, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    """At once, rather than waiting for it until the budget's end."""
    model = {"code": f"{own}:Nearest", "trust": True, **settings}
    with pytest.raises(SettingsError, match=reason):
        search(tmp_path / "r", make_table("binary", timed=False), families=[], models={"mine": model})
    with pytest.raises(SettingsError, match=r"search\.trial_cpus takes 4 CPUs, and the largest node has 2"):
        search(tmp_path / "r", make_table("binary", timed=False), families=["linear"], trial_cpus=4)


def test_a_model_is_drawn_raced_and_served(ray_session: None, own: Path, tmp_path: Path) -> None:
    """From its space, by its rungs; one configuration fails with its reason; the best is in a bundle."""
    model = {
        "code": f"{own}:Nearest",
        "trust": True,
        "params": {"neighbours": 13},
        "space": {"neighbours": {"low": 2, "high": 60, "log": True}, "blur": {"low": 0.0, "high": 0.9}},
        "rungs": [1, 2],
        "trials": 9,
    }
    found = search(
        tmp_path / "r", make_table("binary", timed=False), families=[], models={"mine": model}, trials=20
    )
    mine = trials_of(found.sweep, "mine")
    assert len(mine) == len(found.sweep.trials) == 9
    assert [t.error for t in mine if t.status == "failed"] == ["RuntimeError: unlucky"]
    assert {t.rounds for t in mine if t.status == "done"} == {2}
    assert any(t.status == "stopped" and not t.fold_losses for t in mine)
    assert {m.family for m in found.sweep.members} == {"mine"}
    scores = load_bundle(found.final.uri, trust=True).predict_table(make_table("binary", timed=False))
    assert 0 <= scores.min() < scores.max() <= 1


def test_a_drawn_configuration_that_was_cut_off_goes_on(ray_session: None, own: Path, tmp_path: Path) -> None:
    """A search that is taken up would draw another one; its first fold stays as it was."""
    model = {
        "code": f"{own}:Nearest",
        "trust": True,
        "space": {"neighbours": {"low": 20, "high": 900}, "blur": {"low": 0.0, "high": 0.9}},
        "trials": 8,
    }

    def searched() -> set[str]:
        table = make_table("binary", timed=False)
        found = search(tmp_path / "r", table, families=[], models={"mine": model}, trials=8, budget_s=120)
        return {trial.id for trial in found.sweep.trials if trial.status == "done"}

    before = searched()
    folder = tmp_path / "r" / "sweeps" / "sweep"
    cut = max(before, key=lambda name: (folder / "trials" / f"{name}.json").stat().st_mtime_ns)
    for gone in (
        folder / "sweep.json",
        folder / "trials" / f"{cut}.json",
        folder / "trials" / cut / "fold-1.npz",
    ):
        gone.unlink()
    first = (folder / "trials" / cut / "fold-0.npz").read_bytes()
    assert before <= searched()
    assert (folder / "trials" / cut / "fold-0.npz").read_bytes() == first


WORDS = """
import json
import numpy as np

class Words:
    def fit(self, X, y):
        counts = {}
        for text, label in zip(X["note"].to_pylist(), y):
            for word in (text or "").split():
                seen = counts.setdefault(word, [1.0, 1.0])
                seen[int(label)] += 1
        self.odds = {word: float(np.log(b / a)) for word, (a, b) in counts.items()}

    def predict_proba(self, X):
        sums = [sum(self.odds.get(w, 0.0) for w in (t or "").split()) for t in X["note"].to_pylist()]
        p = 1 / (1 + np.exp(-np.array(sums)))
        return np.column_stack([1 - p, p])

    def save(self, folder):
        (folder / "words.json").write_text(json.dumps(self.odds))

    def load(self, folder):
        self.odds = json.loads((folder / "words.json").read_text())
"""


def test_a_model_reads_the_columns_as_they_are(ray_session: None, tmp_path: Path) -> None:
    """Texts that are no categories: of the families only the user's own can tell them apart."""
    (tmp_path / "words.py").write_text(WORDS)
    draw, rows = np.random.default_rng(0), 900
    labels = draw.integers(0, 2, rows)
    told = [("as agreed", "late again")[y] for y in labels]
    notes = [f"order {i} {text} {draw.integers(1e6)}" for i, text in enumerate(told)]
    table = pa.table({"note": notes, "__label": labels.astype(float), "__key": np.arange(rows) * 7919})
    snapshot = dataclasses.replace(
        describe("binary", timed=False), rows=rows, columns=(Column(name="note", kind="category"),)
    )
    words = {"code": f"{tmp_path / 'words.py'}:Words", "trust": True, "input": "table"}
    found = search(
        tmp_path / "r", table, snapshot=snapshot, families=["linear"], models={"words": words}, trials=2
    )
    assert found.sweep.score > 0.99
    assert {t.family: t.score > 0.9 for t in found.sweep.trials} == {"linear": False, "words": True}
    served = load_bundle(found.final.uri, trust=True)
    late, fine = served.predict_rows([{"note": "this one was late again"}, {"note": "as agreed, thanks"}])
    assert late[0] > 0.5 > fine[0]


def test_a_space_of_a_family(ray_session: None, tmp_path: Path) -> None:
    """Drawn in turn with the neighbours of the portfolio's best."""
    space = {"C": {"low": 100.0, "high": 1000.0, "log": True}}
    found = search(
        tmp_path / "r",
        make_table("binary", timed=False),
        families=["linear"],
        spaces={"linear": space},
        trials=10,
    )
    assert any(t.params.get("C", 0) >= 100 for t in found.sweep.trials)
    assert any(0 < t.params.get("C", 0) < 100 for t in found.sweep.trials)


def test_decisions_have_a_threshold(ray_session: None, tmp_path: Path) -> None:
    """F1 of a rare class wants another than a half; rows have weights and groups here."""
    table = make_table("binary", timed=False)
    rare = table.column("__label").to_numpy() * (np.arange(ROWS) % 4 == 0)
    table = table.set_column(table.column_names.index("__label"), "__label", pa.array(rare))
    table = table.append_column("__weight", pa.array(np.linspace(0.5, 1.5, ROWS)))
    table = table.append_column("__group", pa.array([f"g{i % 90}" for i in range(ROWS)]))
    found = search(tmp_path / "r", table, metric="f1", families=["lightgbm", "linear"], trials=3)
    assert found.final.threshold < 0.4
    predictor = load_bundle(found.final.uri)
    assert predictor.bundle.threshold == found.final.threshold
    gate = set(np.asarray(table.column("__group").to_pylist())[found.gate_rows].tolist())
    rest = np.delete(np.asarray(table.column("__group").to_pylist()), found.gate_rows)
    assert gate
    assert not gate & set(rest.tolist())


def test_a_metric_of_the_user_s_own(ray_session: None, own: Path, tmp_path: Path) -> None:
    """Trials and ensemble are chosen by it."""
    metrics = {"wins": {"code": f"{own}:wins", "greater_is_better": True, "trust": True}}
    table = make_table("binary", timed=False)
    found = search(
        tmp_path / "r", table, metric="wins", metrics=metrics, families=["lightgbm", "linear"], trials=2
    )
    assert found.sweep.metric == "wins"
    assert found.sweep.greater_is_better
    assert 0 < found.sweep.score < 0.7
    assert dataclasses.asdict(found.sweep)["trials"]


TEAM = '''
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

class Logistic:
    """A logistic regression whose gradient two workers share."""

    def __init__(self, lr=0.3):
        self.lr, self.rounds = lr, 0

    def fit(self, X, y, rung=None):
        assert torch.distributed.get_world_size() == 2
        torch.manual_seed(torch.distributed.get_rank())
        self.net = getattr(self, "net", None) or torch.nn.Linear(X.shape[1], 1)
        shared = DistributedDataParallel(self.net)
        optimiser = torch.optim.Adam(shared.parameters(), lr=self.lr)
        X, y = torch.tensor(np.nan_to_num(X)), torch.tensor(y, dtype=torch.float32)
        for _ in range(30):
            optimiser.zero_grad()
            binary_cross_entropy_with_logits(shared(X)[:, 0], y).backward()
            optimiser.step()
        self.rounds += len(y)

    def predict_proba(self, X):
        with torch.no_grad():
            p = torch.sigmoid(self.net(torch.tensor(np.nan_to_num(X)))[:, 0]).numpy()
        return np.column_stack([1 - p, p])

    def save(self, folder):
        np.savez(folder / "net.npz", **{k: v.numpy() for k, v in self.net.state_dict().items()})

    def load(self, folder):
        arrays = {k: torch.tensor(v) for k, v in np.load(folder / "net.npz").items()}
        self.net = torch.nn.Linear(arrays["weight"].shape[1], 1)
        self.net.load_state_dict(arrays)

class Clumsy(Logistic):
    def fit(self, X, y):
        raise RuntimeError("a worker stumbled")
'''


@pytest.mark.slow
def test_a_team_fits_a_model(ray_session: None, tmp_path: Path) -> None:
    """Two workers of Ray Train share rows and gradient; the bundle needs neither; a failure is told."""
    path = tmp_path / "team.py"
    path.write_text(TEAM)
    models = {
        name.lower(): {"code": f"{path}:{name}", "trust": True, "workers": 2, "params": {"lr": 0.2}}
        for name in ("Clumsy", "Logistic")
    }
    models["logistic"]["rungs"] = [1, 2]
    table = make_table("binary", timed=False)
    found = search(
        tmp_path / "r", table, families=[], models=models, trials=2, budget_s=120, max_concurrent=1
    )
    (good,), (bad,) = trials_of(found.sweep, "logistic"), trials_of(found.sweep, "clumsy")
    assert (bad.status, bad.error) == ("failed", "RuntimeError: a worker stumbled")
    assert good.status == "done"
    assert good.rounds < ROWS / 2  # one worker's share
    assert good.score is not None
    assert good.score > 0.6
    scores = load_bundle(found.final.uri, trust=True).predict_table(table)
    assert 0 <= scores.min() < scores.max() <= 1
    assert not (tmp_path / "r" / "sweeps" / "sweep" / "teams").exists()
