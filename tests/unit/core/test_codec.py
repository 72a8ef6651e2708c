"""Decoding led by type hints: what fits, what does not, and where."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from raywf.core.codec import DecodeError, decode, encode
from raywf.core.explanation import ParameterRange
from raywf.core.records import Column, Outcome, Snapshot
from raywf.core.settings import SearchSettings, Workflow

OUTCOME = {"id": "a", "time": "2013-01-01T00:00:00Z", "label": "yes"}


def test_instants_are_utc_on_both_sides() -> None:
    """An offset is turned into UTC, and UTC is written with a Z."""
    outcome = decode(Outcome, {**OUTCOME, "time": "2013-01-01T02:00:00+02:00"})
    assert outcome.time == datetime(2013, 1, 1, tzinfo=UTC)
    assert encode(outcome)["time"] == "2013-01-01T00:00:00Z"


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    """JSON and YAML write 30.0 as 30."""
    budget = decode(SearchSettings, {"budget_s": 30}).budget_s
    assert (budget, type(budget)) == (30.0, float)


def test_a_text_that_may_be_one_stays_one() -> None:
    """Though it looks like a number."""
    kept = ParameterRange(family="f", name="n", trials=2, values=(1.0, "1e3"), best=("0E0",))
    assert decode(ParameterRange, encode(kept)) == kept


@pytest.mark.parametrize(
    ("kind", "data", "path"),
    [
        (Column, {"name": "a", "kind": "nummber"}, ("kind",)),
        (Column, {"name": 1, "kind": "number"}, ("name",)),
        (Column, [], ()),
        (Outcome, {**OUTCOME, "value": "much"}, ("value",)),
        (Outcome, {**OUTCOME, "time": "yesterday"}, ("time",)),
        (SearchSettings, {"budget_s": True}, ("budget_s",)),
        (SearchSettings, {"families": ["linear", "tree"]}, ("families", "1")),
        (Workflow, {"name": "w", "task": "binary", "spine": {"path": "p", "label": 3}}, ("spine", "label")),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(kind: Any, data: Any, path: tuple[str, ...]) -> None:
    """The path leads to the key, through sections and lists."""
    with pytest.raises(DecodeError, match=r".") as caught:
        decode(kind, data)
    assert caught.value.path == path


def test_a_pair_needs_both_values() -> None:
    """A tuple of fixed length takes no other length."""
    data = dict.fromkeys(Snapshot.__dataclass_fields__) | {"window": ["2013-01-01"]}
    with pytest.raises(DecodeError, match="expected 2 values, got 1"):
        decode(
            Snapshot,
            {
                **data,
                "id": "a",
                "workflow": "w",
                "uri": "u",
                "rows": 1,
                "columns": [],
                "task": "binary",
                "classes": [],
                "label": "y",
                "has_time": True,
            },
        )
