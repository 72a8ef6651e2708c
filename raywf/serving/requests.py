"""Bodies to records and back: what a request may hold, and every way in which it is refused.

Pure: no Ray, no log. A `RequestError` carries the HTTP status and the JSON body of the refusal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from raywf.core.category import category_text
from raywf.core.clock import Clock, parse_time
from raywf.core.errors import RaywfError, did_you_mean
from raywf.core.records import Bundle, Outcome
from raywf.serving.schema import MAX_PROBLEMS, BadRowsError, Problem, RowSchema, brief

MAX_ID = 200
MAX_REASON = 500  # characters
MAX_LABEL = 500
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_BULK = 256
_FRESH: list[str] = []  # ids that nobody has yet
_ROW_KEYS = frozenset({"features", "id", "time"})
_OUTCOME_KEYS = frozenset({"id", "label", "time", "value"})


class RequestError(RaywfError):
    """A request is refused: the HTTP status, the reason, further facts for the body, and headers."""

    def __init__(
        self,
        status: int,
        reason: str,
        facts: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, reason, facts, headers)
        self.status, self.reason, self.facts, self.headers = status, reason, facts or {}, headers

    def body(self) -> bytes:
        """Return the JSON body."""
        return orjson.dumps({"error": self.reason, **self.facts})


class NoAnswerError(RequestError):
    """Rows are well formed, and the model has no finite answer to them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row to answer; features are checked."""

    id: str
    time: datetime
    features: dict[str, Any]


def read_json(body: bytes) -> Any:
    """Parse a body.

    Raises:
        RequestError: 400, if it is not UTF-8 JSON (NaN and Infinity are not JSON) or nested too deeply.

    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise RequestError(400, f"the body is not JSON: {err}") from err


def read_rows(data: Any, schema: RowSchema, *, max_rows: int, clock: Clock) -> list[Row]:
    """Return the rows of a predict body's JSON: one object, or ``{"rows": [...]}``.

    Raises:
        RequestError: 413 for too many rows, 422 for one that does not fit; one bad row refuses all.

    """
    items = _items(data, "rows", max_rows)
    heads: list[tuple[str, datetime]] = []
    problems: list[Problem] = []
    bad: set[int] = set()
    now = clock.now()
    for i, item in enumerate(items):
        try:
            _check_keys(item, _ROW_KEYS, "features")
            heads.append((_id(item, default=True), _time(item, now)))
        except _FieldError as err:
            problems.append(Problem(i, err.field, err.reason))
            bad.add(i)
    try:
        features = schema.read_rows([r.get("features", {}) if isinstance(r, dict) else {} for r in items])
    except BadRowsError as err:
        known = {problem.row for problem in problems}
        problems.extend(p for p in err.problems if p.row not in known)
        raise _refusal(problems, len(err.refused | bad), len(items)) from err
    if problems:
        raise _refusal(problems, len(bad), len(items))
    return [Row(*head, values) for head, values in zip(heads, features, strict=True)]


def read_outcomes(body: bytes, bundle: Bundle, *, max_rows: int, clock: Clock) -> list[Outcome]:
    """Return the outcomes of a body: one object, or ``{"outcomes": [...]}``.

    Raises:
        RequestError: as `read_rows`, and 400 for a body that is not JSON.

    """
    items = _items(read_json(body), "outcomes", max_rows)
    now = clock.now()
    outcomes: list[Outcome] = []
    problems: list[Problem] = []
    for i, item in enumerate(items):
        try:
            outcomes.append(_outcome(item, bundle, now))
        except _FieldError as err:
            problems.append(Problem(i, err.field, err.reason))
    if problems:
        raise _refusal(problems, len(problems), len(items))
    return outcomes


def answers(rows: Sequence[Row], scores: Sequence[Sequence[float]], bundle: Bundle) -> list[dict[str, Any]]:
    """Return one answer a row; `scores` has shape ``(n_rows, k)``."""
    if bundle.task == "regression":
        return [{"id": row.id, "value": values[0]} for row, values in zip(rows, scores, strict=True)]
    found = []
    for row, values in zip(rows, scores, strict=True):
        shares: Sequence[float] = (1 - values[0], values[0]) if bundle.task == "binary" else values
        best = max(range(len(shares)), key=shares.__getitem__)
        if bundle.task == "binary":
            best = int(values[0] >= bundle.threshold)
        probabilities = dict(zip(bundle.classes, shares, strict=True))
        found.append({"id": row.id, "prediction": bundle.classes[best], "probabilities": probabilities})
    return found


def refused_scores(rows: Sequence[Row], scores: Sequence[Sequence[float]]) -> NoAnswerError | None:
    """Return the refusal of rows that the model has no finite answer for, if there are any."""
    bad = [i for i, values in enumerate(scores) if not all(abs(v) < float("inf") for v in values)]
    if not bad:
        return None
    problems = [Problem(i, "features", "the model has no finite answer for these values") for i in bad]
    return NoAnswerError(*_refusal(problems, len(bad), len(rows)).args)


class _FieldError(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def _items(data: Any, key: str, max_rows: int) -> list[Any]:
    if not isinstance(data, dict):
        raise RequestError(422, f"the body must be a JSON object, got {brief(data)}")
    if key not in data:
        return [data]
    extra = sorted(set(data) - {key})
    if extra:
        raise RequestError(422, f"beside {key!r} nothing else is allowed, got {brief(extra[0])}")
    items = data[key]
    if not isinstance(items, list) or not items:
        raise RequestError(422, f"{key!r} must be a list of at least one object, got {brief(items)}")
    if len(items) > max_rows:
        raise RequestError(413, f"{key!r} holds {len(items)} objects, at most {max_rows} are allowed")
    return items


def _check_keys(item: Any, keys: frozenset[str], required: str) -> None:
    if not isinstance(item, dict):
        raise _FieldError(required, f"each row must be a JSON object, got {brief(item)}")
    for key in item:
        if key not in keys:
            raise _FieldError(key[:100], f"unknown key{did_you_mean(key[:100], keys)}")
    if required not in item:
        raise _FieldError(required, "missing")


def _id(item: dict[str, Any], *, default: bool) -> str:
    value = item.get("id")
    if value is None and default:
        return _fresh_id()
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise _FieldError("id", f"must be text of 1 to {MAX_ID} characters, got {brief(value)}")
    return value


def _fresh_id() -> str:
    """Return a random id; they are made in bulk, since each call of the system takes microseconds."""
    try:
        return _FRESH.pop()
    except IndexError:
        text = os.urandom(16 * _BULK).hex()
        ids = [text[i : i + 32] for i in range(0, len(text), 32)]
        _FRESH.extend(ids[1:])
        return ids[0]


def _time(item: dict[str, Any], now: datetime) -> datetime:
    value = item.get("time")
    if value is None:
        return now
    if isinstance(value, str):
        try:
            found = parse_time(value)
        except (ValueError, OverflowError):
            found = None
        if found is not None and EARLIEST <= found < LATEST:
            return found
    raise _FieldError(
        "time",
        f"must be an ISO 8601 time from 1970 to 2199 such as '2013-01-01T05:00:00Z', got {brief(value)}",
    )


def _outcome(item: Any, bundle: Bundle, now: datetime) -> Outcome:
    _check_keys(item, _OUTCOME_KEYS, "label")
    value = item.get("value")
    if value is not None and not _is_number(value):
        raise _FieldError("value", f"must be a number, got {brief(value)}")
    return Outcome(
        id=_id(item, default=False),
        time=_time(item, now),
        label=_label(item["label"], bundle),
        value=None if value is None else float(value),
    )


def _label(value: Any, bundle: Bundle) -> str | float:
    if bundle.task == "regression":
        if _is_number(value):
            return float(value)
        raise _FieldError("label", f"must be a number, got {brief(value)}")
    text = category_text(value) if isinstance(value, (str, int, float)) else None
    if text is None or not 0 < len(text) <= MAX_LABEL:
        raise _FieldError("label", f"must be a class of at most {MAX_LABEL} characters, got {brief(value)}")
    if bundle.task == "binary" and text not in bundle.classes:
        known = did_you_mean(text, bundle.classes)
        raise _FieldError("label", f"must be one of the model's classes, got {brief(value)}{known}")
    return text  # of several classes one may be new: the monitor counts it


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _refusal(problems: Sequence[Problem], refused: int, total: int) -> RequestError:
    shown = sorted(problems, key=lambda p: p.row)[:MAX_PROBLEMS]
    first = shown[0]
    reason = (
        f"{refused} of {total} rows refused, nothing was taken: "
        f"row {first.row}, field {first.field!r}: {first.reason}"
    )
    facts = {"rows": total, "refused_rows": refused, "problems": [asdict(p) for p in shown]}
    return RequestError(422, reason, facts)
