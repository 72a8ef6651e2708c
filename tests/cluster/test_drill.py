"""The drill: a retraining as a job on a cluster that loses a node in each stage, and its head's GCS."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from drill import FOLDS, OUTAGE_S, TRIALS, Drill, ServingCluster
from network import Bridged, open_network

from raywf.core.loader import load_workflow
from raywf.core.records import Prediction
from raywf.outcomes.reader import LogReader
from raywf.registry.client import connect, tracking_uri
from raywf.search.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NEAR_S, LONGEST_S = 5.0, 5.0


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """The whole story, from the first model to the last replica; the tests look at what came of it."""
    with open_network() as network:
        cluster = ServingCluster(Path(tempfile.mkdtemp(prefix="rwt-", dir="/tmp")), network)
        try:
            made = Drill(cluster, tmp_path_factory.mktemp("flights"))
            made.begin()
            made.retrain()
            made.lose_replica()
            made.callers.end()
            kind = "a namespace and an address each" if isinstance(network, Bridged) else "one address"
            print(f"\n5 nodes, {kind}", *told(made), sep="\n")
            yield made
        finally:
            cluster.stop()


def told(drill: Drill) -> Iterator[str]:
    """Yield what happened, a line each."""
    callers, end = drill.callers, max(one.at for one in drill.callers.asked)
    spent_s = end - drill.began
    yield (
        f"{len(callers.asked)} predictions asked for in {spent_s:.0f} s, {len(callers.failed)} failed; "
        f"slowest {max(one.seconds for one in callers.asked):.2f} s, longest without an answer "
        f"{callers.longest_gap_s(drill.began, end):.2f} s"
    )
    for loss in drill.losses:
        near = [one for one in callers.failed if loss.at - NEAR_S <= one.at <= loss.back + NEAR_S]
        reasons = dict(Counter(re.sub(r"\d{4,}", "N", one.problem)[:120] for one in near))
        yield (
            f"lost {loss.what} at {loss.at - drill.began:.1f} s for {loss.back - loss.at:.1f} s: {len(near)} "
            f"failed {reasons or ''}, longest without an answer "
            f"{callers.longest_gap_s(loss.at, loss.back + 20):.2f} s"
        )


def test_the_job_ends(drill: Drill) -> None:
    """It succeeds, as who waits for it at a laptop sees, and has put a version to the gate."""
    assert drill.job_exit == 0, drill.output[-4000:]
    assert drill.job["status"] == "SUCCEEDED"
    assert {"promoted", "rejected"} & drill.stages()


def test_each_loss_was_in_its_stage(drill: Drill) -> None:
    """While the snapshot was built, while trials ran (twice), and under the callers' questions."""
    snapshot, search, gcs, serving = (loss.stages for loss in drill.losses)
    assert "snapshot" not in snapshot
    assert "snapshot" in search & gcs
    assert "searched" not in search | gcs
    assert {"promoted", "rejected"} & serving
    assert 0 < len(drill.losses[1].folds) < len(drill.losses[2].folds) < len(drill.folds())


def test_no_trial_is_lost_or_doubled(drill: Drill) -> None:
    """As many as were asked for, each once by ledger, registry and job's output, with the folds it tells of.

    The race stops some after their first fold, as it does without losses.
    """
    (sweep_id,) = {path.name for path in drill.root.glob("sweeps/*")} - drill.first_sweeps
    sweep = Ledger(str(drill.root), sweep_id).read_sweep()
    assert sweep is not None
    ids = sorted(trial.id for trial in sweep.trials)
    assert len(set(ids)) == len(ids) == TRIALS
    ends = {(trial.status, len(trial.fold_losses)) for trial in sweep.trials}
    assert {("done", FOLDS)} <= ends <= {("done", FOLDS), ("stopped", 1)}
    made = [f"{trial.id}/fold-{n}.npz" for trial in sweep.trials for n in range(len(trial.fold_losses))]
    assert sorted(drill.folds()) == sorted(made)
    assert sorted(re.findall(r"trial (\S+) ran on node", drill.output)) == ids
    assert sorted(logged(drill, sweep_id)) == ids


def logged(drill: Drill, sweep_id: str) -> list[str]:
    """Return the trial of each run that MLflow has of the sweep's trials."""
    workflow = load_workflow(drill.folder / "workflow.yaml", environ={})
    client = connect(tracking_uri(workflow))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`raywf.trial_of` = '{sweep_id}'")
    return [run.data.tags["raywf.trial"] for run in runs]


def test_what_was_fitted_stays(drill: Drill) -> None:
    """No fold that was kept before a loss is fitted again after it."""
    after = drill.folds()
    for loss in drill.losses:
        assert {name: after[name] for name in loss.folds} == loss.folds


def test_serving_answers_throughout(drill: Drill) -> None:
    """Nobody waits long for an answer, and none fails but those that a lost node was about to give."""
    callers, end = drill.callers, max(one.at for one in drill.callers.asked)
    _snapshot, _search, gcs, serving = drill.losses
    assert callers.longest_gap_s(drill.began, end) < LONGEST_S
    assert gcs.back - gcs.at >= OUTAGE_S
    assert [one for one in callers.failed if not serving.at - 1 <= one.at <= serving.at + NEAR_S] == []


def test_serving_is_whole_again(drill: Drill) -> None:
    """There are two replicas, both of the champion's version, and the lost one is not among them."""
    (champion,) = {replica["version"] for replica in drill.served["replicas"]}
    assert champion == ("2" if "promoted" in drill.stages() else "1")


def test_everything_acknowledged_is_in_the_log(drill: Drill) -> None:
    """Each prediction that was answered."""
    entries, _ = LogReader(str(drill.root), "flights").read()
    predicted = {entry.id for entry in entries if isinstance(entry, Prediction)}
    assert {one.id for one in drill.callers.asked if not one.problem} <= predicted
