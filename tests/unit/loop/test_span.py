"""How far back a retraining looks: all, unless the newest rows say surely that a part does better."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from raywf.core.records import Bundle, Column, Snapshot, Span, Sweep
from raywf.core.settings import SpineSettings, Workflow
from raywf.loop.span import choose_part, choose_span, part_of
from raywf.search.run import SearchResult

START, ROWS = datetime(2020, 1, 1, tzinfo=UTC), 12_000
WORKFLOW = Workflow(
    name="w", task="binary", spine=SpineSettings(path="x", label="y", event_time="t"), metric="log_loss"
)
Rule = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def history(rule: Rule, *, rows: int = ROWS, weight: bool = False) -> tuple[Snapshot, pa.Table]:
    """Return a table whose label is as likely as the rule says of the age (1 to 0) and a number."""
    draw = np.random.default_rng(0)
    x, age = draw.normal(size=rows), np.linspace(1, 0, rows)
    labels = (draw.random(rows) < rule(age, x)).astype(float)
    times = [START + timedelta(minutes=i) for i in range(rows)]
    columns = {"x": x, "__label": labels, "__time": pa.array(times, pa.timestamp("us", "UTC"))}
    columns |= {"__weight": np.full(rows, 2.0)} if weight else {}
    snapshot = Snapshot(
        id="s",
        workflow="w",
        uri="",
        rows=rows,
        columns=(Column(name="x", kind="number"),),
        task="binary",
        classes=("no", "yes"),
        label="y",
        has_time=True,
        window=None,
        as_of=None,
        digest="",
        profile=(),
        sources=(),
    )
    return snapshot, pa.table(columns)


def same(_age: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-2 * x))


def flipped(age: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return same(age, np.where(age > 0.35, -x, x))


def turning(age: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return same(age, x * np.cos(np.pi * age))


def sweep(span: Span) -> Sweep:
    return Sweep(
        id="old",
        snapshot_id="s",
        metric="log_loss",
        greater_is_better=False,
        trials=(),
        members=(),
        score=0.0,
        calibrated=False,
        budget_s=1,
        spent_s=1,
        cpu_s=1,
        span=span,
    )


def test_what_stays_the_same_is_learned_from_all() -> None:
    """More rows are better, and a short span must be surely better to be taken."""
    assert choose_span(WORKFLOW, *history(same)) == "all"


@pytest.mark.parametrize("rule", [flipped, turning])
def test_what_changed_is_learned_from_what_is_new(rule: Rule) -> None:
    """The older rows say the opposite."""
    assert choose_span(WORKFLOW, *history(rule)) != "all"


def test_few_rows_are_all_taken() -> None:
    """Whatever they say."""
    assert choose_span(WORKFLOW, *history(flipped, rows=1500)) == "all"


def test_who_chooses() -> None:
    """A full search after others; a cheaper one does as its champion; the first model has all."""
    given = history(flipped)
    assert choose_part(WORKFLOW, *given, effort="full", former=()).span == "all"
    assert choose_part(WORKFLOW, *given, effort="full", former=(sweep("all"),)).span != "all"
    for effort in ("refit", "warm"):
        assert choose_part(WORKFLOW, *given, effort=effort, former=(sweep("aging"),)).span == "aging"
        assert choose_part(WORKFLOW, *given, effort=effort, former=(sweep("all"),)).span == "all"


def test_parts() -> None:
    """Are the newest rows, or all with weights that fall with the age, beside those that were given."""
    _, table = history(same, rows=1000)
    assert part_of(table, "all").table.equals(table)
    for span, rows in (("half", 500), ("quarter", 250)):
        part = part_of(table, span)  # type: ignore[arg-type]
        assert (part.table.num_rows, part.offset) == (rows, 1000 - rows)
        assert part.table.column("__time")[-1] == table.column("__time")[-1]
    weights = part_of(table, "aging").table.column("__weight").to_numpy()
    assert weights[[0, -1]] == pytest.approx([0.5**4, 1.0])
    _, table = history(same, rows=1000, weight=True)
    weights = part_of(table, "aging").table.column("__weight").to_numpy()
    assert weights[[0, -1]] == pytest.approx([2 * 0.5**4, 2.0])


def test_the_gates_rows_are_counted_in_the_whole() -> None:
    """So that champion and challenger are judged on the same."""
    part = part_of(history(same, rows=1000)[1], "quarter")
    bundle = Bundle(
        uri="", digest="", task="", columns=(), classes=(), members=(), snapshot_id="", fitted_until=None,
        loss_scale=None,
    )  # fmt: skip
    found = SearchResult(
        sweep=sweep("quarter"), proof=bundle, final=bundle, gate_rows=np.array([240, 249]), nodes={}
    )
    assert part.whole(found).gate_rows.tolist() == [990, 999]
