"""The messages of ``raywf.proto`` and the JSON of the endpoint, from one to the other.

The classes are made when this is imported, from the descriptors beside it, so that they fit whatever version
of protobuf is installed; generated code fits only the version that it was generated for, or a later one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from raywf.core.clock import format_time
from raywf.serving.requests import RequestError

SERVICE = "raywf.v1.Predictor"
_POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    files("raywf.serving").joinpath("raywf.binpb").read_bytes()
).file:
    _POOL.Add(_file)


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"raywf.v1.{name}"))


PredictRequest, PredictReply = _message("PredictRequest"), _message("PredictReply")
OutcomesRequest, OutcomesReply = _message("OutcomesRequest"), _message("OutcomesReply")
ModelRequest, ModelReply = _message("ModelRequest"), _message("ModelReply")


def predict_body(data: bytes, max_rows: int) -> bytes:
    """Return the JSON body that says what a `PredictRequest` says.

    Raises:
        RequestError: 400 if it is none, 413 for too many rows, 422 for a value that JSON cannot hold.
    """
    rows = _read(PredictRequest, data).rows
    _require_few("rows", len(rows), max_rows)
    return orjson.dumps({"rows": [_row(row, i) for i, row in enumerate(rows)]})


def outcomes_body(data: bytes, max_rows: int) -> bytes:
    """Return the JSON body that says what an `OutcomesRequest` says.

    Raises:
        RequestError: as `predict_body`.
    """
    outcomes = _read(OutcomesRequest, data).outcomes
    _require_few("outcomes", len(outcomes), max_rows)
    return orjson.dumps({"outcomes": [_outcome(outcome, i) for i, outcome in enumerate(outcomes)]})


def model_body(data: bytes, _: int) -> bytes:
    """Return the empty body of a `ModelRequest`.

    Raises:
        RequestError: 400 if it is none.
    """
    _read(ModelRequest, data)
    return b""


def predict_reply(body: bytes) -> bytes:
    """Return the endpoint's answers as a `PredictReply`."""
    answer = orjson.loads(body)
    reply = PredictReply(model_version=answer["model_version"])
    for one in answer["predictions"]:
        reply.predictions.add(**one)
    return bytes(reply.SerializeToString())


def outcomes_reply(body: bytes) -> bytes:
    """Return the endpoint's answer as an `OutcomesReply`."""
    return bytes(OutcomesReply(**orjson.loads(body)).SerializeToString())


def model_reply(body: bytes) -> bytes:
    """Return what the endpoint says of its model as a `ModelReply`."""
    known = {field.name for field in ModelReply.DESCRIPTOR.fields}
    facts = {name: value for name, value in orjson.loads(body).items() if name in known}
    return bytes(ModelReply(**facts).SerializeToString())


def _read(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as err:
        raise RequestError(400, f"the message is no {kind.DESCRIPTOR.full_name}: {err}") from err


def _require_few(key: str, count: int, most: int) -> None:
    if count > most:
        raise RequestError(413, f"{key!r} holds {count} objects, at most {most} are allowed")


def _row(row: Any, at: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "features": {name: _value(value, at, name) for name, value in row.features.items()}
    }
    return found | _head(row, at)


def _outcome(outcome: Any, at: int) -> dict[str, Any]:
    found = _head(outcome, at)
    if outcome.HasField("label"):
        found["label"] = _value(outcome.label, at, "label")
    if outcome.HasField("value"):
        found["value"] = _finite(outcome.value, at, "value")
    return found


def _head(item: Any, at: int) -> dict[str, Any]:
    found = {"id": item.id} if item.id else {}
    return found | ({"time": _instant(item.time, at, "time")} if item.HasField("time") else {})


def _value(value: Any, at: int, name: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None:
        raise _wrong(at, name, "has no value; give 'missing' for one that is not known")
    if kind == "missing":
        return None
    if kind == "number":
        return _finite(value.number, at, name)
    return _instant(value.time, at, name) if kind == "time" else getattr(value, kind)


def _finite(number: float, at: int, name: str) -> float:
    if not math.isfinite(number):
        raise _wrong(at, name, f"must be finite, got {number!r}")
    return number


def _instant(stamp: Any, at: int, name: str) -> str:
    try:
        when: datetime = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as err:
        raise _wrong(at, name, f"must be an instant: {err}") from None
    return format_time(when)


def _wrong(row: int, field: str, reason: str) -> RequestError:
    problem: Mapping[str, Any] = {"row": row, "field": field[:100], "reason": reason}
    return RequestError(422, f"row {row}, field {field[:100]!r}: {reason}", {"problems": [problem]})
