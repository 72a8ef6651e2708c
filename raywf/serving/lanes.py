"""Which version answers a row: the champion alone, or during a rollout the challenger its share of rows."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from raywf.core.records import Prediction
from raywf.core.rollout import Part, RolloutStep
from raywf.serving.cache import LoadedModel
from raywf.serving.requests import Row, refused_scores

Scores = Sequence[tuple[float, ...]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows that one model answered together: their places in the request, and their part in a rollout."""

    model: LoadedModel
    places: Sequence[int]
    rows: Sequence[Row]
    scores: Scores
    part: Part | None = None

    def predictions(self) -> list[Prediction]:
        """Return the rows as the log keeps them."""
        version = self.model.version.version
        return [
            Prediction(
                id=row.id,
                time=row.time,
                version=version,
                features=row.features,
                scores=values,
                part=self.part,
            )
            for row, values in zip(self.rows, self.scores, strict=True)
        ]


def answer_alone(model: LoadedModel, rows: Sequence[Row]) -> tuple[Answered, ...]:
    """Let one model answer all rows.

    Raises:
        NoAnswerError: 422, if it has no finite answer for a row.
        RowError: if a value is of the wrong type.
    """
    return (Answered(model, range(len(rows)), rows, _score(model, rows)),)


@dataclass(frozen=True, slots=True)
class Lanes:
    """A rollout as a replica carries it out.

    `challenger` answers the step's share of the live rows and `champion` the others; a shadow answers none.
    A row's lane follows from a hash of its key, and what was the challenger's stays the challenger's as the
    share grows.
    """

    step: RolloutStep
    champion: LoadedModel
    challenger: LoadedModel | None
    key: str | None

    @property
    def is_slow(self) -> bool:
        """Whether a model that answers rows is."""
        return any(m.pace.is_slow for m in (self.champion, self.challenger) if m is not None)

    def answer(self, rows: Sequence[Row], sticky: str | None) -> tuple[Answered, ...]:
        """Let each row be answered by its lane's model; `sticky` is the key of the whole request, if any.

        Where the challenger has no finite answer, for whatever reason, the champion answers.

        Raises:
            NoAnswerError, RowError: as `answer_alone`, of the champion.
        """
        lanes = [self._is_challengers(row, sticky) for row in rows]
        ours = [i for i, theirs in enumerate(lanes) if not theirs]
        theirs = [i for i, theirs in enumerate(lanes) if theirs]
        if self.challenger is None or not theirs:
            return (self._timed(self.champion, ours, rows, of=len(rows)),)
        found = [self._timed(self.champion, ours, [rows[i] for i in ours], of=len(rows))] if ours else []
        return (*found, *self._challenged(self.challenger, rows, theirs))

    def _challenged(
        self, challenger: LoadedModel, rows: Sequence[Row], places: Sequence[int]
    ) -> list[Answered]:
        """Let the challenger answer its rows, and the champion those alone that it cannot."""
        chosen = [rows[i] for i in places]
        try:
            return [self._timed(challenger, places, chosen, of=len(rows))]
        except Exception as err:  # noqa: BLE001 whatever a challenger raises, its rows are answered
            _logger.info("version %s failed: %s", challenger.version.version, err)
        if len(places) == 1:
            return [self._timed(self.champion, places, chosen, of=len(rows), failed=True)]
        return [one for at in places for one in self._challenged(challenger, rows, [at])]

    def _is_challengers(self, row: Row, sticky: str | None) -> bool:
        if self.challenger is None or self.step.share >= 1:
            return self.challenger is not None
        key = sticky
        if key is None and self.key is not None:
            value = row.features.get(self.key)
            key = None if value is None else str(value)
        return lane_of(self.step.rollout, row.id if key is None else key) < self.step.share

    def _timed(
        self, model: LoadedModel, places: Sequence[int], rows: Sequence[Row], *, of: int, failed: bool = False
    ) -> Answered:
        """Answer some of a request's `of` rows; only a row alone tells the time, lest the shares do."""
        start = time.perf_counter()
        scores = _score(model, rows)
        alone = of == 1 and not model.pace.gathers  # else the time is the others' too
        took_us = 1e6 * (time.perf_counter() - start) if alone else 0.0
        return Answered(model, places, rows, scores, Part(self.step.tag, took_us, failed))


def lane_of(rollout: str, key: str) -> float:
    """Return a number in [0, 1) that is the same for the same key of a rollout, evenly spread over keys."""
    digest = hashlib.blake2b(f"{rollout}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _score(model: LoadedModel, rows: Sequence[Row]) -> Scores:
    scores = [tuple(values) for values in model.score([row.features for row in rows]).tolist()]
    refusal = refused_scores(rows, scores)
    if refusal is not None:
        raise refusal
    return scores
