"""The work of a predict request between its body and its answer: read, check, predict, log, write."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from raywf.core.clock import Clock
from raywf.core.errors import RowError
from raywf.core.rollout import Part
from raywf.core.serving_settings import ServingSettings
from raywf.outcomes.lines import PredictionBatch
from raywf.outcomes.writer import LogWriter
from raywf.serving.bodies import from_json, is_columns, read_arrow, read_csv
from raywf.serving.cache import LoadedModel
from raywf.serving.explaining import Explanations, take_explain
from raywf.serving.lanes import Answered, Lanes, answer_alone
from raywf.serving.meter import Meter
from raywf.serving.requests import NoAnswerError, RequestError, Row, answers, read_json, read_rows
from raywf.serving.rollouts import RolloutFollower
from raywf.serving.tables import ARROW, CSV, JSON, Scored, TableRequest, to_request, write_answers
from raywf.serving.tally import Tallies, Trouble

_KINDS = (JSON, CSV, ARROW)
_MOST_COPIED = 100  # rows of a table that the former champion answers too while the new one is watched


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's body, its content type, the one that the answer should have, and the caller's key."""

    body: bytes
    kind: str | None = None
    accept: str | None = None
    sticky: str | None = None


class Share(NamedTuple):
    """The rows of a request that one version answered, and the event time of the first."""

    version: str
    rows: int
    first: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """A body of some content type, and the model that gave it; of rows in both lanes the champion."""

    body: bytes
    kind: str
    model: LoadedModel
    shares: Sequence[Share]


class Predictions:
    """Answers predict requests and logs each row before its answer is out; counts what it does.

    A request's time is that from its body to its answer's, without network, queue and wait for the disk.
    """

    def __init__(
        self,
        log: LogWriter,
        rollout: RolloutFollower,
        clock: Clock,
        counts: tuple[Meter, Tallies],
        limits: ServingSettings,
    ) -> None:
        self._log, self._rollout, self._clock = log, rollout, clock
        self._meter, self._tallies = counts
        self._max_rows, self._max_bytes = limits.max_rows, limits.max_body_bytes
        self._explanations = Explanations()

    def answer(self, model: LoadedModel, asked: Asked) -> Answer:
        """Answer with the champion `model`, or by the lanes of a rollout.

        Raises:
            RequestError: if the request is refused; nothing was logged then.
            RowError: if a value is of the wrong type.
            OSError: if the log cannot be written.
        """
        start = time.perf_counter()
        try:
            answer = self._answer(model, asked)
        except Exception as err:  # whatever it is, it is counted, and the caller's to deal with
            is_refusal = isinstance(err, (RequestError, RowError)) and not isinstance(err, NoAnswerError)
            kind: Trouble = "refused" if is_refusal else "failed"
            self._tallies.troubled(model.version.version, kind, self._clock.now())
            raise
        took_s = time.perf_counter() - start
        for share in answer.shares:
            self._meter.rows(share.version, share.rows)
            self._tallies.answered(share.version, share.first, took_s)
        return answer

    def _answer(self, model: LoadedModel, asked: Asked) -> Answer:
        kind = _content_type(asked.kind)
        encoder = model.predictor.encoder
        names = [column.name for column in encoder.columns]
        explain = False
        if kind == JSON:
            data, explain = take_explain(read_json(asked.body))
            if not is_columns(data):
                if explain:
                    return self._explain_rows(model, data, asked.sticky)
                return self._answer_rows(model, data, asked.sticky)
            given = from_json(data, names)
        elif kind == CSV:
            given = read_csv(asked.body, encoder.columns)
        else:
            given = read_arrow(asked.body, names, max_rows=self._max_rows)
        request = to_request(
            given, encoder, max_rows=self._max_rows, max_bytes=self._max_bytes, clock=self._clock
        )
        wanted = _content_type(asked.accept, default=kind)
        if explain:
            return self._explain_table(model, request, wanted, asked.sticky)
        return self._answer_table(model, request, wanted, asked.sticky)

    def are_slow(self, model: LoadedModel) -> bool:
        """Return whether a single row may take so long that other requests should not wait for it."""
        lanes = self._lanes(model)
        return model.pace.is_slow if lanes is None else lanes.is_slow

    def _lanes(self, model: LoadedModel) -> Lanes | None:
        lanes = self._rollout.lanes
        return lanes if lanes is not None and lanes.step.serves == model.version.version else None

    def _answer_rows(self, model: LoadedModel, data: Any, sticky: str | None) -> Answer:
        rows = read_rows(data, model.schema, max_rows=self._max_rows, clock=self._clock)
        groups = self._grouped(model, rows, sticky)
        lead = _lead(groups, model)
        answer = {"model_version": lead.version.version, "predictions": _told(groups)}
        return Answer(orjson.dumps(answer), JSON, lead, _shares(groups))

    def _answer_table(
        self, model: LoadedModel, request: TableRequest, kind: str, sticky: str | None
    ) -> Answer:
        lanes = self._lanes(model)
        scores = _table_scores(model, request, lanes)
        if scores is None and lanes is not None:
            return self._answer_table_by_lanes(lanes, model, request, kind, sticky)
        assert scores is not None
        predictor, version = model.predictor, model.version.version
        part = None if lanes is None else Part(lanes.step.tag)
        batch = PredictionBatch(
            ids=request.ids,
            times=request.times,
            version=version,
            features=request.columns(),
            scores=scores,
            part=part,
        )
        self._log.append([batch])
        if part is not None:
            rows = request.sample(_MOST_COPIED).rows()
            self._rollout.copy([Answered(model, range(len(rows)), rows, (), part)])
        parts = [Scored(predictor.bundle, version, scores)]
        share = Share(version, len(request), request.times[0])
        return Answer(write_answers(kind, request.ids, parts, version), kind, model, [share])

    def _answer_table_by_lanes(
        self, lanes: Lanes, model: LoadedModel, request: TableRequest, kind: str, sticky: str | None
    ) -> Answer:
        """Answer a table row by row: in a rollout each has its lane, and its own model's classes."""
        groups = self._by_lanes(lanes, request.rows(), sticky)
        lead = _lead(groups, model)
        body = write_answers(kind, request.ids, _parts(groups), lead.version.version)
        return Answer(body, kind, lead, _shares(groups))

    def _explain_rows(self, model: LoadedModel, data: Any, sticky: str | None) -> Answer:
        rows = read_rows(data, model.schema, max_rows=self._max_rows, clock=self._clock)
        with self._explanations.turn(len(rows)):
            groups = self._grouped(model, rows, sticky)
            reasons = self._explanations.explain(groups)
        lead, told = _lead(groups, model), _told(groups)
        found = [one | {"explanation": why} for one, why in zip(told, reasons, strict=True)]
        answer = {"model_version": lead.version.version, "predictions": found}
        return Answer(orjson.dumps(answer), JSON, lead, _shares(groups))

    def _explain_table(
        self, model: LoadedModel, request: TableRequest, kind: str, sticky: str | None
    ) -> Answer:
        if kind != JSON:
            raise RequestError(422, f"explanations are answered as {JSON} only, not as {kind}")
        with self._explanations.turn(len(request)):
            groups = self._grouped(model, request.rows(), sticky)
            reasons = self._explanations.explain(groups)
        lead = _lead(groups, model)
        found = write_answers(JSON, request.ids, _parts(groups), lead.version.version)
        answer = orjson.loads(found)
        answer["columns"]["explanation"] = reasons
        return Answer(orjson.dumps(answer), JSON, lead, _shares(groups))

    def _grouped(self, model: LoadedModel, rows: Sequence[Row], sticky: str | None) -> tuple[Answered, ...]:
        """Answer and log rows, by the lanes of a rollout or alone."""
        lanes = self._lanes(model)
        if lanes is not None:
            return self._by_lanes(lanes, rows, sticky)
        (alone,) = answer_alone(model, rows)
        self._log.append(alone.predictions())
        return (alone,)

    def _by_lanes(self, lanes: Lanes, rows: Sequence[Row], sticky: str | None) -> tuple[Answered, ...]:
        groups = lanes.answer(rows, sticky)
        self._log.append([prediction for group in groups for prediction in group.predictions()])
        self._rollout.copy(groups)
        if lanes.challenger is not None and any(g.part is not None and g.part.failed for g in groups):
            self._tallies.troubled(lanes.challenger.version.version, "failed", rows[0].time)
        return groups


def _table_scores(
    model: LoadedModel, request: TableRequest, lanes: Lanes | None
) -> NDArray[np.float64] | None:
    """Return the model's scores of all rows; None where lanes have to answer row by row.

    Raises:
        NoAnswerError: 422, if without lanes there is no finite answer to a row.
    """
    if lanes is not None and lanes.step.mode != "watch":
        return None
    try:
        scores = model.predictor.predict_table(request.features)
    except Exception:  # whatever a watched champion raises, the former one answers its rows
        if lanes is None:
            raise
        return None
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if not len(bad):
        return scores
    if lanes is not None:
        return None
    reason = f"the model has no finite answer for {len(bad)} of {len(scores)} rows, the first {bad[0]}"
    raise NoAnswerError(422, reason)


def _shares(groups: Sequence[Answered]) -> list[Share]:
    """Return each version's share; where a challenger failed it has several groups."""
    if len(groups) == 1:
        return [Share(groups[0].model.version.version, len(groups[0].rows), groups[0].rows[0].time)]
    rows = Counter[str]()
    first: dict[str, datetime] = {}
    for group in groups:
        version = group.model.version.version
        rows[version] += len(group.rows)
        first.setdefault(version, group.rows[0].time)
    return [Share(version, rows[version], when) for version, when in first.items()]


def _lead(groups: Sequence[Answered], model: LoadedModel) -> LoadedModel:
    """Return the model that a whole answer names: that of all rows, else the champion."""
    return groups[0].model if len(groups) == 1 else model


def _told(groups: Sequence[Answered]) -> list[dict[str, Any]]:
    """Return the answers to a request's rows; outside of a rollout one version gave all."""
    first = groups[0]
    return _said(first) if first.part is None else _in_order(groups)


def _said(group: Answered) -> list[dict[str, Any]]:
    """Return one model's answers, each with the columns in which its row is unlike training, if any."""
    found = answers(group.rows, group.scores, group.model.predictor.bundle)
    for one, row in zip(found, group.rows, strict=True):
        unlike = group.model.unlike.names(row.features)
        if unlike:
            one["unlike"] = unlike
    return found


@lru_cache(maxsize=64)
def _content_type(stated: str | None, *, default: str = JSON) -> str:
    """Return the first content type of a header that is known, else the default."""
    names = [part.partition(";")[0].strip().lower() for part in (stated or "").split(",")]
    return next((name for name in names if name in _KINDS), default)


def _parts(groups: Sequence[Answered]) -> list[Scored]:
    return [
        Scored(
            group.model.predictor.bundle,
            group.model.version.version,
            np.asarray(group.scores),
            list(group.places),
        )
        for group in groups
    ]


def _in_order(groups: Sequence[Answered]) -> list[dict[str, Any]]:
    """Return the answers of all groups in the request's order, each with the version that gave it."""
    found: dict[int, dict[str, Any]] = {}
    for group in groups:
        version, said = group.model.version.version, _said(group)
        found |= {at: {**one, "model_version": version} for at, one in zip(group.places, said, strict=True)}
    return [found[at] for at in sorted(found)]
