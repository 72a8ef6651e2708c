"""A search in MLflow: a parent run, a child run a trial, written in batches from one place."""

from __future__ import annotations

import math
from typing import Any

from mlflow.entities import Metric, Param, RunTag

from raywf.core.records import Snapshot, Sweep, Trial
from raywf.core.settings import Workflow
from raywf.registry.client import connect, experiment_id, refusals, tracking_uri

_FAMILY = "family"
_PAGE = 1_000  # runs that one answer holds


def log_sweep(workflow: Workflow, snapshot: Snapshot, sweep: Sweep) -> str:
    """Write a sweep and its trials; return the parent run's id. Runs that are there are not made again.

    Each run has its cost as a metric ``cost_usd`` and as a tag ``raywf.cost_usd``, as model versions do.

    Raises:
        RegistryError: if MLflow cannot be reached or refuses something.
    """
    uri = tracking_uri(workflow)
    client = connect(uri)
    artifacts = f"{workflow.stores.root}/artifacts/{workflow.name}"
    with refusals(uri, f"write the runs of sweep {sweep.id}"):
        return _write(client, experiment_id(client, workflow.name, artifacts), snapshot, sweep)


def _write(client: Any, experiment: str, snapshot: Snapshot, sweep: Sweep) -> str:
    parent = _run(client, experiment, {"raywf.sweep": sweep.id, "raywf.kind": "sweep"}, f"sweep {sweep.id}")
    stamp = int(snapshot.as_of.timestamp() * 1000) if snapshot.as_of else 0
    figures = {sweep.metric: sweep.score, "spent_s": sweep.spent_s, "cpu_s": sweep.cpu_s}
    client.log_batch(
        parent,
        metrics=_metrics({**figures, "cost_usd": sweep.cost_usd, "idle_usd": sweep.idle_usd}, stamp),
        tags=[
            RunTag("raywf.cost_usd", repr(sweep.cost_usd)),
            RunTag("raywf.snapshot", snapshot.id),
            RunTag("raywf.members", ", ".join(f"{m.trial_id}={m.weight:.2f}" for m in sweep.members)),
            RunTag("raywf.warm_from", sweep.warm_from or ""),
            RunTag("raywf.effort", sweep.effort),
        ],
    )
    ended, cut = _children(client, experiment, sweep.id)
    for trial in sweep.trials:
        if trial.id not in ended:
            run = cut.get(trial.id) or _new_child(client, experiment, parent, (sweep, trial))
            _log_trial(client, run, (sweep, trial), stamp)
    client.set_terminated(parent)
    return parent


def _new_child(client: Any, experiment: str, parent: str, what: tuple[Sweep, Trial]) -> str:
    sweep, trial = what
    tags = {
        "raywf.kind": "trial",
        "raywf.trial": trial.id,
        "raywf.trial_of": sweep.id,
        "raywf.status": trial.status,
        "raywf.cost_usd": repr(trial.cost_usd),
        "mlflow.parentRunId": parent,
    }
    return str(client.create_run(experiment, tags=tags, run_name=trial.id).info.run_id)


def _log_trial(client: Any, run: str, what: tuple[Sweep, Trial], stamp: int) -> None:
    sweep, trial = what
    metrics = {"seconds": trial.seconds, "rounds": float(trial.rounds), "cost_usd": trial.cost_usd}
    if trial.score is not None:
        metrics[sweep.metric] = trial.score
    folds = [
        Metric("fold_loss", loss, stamp, i) for i, loss in enumerate(trial.fold_losses) if math.isfinite(loss)
    ]
    client.log_batch(run, metrics=[*_metrics(metrics, stamp), *folds], params=_params(trial))
    client.set_terminated(run, "FAILED" if trial.status == "failed" else "FINISHED")


def _params(trial: Trial) -> list[Param]:
    """Return the family and the parameters; one of a user's own model may be called as ours is."""
    named = {(f"{trial.family}.{_FAMILY}" if k == _FAMILY else k): v for k, v in trial.params.items()}
    return [Param(_FAMILY, trial.family), *(Param(k, str(v)) for k, v in named.items())]


def _run(client: Any, experiment: str, tags: dict[str, str], name: str) -> str:
    query = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
    found = client.search_runs([experiment], query, max_results=1)
    return str(
        found[0].info.run_id if found else client.create_run(experiment, tags=tags, run_name=name).info.run_id
    )


def _children(client: Any, experiment: str, sweep_id: str) -> tuple[set[str], dict[str, str]]:
    """Return the trials whose runs have ended, and the runs, by trial, of those that were cut off."""
    query, ended, cut = f"tags.`raywf.trial_of` = '{sweep_id}'", set[str](), dict[str, str]()
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], query, max_results=_PAGE, page_token=token or None)
        for run in page:
            trial = run.data.tags["raywf.trial"]
            if run.info.status == "RUNNING":
                cut[trial] = run.info.run_id
            else:
                ended.add(trial)
        token = page.token or None
    return ended, cut


def _metrics(figures: dict[str, float], stamp: int) -> list[Metric]:
    return [Metric(k, v, stamp, 0) for k, v in figures.items() if math.isfinite(v)]
