"""Explanations asked for over HTTP: their form by task and body, their sums, and their bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import Client
from hypothesis import given
from hypothesis import strategies as st

from raywf.outcomes import LogReader
from raywf.serving.explaining import MAX_EXPLAINED, Explanations, may_explain, take_explain
from raywf.testing import SMALL_ROW

ROW = dict(SMALL_ROW)
TASKS = ["binary", "multiclass", "regression"]


def told(answer: dict[str, Any]) -> dict[str, float]:
    """An answer's figures by class, of a regression by nothing."""
    found: dict[str, float] = answer.get("probabilities") or {"": answer["value"]}
    return found


def summed(explanation: dict[str, Any]) -> dict[str, float]:
    """The base and all contributions, by class."""
    parts = [explanation["base"], *explanation["contributions"].values()]
    by_class = [part if isinstance(part, dict) else {"": part} for part in parts]
    return {name: sum(part[name] for part in by_class) for name in by_class[0]}


@pytest.mark.parametrize("task", TASKS)
def test_one_row(clients: dict[str, Any], task: str) -> None:
    """Base and contributions of every column sum to what is answered."""
    client = clients[task]
    plain = client.post("/v1/predict", json={"features": ROW, "id": "a"}).json()["predictions"][0]
    answer = client.post("/v1/predict", json={"features": ROW, "id": "a", "explain": True})
    found = answer.json()["predictions"][0]
    why = found.pop("explanation")
    assert (answer.status_code, answer.headers["x-raywf-model-version"]) == (200, "1")
    assert found == plain
    assert why["methods"] == ["trees"]
    assert set(why["contributions"]) == set(ROW)
    assert summed(why) == pytest.approx(told(found), abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_rows_and_columns_are_explained_alike(clients: dict[str, Any], task: str) -> None:
    """Row by row, in the request's order."""
    rows = [ROW | {"distance": 100.0 + i} for i in range(5)]
    body = {"rows": [{"features": row} for row in rows], "explain": True}
    by_row = clients[task].post("/v1/predict", json=body).json()["predictions"]
    columns = {name: [row[name] for row in rows] for name in ROW}
    answer = clients[task].post("/v1/predict", json={"columns": columns, "explain": True}).json()
    assert answer["columns"]["explanation"] == [one["explanation"] for one in by_row]
    for one in by_row:
        assert summed(one["explanation"]) == pytest.approx(told(one), abs=1e-6)


def test_explained_rows_are_logged(client: Client, tmp_path: Path) -> None:
    """As any others, once."""
    client.post("/v1/predict", json={"rows": [{"features": ROW, "id": i} for i in "ab"], "explain": True})
    columns = {name: [value] for name, value in ROW.items()}
    client.post("/v1/predict", json={"columns": columns, "ids": ["c"], "explain": True})
    assert [e.id for e in LogReader(str(tmp_path / "root"), "w").read()[0]] == ["a", "b", "c"]


def test_false_explains_nothing(client: Client) -> None:
    """It may always be there."""
    found = client.post("/v1/predict", json={"features": ROW, "explain": False}).json()["predictions"][0]
    assert "explanation" not in found


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"features": ROW, "explain": "yes"}, 422, "'explain' must be true or false, got 'yes'"),
        ({"features": ROW, "explain": None}, 422, "'explain' must be true or false"),
        ({"rows": [{"features": ROW, "explain": True}]}, 422, "unknown key"),
        ({"rows": [{"features": ROW}] * (MAX_EXPLAINED + 1), "explain": True}, 413, "at most 100 answers"),
        ({"columns": {n: [v] * 101 for n, v in ROW.items()}, "explain": True}, 413, "at most 100 answers"),
    ],
)
def test_refusals(clients: dict[str, Any], tmp_path: Path, body: Any, status: int, reason: str) -> None:
    """Each says the rule, and nothing is logged."""
    answer = clients["binary"].post("/v1/predict", json=body)
    assert (answer.status_code, reason in answer.json()["error"]) == (status, True)
    assert LogReader(str(tmp_path / "binary" / "root"), "w").read()[0] == ()


def test_explanations_are_json_only(client: Client, tmp_path: Path) -> None:
    """A table has no column for them."""
    body = {"columns": {name: [value] for name, value in ROW.items()}, "explain": True}
    answer = client.post("/v1/predict", json=body, headers={"accept": "text/csv"})
    assert (answer.status_code, "application/json only" in answer.json()["error"]) == (422, True)
    assert LogReader(str(tmp_path / "root"), "w").read()[0] == ()


def test_enough_at_once_are_refused(client: Client, tmp_path: Path) -> None:
    """The next one is told when to come again, and nothing of it is taken."""
    explanations = client.endpoint._predictions._explanations
    with explanations.turn(1), explanations.turn(1):
        answer = client.post("/v1/predict", json={"features": ROW, "explain": True})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert LogReader(str(tmp_path / "root"), "w").read()[0] == ()
    assert client.post("/v1/predict", json={"features": ROW, "explain": True}).status_code == 200


def test_explanations_that_take_too_long_end(client: Client) -> None:
    """Between two rows; the caller is told what to do."""
    seconds = iter(range(0, 1000, 15))
    client.endpoint._predictions._explanations = Explanations(lambda: float(next(seconds)))
    rows = {"rows": [{"features": ROW}] * 30, "explain": True}
    answer = client.post("/v1/predict", json=rows)
    assert (answer.status_code, "ask for fewer rows" in answer.json()["error"]) == (413, True)


def test_explanations_do_not_hold_the_event_loop_up(client: Client) -> None:
    """A body that asks for some, however its key is written, goes to a thread, others are answered here."""
    asking = b'{"explain": true, "features": ' + orjson.dumps(ROW) + b"}"
    for body in (asking, asking.replace(b"explain", rb"\u0065xplain")):
        assert client.endpoint.answer_now("/v1/predict", {}, body) is None
        assert "explanation" in client.post("/v1/predict", content=body).json()["predictions"][0]
    plain = orjson.dumps({"features": ROW})
    assert client.endpoint.answer_now("/v1/predict", {}, plain).status == 200


@given(
    escaped=st.lists(st.booleans(), min_size=7, max_size=7),
    upper=st.booleans(),
    rest=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)
def test_no_spelling_of_the_key_is_overlooked(escaped: list[bool], upper: bool, rest: Any) -> None:
    """JSON may escape any of its letters."""
    letters = [f"\\u{ord(c):04x}" if e else c for c, e in zip("explain", escaped, strict=True)]
    key = "".join(x.upper().replace("\\U", "\\u") if upper and len(x) > 1 else x for x in letters)
    body = f'{{"{key}": true, "rest": {json.dumps(rest)}}}'.encode()
    assert take_explain(orjson.loads(body)) == ({"rest": rest}, True)
    assert may_explain(body)
