"""A client of the endpoint, plain and async: what may be asked again is, under the same prediction id.

>>> client = Client("http://127.0.0.1:8000", key="rwf_...")
>>> client.close()
"""

from __future__ import annotations

import asyncio
import io
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import orjson
import pyarrow as pa
from pyarrow import ipc

from raywf.core.clock import format_time, parse_time
from raywf.core.errors import RaywfError, SettingsError

Features = Mapping[str, Any]
_ARROW = "application/vnd.apache.arrow.stream"
_AGAIN = frozenset({429, 502, 503, 504})  # nothing was taken, or it may be taken again under its id
_NEVER_SENT = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)  # their texts may hold a header's value
_FIRST_S, _LONGEST_S = 0.1, 10.0
_MOST_EXPLAINED = 100  # rows of a call, as the endpoint has it

T = TypeVar("T")


class CallError(RaywfError):
    """The endpoint refused a call, or did not answer: `status` is HTTP's, 0 where there was no answer."""

    def __init__(self, status: int, reason: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(status, reason, tuple(problems))
        self.status, self.reason, self.problems = status, reason, tuple(problems)

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.status else self.reason


Figures = float | Mapping[str, float]  # a regression's number, or one for each class


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a row was answered so: `base` and all `contributions`, by column, sum to what was answered.

    `methods` says how the model's members were taken apart: by "trees" and "linear" exactly, or "sampled".
    """

    methods: tuple[str, ...]
    base: Figures
    contributions: Mapping[str, Figures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One row's answer: a class with its probabilities, or a value; its outcome goes under its `id`.

    `unlike` names the columns whose value is unlike anything in the model's training.
    """

    id: str
    model_version: str
    prediction: str | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    value: float | None = None
    explanation: Explanation | None = None
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOutcome:
    """What became of a prediction, as reported last."""

    label: str | float
    time: datetime
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPrediction:
    """A prediction of any time: what was asked and answered, what came of it, and what shadows said.

    Of a version that is gone only the `scores` tell what it answered; a shadow that failed has no answer.
    """

    time: datetime
    features: Mapping[str, Any]
    answer: Answer
    scores: tuple[float, ...]
    outcome: KnownOutcome | None
    shadows: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class _Call:
    """One HTTP request, complete."""

    method: str
    path: str
    body: bytes = b""
    kind: str = "application/json"
    headers: Mapping[str, bytes] = field(default_factory=dict)


class Client:
    """Asks an endpoint; safe among threads, keeps its connections until `close`.

    A call without a connection, one that is answered 429, 502, 503 or 504, and one that was cut off is made
    again, at most `retries` times, after as long as the endpoint says or a growing random pause. A prediction
    has its id from the first call on, so that one made twice counts once. Times without a zone are UTC.

    Raises:
        SettingsError: if the key cannot be one.
        CallError: by every method, if the endpoint refuses a call or does not answer in time.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
        batch: int = 1000,
    ) -> None:
        self._retries, self._batch = retries, batch
        self._http = httpx.Client(base_url=url, headers=_headers(key), timeout=timeout_s)

    def predict(
        self,
        features: Features,
        *,
        prediction_id: str | None = None,
        time: datetime | None = None,
        key: str | None = None,
        explain: bool = False,
    ) -> Answer:
        """Return the answer to one row; `key` keeps a caller with one version during a rollout."""
        call = _predict_call([features], [prediction_id], [time], key=key, explain=explain)
        return _answers(self._ask(call))[0]

    def predict_many(
        self,
        rows: Sequence[Features],
        *,
        ids: Sequence[str] | None = None,
        key: str | None = None,
        explain: bool = False,
    ) -> list[Answer]:
        """Return the answers to rows in their order; they are sent in batches."""
        calls = _predict_calls(rows, ids, batch=self._batch, key=key, explain=explain)
        return [answer for call in calls for answer in _answers(self._ask(call))]

    def predict_table(self, table: pa.Table, *, key: str | None = None) -> pa.Table:
        """Return the answers to a table of features; ``__id`` and ``__time`` may be columns of it."""
        parts = [_read_table(self._ask(call)) for call in _table_calls(table, batch=self._batch, key=key)]
        return _in_one(parts)

    def report(
        self,
        prediction_id: str,
        label: str | float,
        *,
        time: datetime | None = None,
        value: float | None = None,
    ) -> None:
        """Report what became of a prediction; again is fine, the latest counts."""
        self._ask(_outcomes_call([_outcome(prediction_id, label, time, value)]))

    def prediction(self, prediction_id: str) -> PastPrediction:
        """Return a prediction that any replica made at any time; 404 where the log holds none."""
        return _past(self._ask(_past_call(prediction_id)))

    def model(self) -> dict[str, Any]:
        """Return what the endpoint says of the model that serves."""
        found: dict[str, Any] = _read_json(self._ask(_Call("GET", "/v1/model")))
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, call: _Call) -> httpx.Response:
        for attempt in range(self._retries + 1):
            try:
                answer = self._http.request(**_arguments(call))
            except httpx.RequestError as err:
                pause = _pause_after(None, attempt, self._retries, err)
            else:
                if answer.is_success:
                    return answer
                pause = _pause_after(answer, attempt, self._retries)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


class AsyncClient:
    """As `Client`, for an event loop; batches are sent side by side, at most `side_by_side` at a time."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 4,
        batch: int = 1000,
        side_by_side: int = 4,
    ) -> None:
        self._retries, self._batch = retries, batch
        self._slots = asyncio.Semaphore(side_by_side)
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(key), timeout=timeout_s)

    async def predict(
        self,
        features: Features,
        *,
        prediction_id: str | None = None,
        time: datetime | None = None,
        key: str | None = None,
        explain: bool = False,
    ) -> Answer:
        """As `Client.predict`."""
        call = _predict_call([features], [prediction_id], [time], key=key, explain=explain)
        return _answers(await self._ask(call))[0]

    async def predict_many(
        self,
        rows: Sequence[Features],
        *,
        ids: Sequence[str] | None = None,
        key: str | None = None,
        explain: bool = False,
    ) -> list[Answer]:
        """As `Client.predict_many`."""
        calls = _predict_calls(rows, ids, batch=self._batch, key=key, explain=explain)
        found = await self._ask_all(calls)
        return [answer for response in found for answer in _answers(response)]

    async def predict_table(self, table: pa.Table, *, key: str | None = None) -> pa.Table:
        """As `Client.predict_table`."""
        calls = _table_calls(table, batch=self._batch, key=key)
        found = await self._ask_all(calls)
        return _in_one([_read_table(response) for response in found])

    async def report(
        self,
        prediction_id: str,
        label: str | float,
        *,
        time: datetime | None = None,
        value: float | None = None,
    ) -> None:
        """As `Client.report`."""
        await self._ask(_outcomes_call([_outcome(prediction_id, label, time, value)]))

    async def prediction(self, prediction_id: str) -> PastPrediction:
        """As `Client.prediction`."""
        return _past(await self._ask(_past_call(prediction_id)))

    async def model(self) -> dict[str, Any]:
        """As `Client.model`."""
        found: dict[str, Any] = _read_json(await self._ask(_Call("GET", "/v1/model")))
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask_all(self, calls: Iterable[_Call]) -> list[httpx.Response]:
        """Return all answers in order; the first refusal ends the other calls."""
        tasks = [asyncio.create_task(self._ask_in_turn(call)) for call in calls]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:  # a cancelled call too
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _ask_in_turn(self, call: _Call) -> httpx.Response:
        async with self._slots:
            return await self._ask(call)

    async def _ask(self, call: _Call) -> httpx.Response:
        for attempt in range(self._retries + 1):
            try:
                answer = await self._http.request(**_arguments(call))
            except httpx.RequestError as err:
                pause = _pause_after(None, attempt, self._retries, err)
            else:
                if answer.is_success:
                    return answer
                pause = _pause_after(answer, attempt, self._retries)
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _headers(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError("the API key holds characters that no key has; the value is not shown")
    return {"authorization": f"Bearer {key}"}


def _arguments(call: _Call) -> dict[str, Any]:
    headers = {**call.headers, "content-type": call.kind.encode()}
    return {"method": call.method, "url": call.path, "content": call.body, "headers": headers}


def _pause_after(
    answer: httpx.Response | None, attempt: int, retries: int, error: Exception | None = None
) -> float:
    """Return the seconds until the next attempt.

    Raises:
        CallError: if there is to be none.
    """
    if answer is None:
        if isinstance(error, _NEVER_SENT):
            raise CallError(0, f"the request cannot be sent: {type(error).__name__}")
        if attempt >= retries:
            raise CallError(0, f"no answer: {type(error).__name__}: {error}") from error
    elif answer.status_code not in _AGAIN or attempt >= retries:
        raise _refusal(answer)
    stated = None if answer is None else answer.headers.get("retry-after")
    if stated is not None and stated.isdecimal():
        return min(_LONGEST_S, float(stated))
    return random.uniform(0.5, 1.0) * min(_LONGEST_S, _FIRST_S * 2.0**attempt)  # noqa: S311 no secret


def _refusal(answer: httpx.Response) -> CallError:
    try:
        told = orjson.loads(answer.content)
        return CallError(answer.status_code, str(told["error"]), told.get("problems", ()))
    except (ValueError, KeyError, TypeError):
        return CallError(answer.status_code, answer.text[:200] or answer.reason_phrase)


def _predict_calls(
    rows: Sequence[Features], ids: Sequence[str] | None, *, batch: int, key: str | None, explain: bool
) -> Iterator[_Call]:
    batch = min(batch, _MOST_EXPLAINED) if explain else batch
    if ids is not None and len(ids) != len(rows):
        raise ValueError(f"there are {len(rows)} rows and {len(ids)} ids")
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        given = [None] * len(part) if ids is None else list(ids[start : start + batch])
        yield _predict_call(part, given, [None] * len(part), key=key, explain=explain)


def _predict_call(
    rows: Sequence[Features],
    ids: Sequence[str | None],
    times: Sequence[datetime | None],
    *,
    key: str | None,
    explain: bool,
) -> _Call:
    items = []
    for features, one, when in zip(rows, ids, times, strict=True):
        item: dict[str, Any] = {"features": dict(features), "id": uuid.uuid4().hex if one is None else one}
        if when is not None:
            item["time"] = _utc(when)
        items.append(item)
    asked = {"rows": items, "explain": True} if explain else {"rows": items}
    body = orjson.dumps(asked, option=orjson.OPT_SERIALIZE_NUMPY)
    return _Call("POST", "/v1/predict", body, headers=_sticky(key))


def _table_calls(table: pa.Table, *, batch: int, key: str | None) -> Iterator[_Call]:
    if "__id" not in table.column_names:
        table = table.append_column("__id", pa.nulls(table.num_rows, pa.string()))
    at = table.column_names.index("__id")
    ids = [uuid.uuid4().hex if one is None else one for one in table.column(at).to_pylist()]
    table = table.set_column(at, "__id", pa.array(ids))
    for start in range(0, table.num_rows, batch):
        sink = io.BytesIO()
        with ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.slice(start, batch))
        yield _Call("POST", "/v1/predict", sink.getvalue(), _ARROW, _sticky(key))


def _sticky(key: str | None) -> dict[str, bytes]:
    return {} if key is None else {"x-raywf-key": key.encode()}


def _utc(when: datetime) -> str:
    """Write an instant; one without a zone is UTC, as for the endpoint."""
    return format_time(when.replace(tzinfo=UTC) if when.tzinfo is None else when)


def _outcome(one: str, label: str | float, when: datetime | None, value: float | None) -> dict[str, Any]:
    stamp = datetime.now(UTC) if when is None else when  # the same each time it is sent
    given = {"id": one, "label": label, "time": _utc(stamp), "value": value}
    return {name: one for name, one in given.items() if one is not None}


def _outcomes_call(outcomes: Sequence[Mapping[str, Any]]) -> _Call:
    return _Call("POST", "/v1/outcomes", orjson.dumps({"outcomes": outcomes}))


def _answers(response: httpx.Response) -> list[Answer]:
    told = _read_json(response)
    try:
        version = told["model_version"]
        return [
            _record(Answer, {"model_version": version, **one, **_more(one)}) for one in told["predictions"]
        ]
    except (KeyError, TypeError) as err:
        raise _unreadable(response) from err


def _more(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"explanation": _explanation(one), "unlike": tuple(one.get("unlike", ()))}


def _explanation(one: Mapping[str, Any]) -> Explanation | None:
    why = one.get("explanation")
    return None if why is None else _record(Explanation, why | {"methods": tuple(why["methods"])})


def _past_call(prediction_id: str) -> _Call:
    # a dot alone would be taken for a step in the path
    return _Call("GET", "/v1/predictions/" + quote(prediction_id, safe="").replace(".", "%2E"))


def _past(response: httpx.Response) -> PastPrediction:
    told = _read_json(response)
    try:
        outcome = told["outcome"]
        return PastPrediction(
            time=parse_time(told["time"]),
            features=told["features"],
            answer=_record(Answer, told),
            scores=tuple(told["scores"]),
            outcome=outcome and _record(KnownOutcome, outcome | {"time": parse_time(outcome["time"])}),
            shadows=tuple(_record(Answer, {"id": told["id"], **one}) for one in told["shadows"]),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise _unreadable(response) from err


def _record(kind: type[T], told: Mapping[str, Any]) -> T:
    """Return a record of what was told; what a later endpoint tells besides is left out."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in told.items() if name in known})


def _read_json(response: httpx.Response) -> Any:
    try:
        return orjson.loads(response.content)
    except ValueError as err:
        raise _unreadable(response) from err


def _read_table(response: httpx.Response) -> pa.Table:
    try:
        return ipc.open_stream(response.content).read_all().replace_schema_metadata(None)
    except pa.ArrowException as err:
        raise _unreadable(response) from err


def _in_one(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the parts of an answer as one; of no rows a table without any."""
    return pa.concat_tables(parts) if parts else pa.table({"id": pa.array([], pa.string())})


def _unreadable(response: httpx.Response) -> CallError:
    kind = response.headers.get("content-type", "nothing")
    return CallError(response.status_code, f"the answer is not the endpoint's, but {kind}; is the URL right?")
