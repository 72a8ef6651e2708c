"""The endpoint in this process: answers, refusals and what is in the log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from raywf.core.records import Outcome, Prediction
from raywf.core.service import Service, time_quantile
from raywf.outcomes import LogReader, join
from raywf.serving.predict import Asked
from raywf.serving.tally import write_tallies
from raywf.testing import SMALL_ROW

ROW = dict(SMALL_ROW)


def log(tmp_path: Path) -> tuple[Prediction | Outcome, ...]:
    return LogReader(str(tmp_path / "root"), "w").read()[0]


def test_one_row(client: Any, tmp_path: Path) -> None:
    """Header, answer and log agree on version, id and figures."""
    answer = client.post("/v1/predict", json={"features": ROW, "id": "a", "time": "2013-05-01T00:00:00Z"})
    body = answer.json()
    assert (answer.status_code, answer.headers["x-raywf-model-version"]) == (200, "1")
    assert body["model_version"] == "1"
    found = body["predictions"][0]
    (logged,) = log(tmp_path)
    assert isinstance(logged, Prediction)
    assert (logged.id, logged.version, logged.time.isoformat()) == ("a", "1", "2013-05-01T00:00:00+00:00")
    assert logged.scores == (found["probabilities"]["late"],)
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert logged.features == ROW
    assert found["prediction"] == max(found["probabilities"], key=found["probabilities"].get)


def test_many_rows_equal_one_by_one(client: Any) -> None:
    """A row's answer does not depend on its company."""
    rows = [ROW | {"distance": d} for d in range(100, 2000, 100)]
    many = client.post("/v1/predict", json={"rows": [{"features": r} for r in rows]}).json()["predictions"]
    single = [client.post("/v1/predict", json={"features": r}).json()["predictions"][0] for r in rows]
    assert [p["probabilities"] for p in many] == [p["probabilities"] for p in single]
    assert len({p["id"] for p in many + single}) == 2 * len(rows)


def test_rows_unlike_training_are_flagged(client: Any) -> None:
    """The columns are named, of a row that training could have had there is no word."""
    odd = ROW | {"distance": 9000.0, "carrier": "XX"}
    blank = ROW | {"carrier": None, "delay": None}
    bodies = [{"features": row} for row in (ROW, odd, blank)]
    found = client.post("/v1/predict", json={"rows": bodies}).json()["predictions"]
    assert [one.get("unlike") for one in found] == [None, ["distance", "carrier"], ["carrier"]]


def test_multiclass_and_regression(clients: dict[str, Any]) -> None:
    """Multiclass names every class, regression gives a value."""
    found = clients["multiclass"].post("/v1/predict", json={"features": ROW}).json()["predictions"][0]
    assert set(found["probabilities"]) == {"early", "late", "on time"}
    found = clients["regression"].post("/v1/predict", json={"features": ROW}).json()["predictions"][0]
    assert isinstance(found["value"], float)


def test_one_bad_row_refuses_all(client: Any, tmp_path: Path) -> None:
    """All bad rows are named, nothing is answered, nothing is logged."""
    rows = [
        {"features": ROW},
        {"features": ROW | {"distance": "far"}},
        {"features": ROW, "id": 7},
        {"features": {k: v for k, v in ROW.items() if k != "carrier"}},
    ]
    answer = client.post("/v1/predict", json={"rows": rows})
    body = answer.json()
    assert answer.status_code == 422
    assert [(p["row"], p["field"]) for p in body["problems"]] == [(1, "distance"), (2, "id"), (3, "carrier")]
    assert (body["refused_rows"], body["rows"]) == (3, 4)
    assert log(tmp_path) == ()


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"features": NaN}', 400, "not JSON"),
        (b"[" * 20_000, 400, "not JSON"),
        (b'"x"', 422, "must be a JSON object"),
        (b"{}", 422, "field 'features': missing"),
        (b'{"rows": []}', 422, "at least one"),
        (b'{"rows": 3}', 422, "must be a list"),
        (b'{"rows": [{}], "id": "a"}', 422, "nothing else is allowed"),
        (b'{"rows": [' + b"{}," * 100 + b"{}]}", 413, "at most 100"),
        (b'{"feature": {}}', 422, "did you mean 'features'?"),
        (b" " * 60_000, 413, "longer than 50000 bytes"),
        (b'{"features": {}, "time": "noon"}', 422, "ISO 8601"),
        (b'{"features": {}, "id": ""}', 422, "1 to 200 characters"),
    ],
)
def test_refusals(client: Any, content: bytes, status: int, reason: str) -> None:
    """Each fault has its status and says the rule."""
    answer = client.post("/v1/predict", content=content)
    assert answer.status_code == status
    assert reason in answer.json()["error"]


def test_wrong_paths_and_methods(client: Any) -> None:
    """404 and 405 name what there is."""
    assert client.get("/v1/predictt").json()["paths"]
    answer = client.get("/v1/predict")
    assert (answer.status_code, answer.json()["allowed"]) == (405, ["POST"])
    assert client.request("DELETE", "/v1/model").status_code == 405


def test_large_request_goes_through_a_thread(client: Any) -> None:
    """A body over the inline limit gives the same answers."""
    rows = [{"features": ROW, "id": f"{i:0100}"} for i in range(80)]
    answer = client.post("/v1/predict", json={"rows": rows})
    assert len(answer.content) > 10_000
    assert len(answer.json()["predictions"]) == 80


def test_outcomes(client: Any, tmp_path: Path) -> None:
    """Late, repeated, out of order and unknown ids are taken; they join to the prediction."""
    client.post("/v1/predict", json={"features": ROW, "id": "a"})
    many = {
        "outcomes": [
            {"id": "a", "label": "no", "time": "2013-05-02T00:00:00Z", "value": 3},
            {"id": "a", "label": "late", "time": "2013-05-01T00:00:00Z"},
            {"id": "stranger", "label": "no"},
        ]
    }
    assert client.post("/v1/outcomes", json={"id": "a", "label": "no"}).status_code == 202
    answer = client.post("/v1/outcomes", json=many)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 3})
    ((_, outcome),) = join(log(tmp_path))
    assert outcome is not None
    assert outcome.label == "no"


@pytest.mark.parametrize(
    ("outcome", "field"),
    [
        ({"id": "a", "label": "maybe"}, "label"),
        ({"id": "a", "label": None}, "label"),
        ({"id": "a", "label": {}}, "label"),
        ({"id": "a", "label": True}, "label"),
        ({"id": "a"}, "label"),
        ({"label": "no"}, "id"),
        ({"id": "a", "label": "no", "value": "x"}, "value"),
        ({"id": "a", "label": "no", "time": 3}, "time"),
        ({"id": "a", "label": "no", "extra": 3}, "extra"),
    ],
)
def test_bad_outcome_names_its_field(client: Any, tmp_path: Path, outcome: Any, field: str) -> None:
    """A label has to be a class; nothing of a bad request is logged."""
    answer = client.post("/v1/outcomes", json={"outcomes": [{"id": "b", "label": "no"}, outcome]})
    assert answer.status_code == 422
    assert [(p["row"], p["field"]) for p in answer.json()["problems"]] == [(1, field)]
    assert log(tmp_path) == ()


def test_regression_label_is_a_number(clients: dict[str, Any]) -> None:
    """A regression's outcome has a number."""
    assert clients["regression"].post("/v1/outcomes", json={"id": "a", "label": 3}).status_code == 202
    assert clients["regression"].post("/v1/outcomes", json={"id": "a", "label": "3"}).status_code == 422


def test_model_and_health(client: Any) -> None:
    """The model's facts are there, and no refusal yet."""
    facts = client.get("/v1/model").json()
    assert (facts["version"], facts["task"], facts["classes"]) == ("1", "binary", ["no", "late"])
    assert facts["last_refused"] is None
    assert client.get("/healthz").json() == {"status": "ok", "model_version": "1"}


def test_full_disk_is_503_and_not_acknowledged(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be logged is not answered."""

    def fail(records: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client.endpoint._log, "append", fail)
    answer = client.post("/v1/predict", json={"features": ROW})
    assert answer.status_code == 503
    assert "No space left" in answer.json()["error"]


def test_requests_are_tallied(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the window of their rows: answered ones with their times, refused ones and failed ones."""
    day = "2013-05-01T0{}:00:00Z"
    assert client.post("/v1/predict", json={"features": ROW, "time": day.format(5)}).status_code == 200
    table = {"columns": {name: [value] for name, value in ROW.items()}, "times": [day.format(7)]}
    assert client.post("/v1/predict", json=table).status_code == 200
    assert client.post("/v1/predict", json={"features": ROW | {"distance": "far"}}).status_code == 422
    assert client.post("/v1/predict", content=b"{").status_code == 400
    monkeypatch.setattr(
        client.endpoint._slots.active.predictor, "predict_rows", lambda rows: np.full((len(rows), 1), np.nan)
    )
    assert client.post("/v1/predict", json={"features": ROW}).status_code == 422
    write_tallies(client.endpoint._tallies, client.endpoint._log)
    (told,) = (entry for entry in log(tmp_path) if isinstance(entry, Service))
    assert (told.version, told.time.isoformat()) == ("1", "2013-05-01T00:00:00+00:00")
    assert (told.answered, told.refused, told.failed) == (2, 2, 1)
    assert sum(told.times.values()) == 2
    assert 0 < time_quantile(told.times, 1.0) < 5
    assert told.cpu_s > 0


def validator(document: dict[str, Any], name: str) -> Draft202012Validator:
    resource = Resource.from_contents(document | {"$schema": "https://json-schema.org/draft/2020-12/schema"})
    registry = Registry().with_resource("doc", resource)
    return Draft202012Validator({"$ref": f"doc#/components/schemas/{name}"}, registry=registry)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_openapi_describes_what_is_served(clients: dict[str, Any], task: str) -> None:
    """Every schema is valid, and examples and real answers fit them."""
    client = clients[task]
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, request in (("/v1/predict", "PredictRequest"), ("/v1/outcomes", "OutcomesRequest")):
        operation = document["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        validator(document, request).validate(example)
        answer = client.post(path, json=example)
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        validator(document, schema["$ref"].rsplit("/")[-1]).validate(answer.json())
    for path, name in (("/v1/model", "Model"), ("/healthz", "Health")):
        validator(document, name).validate(client.get(path).json())
    validator(document, "Error").validate(client.post("/v1/predict", json={"features": {}}).json())


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from(
    ["rows", "features", "id", "time", "outcomes", "label", "value", "distance", "carrier", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON.map(orjson.dumps) | st.binary(max_size=30), path=st.sampled_from(["predict", "outcomes"]))
def test_no_body_is_a_server_error(client: Any, body: bytes, path: str) -> None:
    """Whatever the body, the answer is a 2xx or a 4xx with a reason."""
    answer = client.post(f"/v1/{path}", content=body)
    assert 200 <= answer.status_code < 500
    assert answer.status_code < 300 or json.loads(answer.content)["error"]


def test_one_row_is_fast(client: Any) -> None:
    """The work of one row, without HTTP, is well below a millisecond."""
    endpoint, body = client.endpoint, orjson.dumps({"features": ROW})
    model = endpoint._slots.active
    endpoint._predictions.answer(model, Asked(body))
    start = time.perf_counter()
    for _ in range(100):
        endpoint._predictions.answer(model, Asked(body))
    assert (time.perf_counter() - start) / 100 < 0.005
