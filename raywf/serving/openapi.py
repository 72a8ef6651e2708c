"""The OpenAPI 3.1 document of the endpoint, built from the served model's input columns."""

from __future__ import annotations

from typing import Any

from raywf.core.records import Bundle, Column
from raywf.serving.explaining import MAX_EXPLAINED
from raywf.serving.requests import MAX_ID, MAX_LABEL, MAX_REASON
from raywf.serving.schema import MAX_NUMBER

Schema = dict[str, Any]

_COLUMN: dict[str, Schema] = {
    "number": {"type": ["number", "null"], "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER},
    "category": {"type": ["string", "boolean", "integer", "null"]},
    "time": {"type": ["string", "null"], "format": "date-time"},
}
_EXAMPLE: dict[str, Any] = {"number": 1.5, "category": "a", "time": "2013-01-01T05:00:00Z"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_ID: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
_VERSION: Schema = {"type": "string", "description": "During a rollout: the version that answered the row"}
_REASON: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_REASON}
_ONCE = "Whatever is asked for under the same id is one request"
_ASKED: Schema = {
    "type": "boolean",
    "description": f"Explain each answer; of at most {MAX_EXPLAINED} rows, which takes longer",
}
_EXPLAIN = (
    "With explain (not of CSV or Arrow) each answer has an explanation: base and contributions sum to the "
    "probabilities or the value. The base is what the model answers where nothing is known, a contribution "
    "what knowing a column adds. Shares of a member's raw answer are exact for trees (TreeSHAP, along the "
    "fit's rows) and linear members (beside rows with the fit's means), and sampled Shapley values against "
    "rows of the fit, of a fixed seed, for others; the Aumann-Shapley rule takes them through links, "
    "ensemble and calibration. They say why the model answered so, not why the world is so."
)
_UNLIKE = (
    "Columns whose value is unlike anything in training: a number beyond its range, a category that it did "
    "not hold, none where it always had one. The answer is a guess then, whatever probability it states."
)
_TABLES = {
    "text/csv": "A header of the features and, if wanted, __id and __time; then a row a line",
    "application/vnd.apache.arrow.stream": "An Arrow IPC stream of the same columns",
}
_REFUSALS = {
    "400": "The body is not what its content type says",
    "408": "The body did not come in time",
    "413": "The body or the number of rows is over the limit",
    "422": "A row does not fit the schema; nothing was taken",
    "503": "The log cannot be written, or too many requests wait",
}

_KEY_REFUSALS = {
    "401": "No API key, or one that is unknown, removed or expired",
    "403": "The key is not for this",
    "429": "More requests a second than the key allows",
}


def openapi(
    workflow: str, version: str, bundle: Bundle, *, max_rows: int, keys: bool = False
) -> dict[str, Any]:
    """Return the document; `version` is the model's, `keys` whether calls need one."""
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": f"raywf: {workflow}",
            "version": version,
            "description": "Predictions of the workflow's champion model, and what became of them.",
        },
        "paths": _paths(bundle),
        "components": {"schemas": _schemas(bundle, max_rows)},
    }
    return _with_keys(document) if keys else document


def _with_keys(document: dict[str, Any]) -> dict[str, Any]:
    """Say of each path but the health check that it needs a key, and how a call without is refused."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values() if path != "/healthz" else ():
            operation["security"] = [{"key": []}]
            for status, text in _KEY_REFUSALS.items():
                operation["responses"][status] = _refused(text)
    return document


def _paths(bundle: Bundle) -> dict[str, Any]:
    predict = _post(
        "predict",
        "Predict one row or many",
        request="PredictRequest",
        answer=("200", "PredictAnswer"),
        example={"features": {c.name: _EXAMPLE[c.kind] for c in bundle.columns}, "id": "row-1"},
    )
    for kind, text in _TABLES.items():
        schema = {"type": "string", "format": "binary", "description": text}
        predict["requestBody"]["content"][kind] = {"schema": schema}
        predict["responses"]["200"]["content"][kind] = {"schema": schema}
    predict["description"] = _EXPLAIN
    predict["responses"]["200"]["headers"] = {
        "x-raywf-model-version": {"schema": {"type": "string"}, "description": "The version that answered"}
    }
    outcomes = _post(
        "outcomes",
        "Report what became of predictions; late, repeated and out of order is fine",
        request="OutcomesRequest",
        answer=("202", "Accepted"),
        example={"id": "row-1", "label": bundle.classes[-1] if bundle.classes else 12.5},
    )
    retrain = _post(
        "retrain",
        "Ask for a retraining; needs a key for admin",
        request="RetrainRequest",
        answer=("202", "Asked"),
        example={"reason": "prices were raised today", "id": "prices-2024-07-01"},
    )
    retrain["requestBody"]["required"] = False
    act = _post(
        "act",
        "Pause, resume or abort the rollout under way; needs a key for admin",
        request="RolloutAct",
        answer=("200", "RolloutStep"),
        example={"act": "pause"},
    )
    act["responses"]["409"] = _refused("No rollout is under way, or it moved on meanwhile")
    for operation in (retrain, act):
        operation["responses"]["403"] = _refused(_KEY_REFUSALS["403"])
    return {
        "/v1/predict": {"post": predict},
        "/v1/predictions/{id}": {"get": _past()},
        "/v1/outcomes": {"post": outcomes},
        "/v1/retrain": {"post": retrain},
        "/v1/rollouts": {"get": _get("rollouts", "The newest rollout's steps", "Rollouts"), "post": act},
        "/v1/model": {"get": _get("model", "The model that serves", "Model")},
        "/healthz": {"get": _get("healthz", "Whether the endpoint answers", "Health")},
        "/openapi.json": {"get": _get("openapi", "This document", "Document")},
    }


def _post(name: str, summary: str, *, request: str, answer: tuple[str, str], example: Any) -> dict[str, Any]:
    body = _json(request)
    body["application/json"]["example"] = example
    responses: dict[str, Any] = {answer[0]: {"description": "Taken", "content": _json(answer[1])}}
    for status, text in _REFUSALS.items():
        responses[status] = _refused(text)
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": body},
        "responses": responses,
    }


def _get(name: str, summary: str, answer: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": _json(answer)}},
    }


def _past() -> dict[str, Any]:
    operation = _get("prediction", "A prediction of any time with what became of it", "PastPrediction")
    operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": _ID}]
    operation["responses"]["404"] = _refused("The log holds no prediction with this id")
    operation["responses"]["503"] = _refused("The log cannot be read now, or is being read; ask again")
    return operation


def _refused(text: str) -> dict[str, Any]:
    return {"description": text, "content": _json("Error")}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _object(properties: dict[str, Schema], *required: str, closed: bool = False) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "required": list(required)}
    return schema | {"additionalProperties": False} if closed else schema


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_of(*names: str) -> Schema:
    return {"oneOf": [_ref(name) for name in names]}


def _list(item: Schema, max_rows: int) -> Schema:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": max_rows}


def _requests(columns: tuple[Column, ...], max_rows: int) -> dict[str, Schema]:
    """Return the forms of a predict request: one row, many, or many by column. Each has a name of its own.

    A generator of clients makes a class of each, and names those without by their place, which may clash.
    """
    row = {"features": _ref("Features"), "id": _ID, "time": _TIME}
    lists = {c.name: _list(_COLUMN[c.kind], max_rows) for c in columns}
    by_column = {
        "columns": _ref("FeatureColumns"),
        "ids": {"type": ["array", "null"], "items": _or_null(_ID)},
        "times": {"type": ["array", "null"], "items": _or_null(_TIME)},
        "explain": _ASKED,
    }
    many = {"rows": _list(_ref("Row"), max_rows), "explain": _ASKED}
    return {
        "Row": _object(row, "features", closed=True),
        "OneRow": _object(row | {"explain": _ASKED}, "features", closed=True),
        "ManyRows": _object(many, "rows", closed=True),
        "FeatureColumns": _object(lists, *lists, closed=True),
        "RowsByColumn": _object(by_column, "columns", closed=True),
        "PredictRequest": _one_of("OneRow", "ManyRows", "RowsByColumn"),
    }


def _features(columns: tuple[Column, ...]) -> Schema:
    return _object({c.name: _COLUMN[c.kind] for c in columns}, *(c.name for c in columns), closed=True)


def _schemas(bundle: Bundle, max_rows: int) -> dict[str, Schema]:
    number: Schema = {"type": "number"}
    text: Schema = {"type": "string"}
    label = _label(bundle)
    outcome = {"id": _ID, "label": label, "time": _TIME, "value": {"type": ["number", "null"]}}
    return {
        "Features": _features(bundle.columns),
        **_requests(bundle.columns, max_rows),
        **_predictions(bundle),
        **_past_predictions(),
        "PredictAnswer": _object(
            {
                "model_version": text,
                "predictions": {"type": "array", "items": _ref("Prediction")},
                "columns": {
                    "type": "object",
                    "description": "Of a request by columns: the answers by column",
                },
            },
            "model_version",
        ),
        "Outcome": _object(outcome, "id", "label", closed=True),
        "ManyOutcomes": _object({"outcomes": _list(_ref("Outcome"), max_rows)}, "outcomes", closed=True),
        "OutcomesRequest": _one_of("Outcome", "ManyOutcomes"),
        "Accepted": _object({"accepted": {"type": "integer", "minimum": 1}}, "accepted"),
        "RetrainRequest": _object({"reason": _REASON, "id": _ID | {"description": _ONCE}}, closed=True),
        "RolloutAct": _object({"act": {"enum": ["pause", "resume", "abort"]}}, "act", closed=True),
        "RolloutStep": _object(
            {"rollout": text, "number": {"type": "integer"}, "stage": text, "share": number},
            "rollout",
            "number",
            "stage",
            "share",
        ),
        "Rollouts": _object({"steps": {"type": "array", "items": _ref("RolloutStep")}}, "steps"),
        "Asked": _object({"request": text}, "request"),
        "Model": _object({"version": text, "digest": text, "task": text}, "version", "digest", "task"),
        "Health": _object({"status": {"const": "ok"}, "model_version": text}, "status", "model_version"),
        "Document": {"type": "object"},
        "Error": _object({"error": text, "problems": {"type": "array", "items": _ref("Problem")}}, "error"),
        "Problem": _object({"row": {"type": "integer"}, "field": text, "reason": text}, "field", "reason"),
    }


def _predictions(bundle: Bundle) -> dict[str, Schema]:
    """Return what a prediction is, and why it is so: of a regression numbers, else numbers by class."""
    number: Schema = {"type": "number"}
    unlike = {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": _UNLIKE}
    named = {"id": _ID, "model_version": _VERSION, "explanation": _ref("Explanation"), "unlike": unlike}
    if bundle.task == "regression":
        return {
            "Prediction": _object(named | {"value": number}, "id", "value"),
            **_explanation(bundle, number),
        }
    share = number | {"minimum": 0, "maximum": 1}
    told = {"prediction": {"enum": list(bundle.classes)}, "probabilities": _ref("Probabilities")}
    return {
        "Prediction": _object(named | told, "id", *told),
        "Probabilities": _object(dict.fromkeys(bundle.classes, share), *bundle.classes, closed=True),
        "ByClass": _object(dict.fromkeys(bundle.classes, number), *bundle.classes, closed=True),
        **_explanation(bundle, _ref("ByClass")),
    }


def _explanation(bundle: Bundle, told: Schema) -> dict[str, Schema]:
    names = [column.name for column in bundle.columns]
    methods = {"type": "array", "items": {"enum": ["trees", "linear", "sampled"]}, "minItems": 1}
    parts = {"methods": methods, "base": told, "contributions": _ref("Contributions")}
    return {
        "Contributions": _object(dict.fromkeys(names, told), *names, closed=True),
        "Explanation": _object(parts, *parts) | {"description": _EXPLAIN},
    }


def _past_predictions() -> dict[str, Schema]:
    """Describe an answer of any version: one of old may have had other features and classes."""
    answer: dict[str, Schema] = {
        "model_version": {"type": "string"},
        "scores": {"type": "array", "items": {"type": "number"}},
        "prediction": {"type": "string"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "value": {"type": "number"},
    }
    outcome = {
        "label": {"type": ["string", "number"]},
        "time": _TIME,
        "value": {"type": ["number", "null"]},
    }
    either = {"oneOf": [{"type": "null"}, _ref("PastOutcome")]}
    shadows = {"type": "array", "items": _ref("ShadowAnswer")}
    made: dict[str, Schema] = {"id": _ID, "time": _TIME, "features": {"type": "object"}, **answer}
    known: dict[str, Schema] = {
        "outcome": either | {"description": "The latest, null while none is known"},
        "shadows": shadows,
    }
    past = _object(made | known, "id", "time", "features", "model_version", "scores", *known)
    return {
        "PastPrediction": past,
        "PastOutcome": _object(outcome, "label", "time", "value"),
        "ShadowAnswer": _object(answer, "model_version", "scores"),
    }


def _label(bundle: Bundle) -> Schema:
    if bundle.task == "regression":
        return {"type": "number"}
    if bundle.task == "binary":
        return {"enum": _label_values(bundle.classes)}
    return {
        "type": ["string", "boolean", "integer"],
        "minLength": 1,
        "maxLength": MAX_LABEL,
    }  # one may be new


def _or_null(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _label_values(classes: tuple[str, ...]) -> list[Any]:
    """Return the classes with the JSON values that are read as them."""
    values: list[Any] = list(classes)
    values += [text == "true" for text in classes if text in {"true", "false"}]
    values += [int(text) for text in classes if text.removeprefix("-").isascii() and _is_whole(text)]
    return values


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdecimal() and str(int(text)) == text
