"""What became of one prediction: asked for by its id, answered from the log, whichever replica made it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson

from raywf.core.clock import format_time
from raywf.core.errors import RaywfError
from raywf.core.records import Bundle
from raywf.core.source import ModelSource
from raywf.outcomes.lookup import Found, IndexBehindError, LogLookup
from raywf.serving.cache import BundleCache
from raywf.serving.requests import RequestError, Row, answers
from raywf.serving.slots import ModelSlots

_MOST_KNOWN = 64  # versions whose classes are remembered
_AGAIN_S = 60.0  # until a version that could not be had is looked for again

_logger = logging.getLogger(__name__)


class Versions:
    """Knows how versions answer, those of old too; thread-safe."""

    def __init__(self, slots: ModelSlots, source: ModelSource, cache: BundleCache) -> None:
        self._slots, self._source, self._cache = slots, source, cache
        self._known: dict[str, tuple[Bundle | None, float]] = {}  # with when it was looked for

    def bundle(self, version: str) -> Bundle | None:
        """Return a version's record, or None while it cannot be had."""
        for model in (self._slots.active, self._slots.previous):
            if model is not None and model.version.version == version:
                return model.predictor.bundle
        found, since = self._known.get(version, (None, -_AGAIN_S))
        if found is None and time.monotonic() - since >= _AGAIN_S:
            try:
                found = self._cache.record(self._source.version(version))
            except (RaywfError, OSError) as err:  # of a version that is gone the scores are left
                _logger.info("version %s cannot be looked at: %s", version, err)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[version] = found, time.monotonic()
        return found


class History:
    """Answers what the log says of an id; its calls read files, so call it in a thread.

    `bundle_of` gives the record of a version, whose classes its scores belong to.
    """

    def __init__(self, lookup: LogLookup, bundle_of: Callable[[str], Bundle | None]) -> None:
        self._lookup, self._bundle_of = lookup, bundle_of

    def prediction(self, prediction_id: str) -> bytes:
        """Return a prediction with its outcome and shadows as JSON.

        Raises:
            RequestError: 404 if the log holds none of this id, 503 if it cannot be read (to its end) now.
        """
        try:
            found = self._lookup.find(prediction_id)
        except IndexBehindError as err:
            raise RequestError(503, str(err), headers={"retry-after": "1"}) from err
        except OSError as err:
            raise RequestError(503, f"the log cannot be read: {err}") from err
        if found is None:
            raise RequestError(404, f"the log holds no prediction with the id {prediction_id[:200]!r}")
        return orjson.dumps(self._told(found))

    def _told(self, found: Found) -> dict[str, Any]:
        made, outcome = found.prediction, found.outcome
        answer = self._answer(made.version, made.scores, made.time)
        known = None
        if outcome is not None:
            known = {"label": outcome.label, "time": format_time(outcome.time), "value": outcome.value}
        return {
            "id": made.id,
            "time": format_time(made.time),
            "features": made.features,
            **answer,
            "outcome": known,
            "shadows": [self._answer(one.version, one.scores, one.time) for one in found.shadows],
        }

    def _answer(self, version: str, scores: Sequence[float], when: datetime) -> dict[str, Any]:
        """Return a version's answer in the form that a caller got it in, beside the plain scores."""
        told: dict[str, Any] = {"model_version": version, "scores": scores}
        bundle = self._bundle_of(version)
        if bundle is None or len(scores) != _width(bundle):  # a shadow that failed has none
            return told
        (answer,) = answers([Row("", when, {})], [scores], bundle)
        return told | {name: value for name, value in answer.items() if name != "id"}


def _width(bundle: Bundle) -> int:
    return len(bundle.classes) if bundle.task == "multiclass" else 1
