"""The messages of raywf.proto: compiled from the file beside them, and the same as JSON."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest

from raywf.serving.messages import (
    ModelReply,
    OutcomesRequest,
    PredictReply,
    PredictRequest,
    model_reply,
    outcomes_body,
    predict_body,
    predict_reply,
)
from raywf.serving.requests import RequestError

AT = datetime(2013, 1, 1, 5, 0, 0, 250, tzinfo=UTC)


def test_descriptors_are_those_of_the_file(tmp_path: Path) -> None:
    """What is published and what is served are one."""
    protoc = pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    folder = files("raywf.serving")
    include = files("grpc_tools").joinpath("_proto")
    words = ["protoc", f"-I{folder}", f"-I{include}", "--include_imports"]
    with redirect_stderr(io.StringIO()) as said:
        code = protoc.main([*words, f"--descriptor_set_out={tmp_path / 'made'}", f"{folder}/raywf.proto"])
    assert code == 0, said.getvalue()
    assert (tmp_path / "made").read_bytes() == folder.joinpath("raywf.binpb").read_bytes()


def a_row(**features: Any) -> bytes:
    """Return a request of one row as it is on the wire."""
    request = PredictRequest()
    row = request.rows.add(id="a")
    row.time.FromDatetime(AT)
    for name, value in features.items():
        row.features[name].CopyFrom(row.features[name].__class__(**value))
    return bytes(request.SerializeToString())


def test_each_kind_of_value_is_json() -> None:
    """A number, a text, a flag, an instant, and one that is missing."""
    given = {"n": {"number": 1.5}, "t": {"text": "x"}, "f": {"flag": False}, "m": {"missing": {}}}
    body = orjson.loads(predict_body(a_row(**given, w={"time": {"seconds": 1}}), 10))
    features = {"n": 1.5, "t": "x", "f": False, "m": None, "w": "1970-01-01T00:00:01Z"}
    assert body == {"rows": [{"features": features, "id": "a", "time": "2013-01-01T05:00:00.000250Z"}]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "has no value; give 'missing'"),
        ({"number": float("nan")}, "must be finite, got nan"),
        ({"time": {"seconds": 10**15}}, "must be an instant"),
    ],
)
def test_a_value_that_json_cannot_hold(value: dict[str, Any], reason: str) -> None:
    """It is refused with its row and field, and not taken as missing."""
    with pytest.raises(RequestError) as caught:
        predict_body(a_row(x=value), 10)
    assert caught.value.status == 422
    assert f"row 0, field 'x': {reason}" in caught.value.reason


@pytest.mark.parametrize(("data", "status"), [(b"\xff\xff", 400), (b"\x0a\x00" * 11, 413)])
def test_bytes_that_are_no_request(data: bytes, status: int) -> None:
    """Neither what is no message nor one of too many rows is read further."""
    with pytest.raises(RequestError) as caught:
        predict_body(data, 10)
    assert caught.value.status == status


def test_outcomes_are_json() -> None:
    """Times and values where they are set, even if they are 0."""
    request = OutcomesRequest()
    request.outcomes.add(id="a", label={"text": "late"}, value=0.0)
    request.outcomes.add(id="b", label={"number": 2.0}).time.FromDatetime(AT)
    request.outcomes.add(id="c")
    first = {"id": "a", "label": "late", "value": 0.0}
    second = {"id": "b", "label": 2.0, "time": "2013-01-01T05:00:00.000250Z"}
    body = bytes(request.SerializeToString())
    assert orjson.loads(outcomes_body(body, 10)) == {"outcomes": [first, second, {"id": "c"}]}


def test_answers_are_messages() -> None:
    """Of a classification and of a regression; which of the two can be told."""
    share = {"no": 0.25, "late": 0.75}
    answers = [{"id": "a", "prediction": "late", "probabilities": share}, {"id": "b", "value": 0.0}]
    body = orjson.dumps({"model_version": "3", "predictions": answers})
    reply = PredictReply.FromString(predict_reply(body))
    one, two = reply.predictions
    assert (reply.model_version, one.prediction, dict(one.probabilities)) == ("3", "late", share)
    assert [one.HasField(name) for name in ("prediction", "value")] == [True, False]
    assert [two.HasField(name) for name in ("prediction", "value")] == [False, True]


def test_a_fact_that_the_message_lacks_is_left_out() -> None:
    """The endpoint may say more of its model than an older message holds."""
    body = orjson.dumps({"version": "3", "columns": [{"name": "x", "kind": "number"}], "new": {"a": 1}})
    reply = ModelReply.FromString(model_reply(body))
    assert (reply.version, reply.columns[0].kind) == ("3", "number")
