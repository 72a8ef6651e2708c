"""Pairs predictions with what became of them."""

from __future__ import annotations

from collections.abc import Iterable

from raywf.core.records import Outcome, Prediction
from raywf.core.rollout import ShadowAnswer
from raywf.core.service import Service
from raywf.outcomes.lines import Entry, to_line


def join(records: Iterable[Entry]) -> tuple[tuple[Prediction, Outcome | None], ...]:
    """Return each predicted id once, with its outcome where one is known, ordered by (time, id).

    Of several predictions with one id the earliest counts, of several outcomes the latest; equal times are
    settled by content, so the result is a function of the set of records, whatever their order. Outcomes of
    unknown ids are left out, and so are shadows' answers and how requests were served.
    """
    first: dict[str, Prediction] = {}
    latest: dict[str, Outcome] = {}
    for record in records:
        if isinstance(record, ShadowAnswer | Service):
            continue
        if isinstance(record, Prediction):
            seen = first.get(record.id)
            if seen is None or _before(record, seen):
                first[record.id] = record
        else:
            known = latest.get(record.id)
            if known is None or _before(known, record):
                latest[record.id] = record
    ordered = sorted(first.values(), key=lambda p: (p.time, p.id))
    return tuple((prediction, latest.get(prediction.id)) for prediction in ordered)


def _before(one: Prediction | Outcome, other: Prediction | Outcome) -> bool:
    if one.time != other.time:
        return one.time < other.time
    return to_line(one) < to_line(other)
