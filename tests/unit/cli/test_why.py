"""`raywf why` on a story that was made up, and a version's reigns by its journal; no Ray, no registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from raywf.cli.main import cli
from raywf.cli.why import tell
from raywf.core.codec import encode
from raywf.core.errors import NoVersionError
from raywf.core.probe import Probe
from raywf.core.records import (
    Check,
    Decision,
    JournalEntry,
    Member,
    ModelVersion,
    Sweep,
    Trial,
)
from raywf.core.rollout import RolloutStep
from raywf.cost.allot import Parts
from raywf.loop.why import Deed, Reign, VersionStory, find_reigns
from raywf.testing import make_decision, make_verdict

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(stage: str, minute: int, *reasons: str, decision: str = "d1", **figures: object) -> JournalEntry:
    at = NOON + timedelta(minutes=minute)
    return JournalEntry(
        decision_id=decision, stage=stage, time=NOON, wall_time=at, reasons=reasons, figures=figures
    )


def decided(name: str, kind: str, cause: str, reason: str) -> Decision:
    return make_decision(
        name, workflow="churn", kind=kind, cause=cause, window="w", reasons=(reason,), time=NOON
    )  # type: ignore[arg-type]


VERDICT = make_verdict(
    rows=812,
    challenger=0.81,
    champion=0.79,
    against="version 1",
    checks=(Check(name="gain", figure=0.02, low=0.01, high=0.03, bound=0.0, passed=True),),
    loss=0.2,
    reason="better by 0.02",
)
SWEEP = Sweep(
    id="sweep2",
    snapshot_id="snap2",
    metric="roc_auc",
    greater_is_better=True,
    trials=tuple(
        Trial(id=f"linear-{i}", family="linear", params={}, status=s)
        for i, s in enumerate(("done", "done", "failed"))
    ),
    members=(Member(trial_id="linear-1", family="linear", params={}, rounds=0, weight=1.0),),
    score=0.8,
    calibrated=True,
    budget_s=60,
    spent_s=31,
    cpu_s=62,
    warm_from="sweep1",
    effort="warm",
)
VERSION = ModelVersion(
    workflow="churn",
    version="2",
    uri="",
    digest="",
    run_id="",
    status="rolled_back",
    snapshot_id="snap2",
    sweep_id="sweep2",
    code_version="abc",
    parent="1",
    decision_id="d1",
    metrics={},
    loss=0.2,
    loss_rows=812,
    cost_usd=0.5,
    created=NOON,
)
STEP = RolloutStep(
    rollout="000001",
    number=2,
    mode="canary",
    stage="promoted",
    champion="1",
    challengers=("2",),
    share=1.0,
    time=NOON,
    wall_time=NOON + timedelta(minutes=9),
    reasons=("equal",),
)
MADE_BY = Deed(
    decision=decided("d1", "retrain", "loss", "the champion's loss reached at least 0.3"),
    stages=(
        entry("attributed", 0, "where origin is JFK it rose"),
        entry("submitted-1", 1, job="churn-d1"),
        entry("lost-1", 2, "job churn-d1 ended as FAILED without a result"),
        entry("submitted-2", 3, job="churn-d1-2"),
        entry("promoted", 9, "better", version="2", prepare_s=0.31, commit_s=0.004, replicas=2),
    ),
)
LOOK = Probe(version="1", since=NOON, time=NOON, rows=900, champion=0.2, quick=0.15, error=0.01, cpu_s=1.0)
STORY = VersionStory(
    version=VERSION,
    made_by=MADE_BY,
    looks=(LOOK,),
    snapshot=None,
    sweep=SWEEP,
    verdict=VERDICT,
    rollout=(STEP,),
    deeds=(
        Deed(
            decision=decided("d2", "rollback", "watch", "fails"),
            stages=(entry("promoted", 30, "fails", decision="d2", version="1", failed="2"),),
        ),
    ),
    reigns=(Reign(start=NOON, end=NOON + timedelta(hours=1), successor="1"),),
    cost=Parts(done=0.4, idle=0.1),
)


def test_the_whole_story() -> None:
    """Alarm, jobs, search, gate, rollout, swap, what came after, and money, in this order."""
    assert tell(STORY) == [
        "version 2 of churn: rolled_back",
        "",
        "looks    2026-03-01T12:00:00Z: version 1 loses 0.2000, a quick model of newer rows 0.1500: +25.0% "
        "(+-9.8%) on 900 rows",
        "alarm    2026-03-01T12:00:00Z: retrain (full): the champion's loss rose; decision d1",
        "         the champion's loss reached at least 0.3",
        "         where origin is JFK it rose",
        "job      2026-03-01T12:01:00Z: churn-d1 submitted",
        "         2026-03-01T12:02:00Z: job churn-d1 ended as FAILED without a result",
        "         2026-03-01T12:03:00Z: churn-d1-2 submitted",
        "data     snapshot snap2, which is gone",
        "search   sweep sweep2 (warm): roc_auc 0.8000 out of fold, 31 s of 60 s",
        "         trials: 2 done, 1 failed; started from sweep sweep1",
        "         ensemble: linear-1 1.00, calibrated",
        "gate     accept: roc_auc 0.8100 beside 0.7900 of version 1, on 812 rows that neither had seen",
        "         better by 0.02",
        "           gain: 0.02 (0.01 to 0.03), bound 0: held",
        "version  registered 2026-03-01T12:00:00Z, after version 1, code abc",
        "rollout  2026-03-01T12:09:00Z: canary of version 2 beside 1: promoted, 100% of the traffic: equal",
        "swap     2026-03-01T12:09:00Z: promoted, 2 replicas made ready in 0.31 s and moved in 4 ms: better",
        "then     2026-03-01T12:00:00Z: rollback, the watch: fails",
        "           2026-03-01T12:30:00Z: promoted: fails",
        "served   as champion from 2026-03-01T12:00:00Z to 2026-03-01T13:00:00Z, then version 1",
        "cost     $0.50 for the search (done 80%, idle 20%), 62 CPU-seconds",
        "         1.0 CPU-seconds for the look",
    ]


def test_it_goes_through_json() -> None:
    """Every part of it."""
    found = json.loads(json.dumps(encode(STORY)))
    assert found["made_by"]["decision"]["id"] == "d1"
    assert found["verdict"]["outcome"] == "accept"
    assert found["rollout"][0]["stage"] == "promoted"


def test_reigns_end_with_the_next_champion() -> None:
    """A version may come back, and a promotion told twice is one."""
    promoted = [("1", 0), ("2", 5), ("2", 6), ("1", 9), ("2", 20)]
    entries = [entry("promoted", minute, version=name) for name, minute in promoted]
    entries.insert(1, entry("registered", 4, version="3"))
    at = {minute: NOON + timedelta(minutes=minute) for _, minute in promoted}
    assert find_reigns(entries, "2") == (
        Reign(start=at[5], end=at[9], successor="1"),
        Reign(start=at[20]),
    )
    assert find_reigns(entries, "3") == ()


def test_no_version_yet(tmp_path: Path) -> None:
    """Is said in one line, and no registry is made."""
    file = tmp_path / "workflow.yaml"
    file.write_text("name: churn\ntask: binary\nspine: {path: a.csv, label: y}\n")
    done = CliRunner().invoke(cli, ["why", "-f", str(file)], standalone_mode=False)
    with pytest.raises(NoVersionError, match="'churn' has no version 'champion'; 'raywf run' makes a first"):
        raise done.exception or AssertionError
    assert list(tmp_path.iterdir()) == [file]
