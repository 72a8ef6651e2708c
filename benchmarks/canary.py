"""What becomes of five challengers in live traffic: ``python benchmarks/canary.py --data DIR``.

The hotel bookings of ``hotel_bookings/stream_lead90.parquet`` are asked for one by one over HTTP, each at its
own date, and each outcome is reported on the date on which it was known. The champion is a model of January
2016. Beside it, each by a canary of its own from July 2016 on (5, 25, 50 % of the traffic, a week at least):

- ``better``: a model of all that was known by July 2016;
- ``equal``: the champion's configuration on the champion's rows, with another seed;
- ``slice``: the same, but the labels of direct bookings were turned around;
- ``errors``: the champion, but for one row in a hundred it raises an exception;
- ``leak``: the champion, which keeps a quarter of a megabyte for each row that it answers.

Printed are the end of each, the steps and the evidence. Then a hundred canaries of a model beside itself by
another seed are played with the same bookings' losses and the rule that a challenger has to be better:
``aa_wrong`` of them were sent back or promoted, which should be at most alpha (0.05).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from swap import VERDICT  # noqa: E402 the folder is a set of scripts

from raywf.client import Client  # noqa: E402
from raywf.core.metrics import bounded_loss  # noqa: E402
from raywf.core.own import OwnCode, workflow_metric  # noqa: E402
from raywf.core.records import Bundle, Column, Member, Snapshot  # noqa: E402
from raywf.core.rollout import Duel, Rollouts, RolloutStep, Side, Tally  # noqa: E402
from raywf.core.serving_settings import RolloutSettings, ServingSettings  # noqa: E402
from raywf.core.settings import (  # noqa: E402
    FeatureSettings,
    MonitorSettings,
    OwnModelSettings,
    SearchSettings,
    SpineSettings,
    StoreSettings,
    Workflow,
)
from raywf.models.bundle import Draft, load_bundle, write_bundle  # noqa: E402
from raywf.models.encoding import fit_encoder  # noqa: E402
from raywf.models.families import family  # noqa: E402
from raywf.models.family import Problem, Rows  # noqa: E402
from raywf.models.own import OwnFamily  # noqa: E402
from raywf.policy.rollout import judge_rollout  # noqa: E402
from raywf.registry.registry import CHAMPION, Lineage, Registry, open_registry  # noqa: E402
from raywf.serving.environment import free_ports, serve_env  # noqa: E402

FIRST, START = datetime(2016, 1, 1, tzinfo=UTC), datetime(2016, 7, 1, tzinfo=UTC)
PARAMS = {"learning_rate": 0.05, "num_leaves": 31, "feature_fraction": 0.8}
SLICE = ("market_segment", "Direct")
ROLLOUT = RolloutSettings(
    mode="canary",
    steps=(0.05, 0.25, 0.5),
    bake=timedelta(days=7),
    patience=timedelta(days=330),
    watch=timedelta(0),
    min_rows=50,
    min_labelled=100,
    max_growth_mb=100.0,
)
BROKEN = """
import lightgbm, numpy, zlib

class Broken:
    def __init__(self, how):
        self.how, self.rounds, self.kept = how, 0, []

    def fit(self, X, y):
        settings = {"objective": "binary", "verbosity": -1, "num_threads": 1, "learning_rate": 0.05}
        self.booster = lightgbm.train(settings, lightgbm.Dataset(X, y), 150)

    def predict_proba(self, X):
        if self.how == "leak":
            self.kept.append(numpy.ones((len(X), 32768)))
        if self.how == "errors" and any(zlib.crc32(row.tobytes()) % 100 == 0 for row in X):
            raise ArithmeticError("one row in a hundred")
        return self.booster.predict(X)

    def save(self, folder):
        self.booster.save_model(str(folder / "model.txt"))

    def load(self, folder):
        self.booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
"""


def make_workflow(data: Path, folder: Path) -> Workflow:
    return Workflow(
        name="bookings",
        task="binary",
        spine=SpineSettings(
            path=str(data / "hotel_bookings" / "stream_lead90.parquet"),
            label="is_canceled",
            event_time="booking_date",
            label_time="label_date",
            maturity=timedelta(days=30),
        ),
        features=FeatureSettings(exclude=("arrival_date",)),  # later than any that a model has seen
        search=SearchSettings(models={"broken": OwnModelSettings(code="broken.py:Broken", trust=True)}),
        serving=ServingSettings(port=free_ports(1)[0], replicas=1),
        rollout=ROLLOUT,
        monitor=MonitorSettings(clock="log", window=timedelta(days=7), poll_s=0.1),
        stores=StoreSettings(root=str(folder / "root")),
    )


def make_bundle(snapshot: Snapshot, folder: Path, *, seed: int = 0, kind: str = "") -> Bundle:
    """Fit a model on a snapshot, or a broken one of a `kind`, and write its bundle."""
    from raywf.snapshots.catalog import read_snapshot

    table = read_snapshot(snapshot)
    encoder = fit_encoder(table, snapshot.columns)
    y = np.asarray(table.column("__label").to_numpy(), dtype=float)
    if kind == "slice":
        column, value = SLICE
        inside = np.array([one == value for one in table.column(column).to_pylist()])
        y = np.where(inside, 1 - y, y)
    rows = Rows(encoder.table(table), y)
    problem = Problem(task="binary", n_classes=2, sizes=encoder.sizes, seed=seed)
    params: dict[str, Any] = PARAMS
    if kind in {"errors", "leak"}:
        params = {"how": kind}
        own = OwnFamily("broken", OwnCode(file="broken.py", name="Broken", source=BROKEN))
        model = own.fit(problem, rows, params, valid=None, rounds=0)
    else:
        model = family("lightgbm").fit(problem, rows, params, valid=None, rounds=150)
    name = "broken" if kind in {"errors", "leak"} else "lightgbm"
    bundle = Bundle(
        uri="",
        digest="",
        task="binary",
        columns=snapshot.columns,
        classes=snapshot.classes,
        members=(Member(trial_id="t", family=name, params=params, rounds=150, weight=1.0),),
        snapshot_id=snapshot.id,
        fitted_until=snapshot.as_of,
        loss_scale=None,
    )
    draft = Draft(
        bundle=bundle, encoder=encoder, models=(model,), calibration=None, reference=table.slice(0, 20)
    )
    return write_bundle(draft, folder)


def register(registry: Registry, bundle: Bundle, folder: Path) -> str:
    from raywf.registry.client import connect

    client = connect(registry.uri)
    known = client.get_experiment_by_name(registry.workflow)
    experiment = (
        known.experiment_id
        if known
        else client.create_experiment(registry.workflow, artifact_location=f"{folder}/artifacts")
    )
    run = client.create_run(experiment).info.run_id
    lineage = Lineage(
        run_id=run, sweep_id="", decision_id=run, code_version="", parent=None, cost_usd=0.0, metrics={}
    )
    return registry.register(bundle, lineage, VERDICT).version


def days(workflow: Workflow) -> Iterator[tuple[datetime, list[dict[str, Any]]]]:
    """Yield each day's bookings from the start on, as rows of the stream."""
    rows = pq.read_table(workflow.spine.path).sort_by("booking_date").to_pylist()
    day: list[dict[str, Any]] = []
    at = START
    for row in rows:
        when = row["booking_date"].replace(tzinfo=UTC)
        if when < START:
            continue
        while when >= at + timedelta(days=1):
            yield at + timedelta(days=1), day
            at, day = at + timedelta(days=1), []
        day.append(row)


def play(site: Site, name: str, version: str) -> dict[str, Any]:
    """Let one challenger begin and the bookings come until its canary is over."""
    from raywf.loop.promote import promote
    from raywf.loop.rollout import RolloutKeeper, start_by_hand

    workflow, registry = site.workflow, site.registry
    if registry.resolve(CHAMPION).version != site.champion:
        promote(workflow, registry, registry.version(site.champion))
    rollouts = Rollouts(workflow.stores.root, workflow.name)
    start_by_hand(workflow, registry, [registry.version(version)], now=START)
    keeper = RolloutKeeper(workflow, registry, site.monitor)
    due: list[tuple[datetime, str, str]] = []
    asked = 0
    with Client(site.url, retries=0) as client:
        for now, rows in days(workflow):
            for row in rows:
                features = features_of(row, site.columns)
                client.predict(
                    features, prediction_id=f"{name}-{asked}", time=row["booking_date"].replace(tzinfo=UTC)
                )
                known = row["label_date"].replace(tzinfo=UTC)
                due.append((known, f"{name}-{asked}", str(row["is_canceled"])))
                asked += 1
            due.sort()
            while due and due[0][0] <= now:
                known, one, label = due.pop(0)
                client.report(one, label, time=known)
            site.settle()
            keeper.tick(now)
            step = rollouts.latest()
            assert step is not None
            if step.is_over:
                break
    return _told(rollouts, name, asked)


def features_of(row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Return a row of the stream as a client sends it, by what the snapshot took its columns for."""
    return {column.name: _plain(row[column.name], column.kind) for column in columns}


def _plain(value: Any, kind: str) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() + "Z"
    if kind == "number" and value is not None:
        number = float(value)
        return number if number == number else None
    return value


def _told(rollouts: Rollouts, name: str, asked: int) -> dict[str, Any]:
    latest = rollouts.latest()
    assert latest is not None
    steps = rollouts.steps(latest.rollout)
    found = {
        "end": latest.stage,
        "days": (latest.time - START).days if latest.stage == "promoted" else None,
        "steps": [f"{step.share:.0%}" for step in steps[:-1]],
        "rows": asked,
        "reason": "; ".join(latest.reasons),
        "labelled": latest.figures.get("labelled"),
        "loss_lower": latest.figures.get("lower"),
        "loss_upper": latest.figures.get("upper"),
        "failed": latest.figures.get("failed"),
        "growth_mb": latest.figures.get("growth_mb"),
    }
    print(name, json.dumps(found), file=sys.stderr, flush=True)
    return {k: v for k, v in found.items() if v is not None}


@dataclasses.dataclass
class Site:
    """What serves and watches."""

    workflow: Workflow
    registry: Registry
    monitor: Any
    url: str
    champion: str
    columns: Sequence[Column]

    def settle(self) -> None:
        """Wait until the shadows' answers are written and the monitor has read the log."""
        import ray

        from raywf.loop.rollout import tell_replicas

        former = -1
        while True:
            lanes = tell_replicas(self.workflow)
            count = sum(lane.copied + lane.dropped for lane in lanes)
            if count == former:
                break
            former = count
            time.sleep(0.05)
        time.sleep(2 * self.workflow.monitor.poll_s)
        ray.get(self.monitor.counts.remote(), timeout=60)


def equal_canaries(first: Bundle, second: Bundle, workflow: Workflow) -> dict[str, Any]:
    """Play a hundred canaries of two equal models on the stream's own losses, a week's look each."""
    table = pq.read_table(workflow.spine.path).sort_by("booking_date")
    whole = table.filter(
        pa.compute.greater_equal(table["booking_date"], pa.scalar(START.replace(tzinfo=None)))
    )
    y = np.asarray(whole.column("is_canceled").to_numpy(), dtype=float)
    losses = []
    for bundle in (first, second):
        predictor = load_bundle(bundle.uri)
        scores = predictor.predict_rows([features_of(row, bundle.columns) for row in whole.to_pylist()])
        losses.append(bounded_loss(y, scores, scale=None))
    settings = dataclasses.replace(ROLLOUT, require="better")
    wrong = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        sign = draw.choice([-1.0, 1.0], len(y))  # either is the challenger, row by row: no difference at all
        difference = sign * (losses[1] - losses[0])
        wrong += _is_decided(draw.permutation(difference)[:8000], settings)
    return {"aa_canaries": 100, "aa_wrong": wrong, "aa_alpha": settings.alpha}


def _is_decided(differences: Any, settings: RolloutSettings) -> bool:
    """Whether a canary of equals ends as if they were not, looked at each 200 rows at its three steps."""
    side = Side(version="1", rows=10_000, live=10_000)
    now = START
    for number, (share, part) in enumerate(
        zip(settings.steps, np.array_split(differences, 3), strict=True), 1
    ):
        step = RolloutStep(
            rollout="000001", number=number, mode="canary", stage="canary", champion="1",
            challengers=("2",), share=share, time=now, wall_time=now,
        )  # fmt: skip
        figures = 0.5 + part / 2
        pairs = [
            Tally(labelled=len(one), loss_sum=float(one.sum()), loss_squares=float((one**2).sum()))
            for one in np.array_split(figures, max(1, len(figures) // 200))
        ]
        for count in range(1, len(pairs) + 1):
            duel = Duel(
                champion=side, challenger=dataclasses.replace(side, version="2"), pairs=tuple(pairs[:count])
            )
            move = judge_rollout(step, [duel], settings, now=now + settings.bake)
            if move.stage in {"promoted", "rolled_back"}:
                return True
    return False


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAYWFTEST_DATA"), required=False)
    parser.add_argument("--only", help="one challenger")
    args = parser.parse_args()
    if args.data is None:
        parser.error("--data or RAYWFTEST_DATA has to name the folder with hotel_bookings")
    folder = Path(tempfile.mkdtemp(prefix="raywf-bench-"))
    workflow = make_workflow(Path(args.data).resolve(), folder)
    os.environ.update(serve_env(workflow.serving))
    found: dict[str, Any] = {}
    try:
        import ray

        from raywf.loop.references import RegistryReferences
        from raywf.monitor.actor import MonitorActor
        from raywf.serving.deploy import deploy
        from raywf.snapshots.build import build_snapshot

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        first, later = (build_snapshot(workflow, as_of=moment) for moment in (FIRST, START))
        registry = open_registry(workflow)
        champion = make_bundle(first, folder / "champion")
        bundles = {
            "better": make_bundle(later, folder / "better"),
            "equal": make_bundle(first, folder / "equal", seed=1),
            "slice": make_bundle(first, folder / "slice", seed=1, kind="slice"),
            "errors": make_bundle(first, folder / "errors", kind="errors"),
            "leak": make_bundle(first, folder / "leak", kind="leak"),
        }
        site = Site(workflow, registry, None, "", register(registry, champion, folder), [])
        site.columns = first.columns
        registry.point(CHAMPION, site.champion)
        site.url = deploy(workflow, registry)
        options = {"max_restarts": -1, "max_concurrency": 4, "num_cpus": 0}
        references = RegistryReferences(workflow, registry)
        actor = ray.remote(MonitorActor).options(**options)
        site.monitor = actor.remote(workflow, references, workflow_metric(workflow))
        for name, bundle in bundles.items():
            if args.only in {None, name}:
                found[name] = play(site, name, register(registry, bundle, folder))
        found |= equal_canaries(champion, bundles["equal"], workflow)
        ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
