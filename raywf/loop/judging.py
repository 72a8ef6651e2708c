"""The gate as a retraining and a backtest ask it: a proof beside the champion on rows neither has seen."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.journal import BY_HAND
from raywf.core.own import workflow_metric
from raywf.core.records import BASELINE, Bundle, Decision, ModelVersion, Snapshot, Verdict
from raywf.core.settings import Workflow
from raywf.core.store import Store
from raywf.gate.verdict import GateBlock, judge
from raywf.loop.fresh import is_fresh
from raywf.models.bundle import Predictor, load_bundle
from raywf.search.data import row_groups
from raywf.snapshots.catalog import load_snapshot

Fetch = Callable[[ModelVersion, Path], str | Path]
Rows = NDArray[np.int64]


class Judge:
    """Gates a proof while its search waits, so that no final model is made of what does not pass.

    What prevents a verdict is kept until it is asked for: the search has come to its end then, and is not
    done again.
    """

    def __init__(
        self,
        workflow: Workflow,
        decision: Decision,
        snapshot: Snapshot,
        table: pa.Table,
        *,
        champion: ModelVersion | None,
        fetch: Fetch,
        say: Callable[[str], None],
    ) -> None:
        self._workflow, self._decision, self._snapshot, self._table = workflow, decision, snapshot, table
        self._champion, self._fetch, self._say = champion, fetch, say
        self._found: Verdict | Exception | None = None

    def __call__(self, proof: Bundle, rows: Rows) -> bool:
        """Return whether a proof passes, by the gate's rows."""
        try:
            self._found = self._judge(proof, rows)
        except Exception as err:  # noqa: BLE001 - a store that is away, a metric of the user's own
            self._found = err
            return False
        self._say(f"gate: {self._found.outcome}; {self._found.reason}")
        return self._found.outcome == "accept"

    @property
    def verdict(self) -> Verdict:
        """The gate's verdict; raises what prevented it."""
        assert self._found is not None
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def _judge(self, proof: Bundle, rows: Rows) -> Verdict:
        champion = self._champion
        verdict = gate(
            self._workflow, self._table, champion=champion, proof=proof, rows=rows, fetch=self._fetch
        )
        if champion is None or self._decision.cause == BY_HAND:
            return verdict
        return _keep_schema(self._workflow, verdict, self._snapshot, champion)


def gate(
    workflow: Workflow,
    table: pa.Table,
    *,
    champion: ModelVersion | None,
    proof: Bundle,
    rows: Rows,
    fetch: Fetch,
) -> Verdict:
    """Score challenger and champion (or, without one, the training prior) on rows neither was fitted on.

    `proof` is the challenger's and `rows` the gate's, of the table. `fetch` brings a version's bundle into a
    folder, or says where it is.
    """
    fresh = rows if champion is None else rows[is_fresh(table, champion)[rows]]
    block = table.take(pa.array(fresh))
    labels = np.asarray(block.column("__label").to_numpy(), dtype=np.float64)
    trust = workflow.trusts_own_code
    challenger = load_bundle(proof.uri, trust=trust)
    scores = challenger.predict_table(block)
    metric = workflow_metric(workflow)
    prior = _prior(table, rows, scores.shape, quantile=metric.quantile)
    against, other, threshold = BASELINE, prior, 0.5
    if champion is not None:
        theirs = _champion_scores(fetch, champion, challenger, block, trust=trust)
        if theirs is not None:
            against, (other, threshold) = f"version {champion.version}", theirs
    compared = GateBlock(
        labels=labels,
        challenger=scores,
        champion=other,
        against=against,
        loss_scale=challenger.bundle.loss_scale,
        thresholds=(challenger.bundle.threshold, threshold),
        groups=row_groups(block) if metric.grouped else None,
    )
    return judge(compared, metric, workflow.gate)


def _champion_scores(
    fetch: Fetch,
    champion: ModelVersion,
    challenger: Predictor,
    block: pa.Table,
    *,
    trust: bool,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float64]], float] | None:
    """Return the champion's scores and threshold; None where its columns or classes are others."""
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        predictor = load_bundle(fetch(champion, Path(folder)), digest=champion.digest, trust=trust)
        theirs, ours = predictor.bundle, challenger.bundle
        if not predictor.can_score(block) or (theirs.task, theirs.classes) != (ours.task, ours.classes):
            return None
        return predictor.predict_table(block), predictor.bundle.threshold


def _prior(
    table: pa.Table, gate_rows: Rows, shape: tuple[int, ...], *, quantile: float | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return what is answered without looking at a row: the classes' shares, the mean or the quantile."""
    labels = np.asarray(table.column("__label").to_numpy(), dtype=np.float64)
    seen = np.delete(labels, gate_rows)
    if shape[1] == 1:
        return np.full(shape, seen.mean() if quantile is None else np.quantile(seen, quantile))
    return np.tile(np.bincount(seen.astype(int), minlength=shape[1]) / len(seen), (shape[0], 1))


def _keep_schema(workflow: Workflow, verdict: Verdict, snapshot: Snapshot, champion: ModelVersion) -> Verdict:
    """Leave a challenger undecided that wants other request fields: live clients would be refused."""
    theirs = load_snapshot(Store(workflow.stores.root), workflow.name, champion.snapshot_id).columns
    changed = sorted({c.name for c in set(theirs) ^ set(snapshot.columns)})
    if verdict.outcome != "accept" or not changed:
        return verdict
    reason = f"{verdict.reason}; but request fields change ({', '.join(changed)}): 'raywf run' accepts that"
    return replace(verdict, outcome="undecided", reason=reason)
