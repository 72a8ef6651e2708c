"""Members of raywf's seams for tests: no server, no registry, real files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa

from raywf.core.codec import decode, encode
from raywf.core.errors import RegistryError
from raywf.core.records import Bundle, Column, ColumnProfile, Decision, Member, ModelVersion, Sweep, Verdict
from raywf.core.store import Store
from raywf.models.bundle import Draft, write_bundle
from raywf.models.encoding import fit_encoder
from raywf.models.families import family
from raywf.models.family import Problem, Rows


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A `ModelSource` that is a folder: bundles, their records and an alias file.

    Picklable; every process that holds one with the same root sees the same state.
    """

    root: str

    def add(self, bundle: Bundle, *, version: str) -> ModelVersion:
        """Copy a bundle in as a version, and return its record."""
        folder = Path(self.root) / "versions" / version
        shutil.copytree(bundle.uri, folder / "bundle")
        record = ModelVersion(
            workflow="test",
            version=version,
            uri=str(folder / "bundle"),
            digest=bundle.digest,
            run_id=f"run-{version}",
            status="registered",
            snapshot_id=bundle.snapshot_id,
            sweep_id="sweep",
            code_version="test",
            parent=None,
            decision_id="",
            metrics={"loss": 0.5},
            loss=0.5,
            loss_rows=100,
            cost_usd=0.0,
            created=datetime.now(UTC),
        )
        Store(self.root).write(f"versions/{version}/version.json", json.dumps(encode(record)).encode())
        return record

    def move(self, alias: str, version: str) -> None:
        """Point an alias at a version."""
        Store(self.root).write(f"aliases/{alias}", version.encode())

    def set_down(self, down: bool) -> None:
        """Make every process' calls fail as if the registry were away, or end that."""
        marker = Path(self.root) / "down"
        if down:
            marker.touch()
        else:
            marker.unlink(missing_ok=True)

    def resolve(self, alias: str) -> ModelVersion:
        """Return the version that the alias names now.

        Raises:
            RegistryError: if there is no such alias, or the source is down.

        """
        self._require_up()
        try:
            version = Store(self.root).read(f"aliases/{alias}").decode()
        except OSError as err:
            raise RegistryError(f"no alias {alias!r} in {self.root}") from err
        return replace(self.version(version), aliases=(alias,))

    def version(self, version: str) -> ModelVersion:
        """Return a version's record.

        Raises:
            RegistryError: if there is no such version.

        """
        try:
            return decode(ModelVersion, json.loads(Store(self.root).read(f"versions/{version}/version.json")))
        except OSError as err:
            raise RegistryError(f"no version {version!r} in {self.root}") from err

    def fetch(self, version: ModelVersion, folder: Path) -> Path:
        """Copy the version's bundle below `folder`.

        Raises:
            RegistryError: if the files are not there, or the source is down.

        """
        self._require_up()
        try:
            return Path(shutil.copytree(version.uri, folder / "bundle"))
        except (OSError, shutil.Error) as err:
            raise RegistryError(f"the bundle of version {version.version} cannot be read: {err}") from err

    def _require_up(self) -> None:
        if (Path(self.root) / "down").exists():
            raise RegistryError(f"the registry at {self.root} is down")


SMALL_COLUMNS = (
    Column(name="distance", kind="number"),
    Column(name="carrier", kind="category"),
    Column(name="departure", kind="time"),
    Column(name="delay", kind="number"),
)
SMALL_ROW: Mapping[str, Any] = {
    "distance": 1400.0,
    "carrier": "UA",
    "departure": "2013-01-01T05:15:00Z",
    "delay": None,
}
SMALL_PROFILE = (
    ColumnProfile(name="distance", kind="number", edges=(99.0, 1500.0, 3000.0), counts=(0, 250, 250, 0)),
    ColumnProfile(
        name="carrier", kind="category", values=("UA", "AA", "B6", "DL"), counts=(125, 125, 125, 125, 0)
    ),
    ColumnProfile(name="departure", kind="time", counts=(500,)),
    ColumnProfile(name="delay", kind="number", edges=(-1.0, 24.0, 49.0), counts=(0, 214, 214, 0), missing=72),
)
_CLASSES = {"binary": ("no", "late"), "multiclass": ("early", "late", "on time"), "regression": ()}


def small_table(rows: int, rng: np.random.Generator) -> pa.Table:
    """Return invented rows of `SMALL_COLUMNS`, as a snapshot has them."""
    instants = [datetime(2013, 1, 1 + i % 28, i % 24, tzinfo=UTC) for i in range(rows)]
    return pa.table(
        {
            "distance": rng.uniform(100, 3000, rows),
            "carrier": pa.array(rng.choice(["UA", "AA", "B6", "DL"], rows).tolist()),
            "departure": pa.array(instants, pa.timestamp("us", tz="UTC")),
            "delay": pa.array([None if i % 7 == 0 else float(i % 50) for i in range(rows)]),
        }
    )


def small_bundle(folder: Path, *, task: str = "binary", seed: int = 0, rounds: int = 100) -> Bundle:
    """Fit a LightGBM model on 500 invented rows of `SMALL_COLUMNS` and write its bundle into a new folder."""
    rng = np.random.default_rng(seed)
    table = small_table(500, rng)
    classes = _CLASSES[task]
    y = rng.normal(10, 3, 500) if task == "regression" else rng.integers(0, len(classes), 500).astype(float)
    encoder = fit_encoder(table, SMALL_COLUMNS)
    problem = Problem(task=task, n_classes=len(classes), sizes=encoder.sizes, seed=seed)
    fitted = family("lightgbm").fit(problem, Rows(encoder.table(table), y), {}, valid=None, rounds=rounds)
    member = Member(trial_id="t", family="lightgbm", params={}, rounds=rounds, weight=1.0)
    bundle = Bundle(
        uri="",
        digest="",
        task=task,
        columns=SMALL_COLUMNS,
        classes=classes,
        members=(member,),
        snapshot_id=f"snapshot-{seed}",
        fitted_until=None,
        loss_scale=5.0 if task == "regression" else None,
        profile=SMALL_PROFILE,
    )
    draft = Draft(
        bundle=bundle, encoder=encoder, models=(fitted,), calibration=None, reference=table.slice(0, 20)
    )
    return write_bundle(draft, folder)


def make_decision(identity: str, *, kind: str = "retrain", **facts: Any) -> Decision:
    """Return a decision with the facts that matter to a test; it is for a loss, and says nothing of it."""
    empty: dict[str, Any] = {
        "workflow": "w",
        "cause": "loss",
        "window": "",
        "reasons": (),
        "time": datetime(2020, 1, 1, tzinfo=UTC),
    }
    return Decision(id=identity, kind=cast("Any", kind), **{**empty, **facts})


def make_sweep(identity: str, **facts: Any) -> Sweep:
    """Return a full search with the facts that matter to a test; without trials and members."""
    empty: dict[str, Any] = {
        "snapshot_id": "n",
        "metric": "log_loss",
        "greater_is_better": False,
        "trials": (),
        "members": (),
        "score": 0.3,
        "calibrated": False,
        "budget_s": 60,
        "spent_s": 20,
        "cpu_s": 40,
    }
    return Sweep(id=identity, **{**empty, **facts})


def make_verdict(outcome: Literal["accept", "reject", "undecided"] = "accept", **facts: Any) -> Verdict:
    """Return a verdict with the facts that matter to a test; its figures are those of a good challenger."""
    empty: dict[str, Any] = {
        "rows": 100,
        "metric": "roc_auc",
        "challenger": 0.8,
        "champion": 0.7,
        "against": "1",
        "checks": (),
        "loss": 0.15,
        "reason": "better",
    }
    return Verdict(outcome=outcome, **{**empty, **facts})


def make_version(version: str, *, workflow: str = "w", **facts: Any) -> ModelVersion:
    """Return a version with the facts that matter to a test; the others are empty."""
    empty: dict[str, Any] = {
        "uri": "",
        "digest": "",
        "run_id": "",
        "status": "champion",
        "snapshot_id": "",
        "sweep_id": "",
        "code_version": "",
        "parent": None,
        "decision_id": "",
        "metrics": {},
        "loss": None,
        "loss_rows": 0,
        "cost_usd": 0.0,
        "created": datetime(2020, 1, 1, tzinfo=UTC),
    }
    return ModelVersion(workflow=workflow, version=version, **{**empty, **facts})
