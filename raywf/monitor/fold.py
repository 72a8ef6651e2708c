"""The monitor's state as a fold of the outcome log: a function of the set of records, whatever their order.

A prediction that comes again counts once, the earliest by (time, version, content); of an id's outcomes the
latest counts, equal times settled by content. Labels may come before their prediction. A window that ended
longer than the horizon before the watermark is closed: its sums stay, its rows are forgotten, and what comes
for it later is only counted, so the rule above holds for records that are no later than that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from raywf.core.records import Evidence, Outcome, Prediction
from raywf.core.settings import MonitorSettings
from raywf.monitor.drift import Codes, bin_values
from raywf.monitor.reference import Reference, ReferenceSource
from raywf.monitor.window import Window
from raywf.outcomes.lines import Entry, line_digest, to_line

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Key = tuple[str, int]
_Rank = tuple[datetime, str, bytes]


@dataclass(slots=True)
class _Place:
    """Where a prediction's row lies, and its rank among predictions of the same id."""

    key: _Key
    row: int
    rank: _Rank


class Fold:
    """Folds records into evidence; not safe for threads.

    `metric` names the workflow's metric. Predictions of a version that `references` does not know yet wait.
    """

    def __init__(self, settings: MonitorSettings, references: ReferenceSource, *, metric: str) -> None:
        self._settings, self._references, self._metric = settings, references, metric
        self._known: dict[str, Reference] = {}
        self._windows: dict[_Key, Window] = {}
        self._closed: dict[_Key, Evidence] = {}
        self._places: dict[str, _Place] = {}
        self._outcomes: dict[str, tuple[datetime, bytes, Outcome]] = {}
        self._waiting: dict[str, tuple[_Rank, Prediction]] = {}
        self._watermark: datetime | None = None
        self._late = 0
        self._odd: set[str] = set()
        self._swept = 0

    def update(self, records: Iterable[Entry], *, settle: bool = True) -> None:
        """Take in records, in any order and grouping, seen before or not; what shadows answered is left out.

        Without `settle` no window is closed: a reader that is behind may bring old records yet.
        """
        batch = tuple(records)
        newest = max((record.time for record in batch), default=None)
        predictions = [record for record in batch if isinstance(record, Prediction)]
        outcomes = [record for record in batch if isinstance(record, Outcome)]
        self._take_outcomes(outcomes)
        self._take_predictions(predictions)
        self._admit()
        if newest is not None and (self._watermark is None or newest > self._watermark):
            self._watermark = newest
        if settle and self._watermark is not None:
            self._close()

    def evidence(self, version: str) -> tuple[Evidence, ...]:
        """Return the version's windows in time order; those without rows are left out."""
        least = self._settings.min_labelled
        found = [e for (v, _), e in self._closed.items() if v == version]
        for (v, _), window in self._windows.items():
            if v == version:
                one = window.evidence(self._metric, min_labelled=least)
                found += [one] if one is not None else []
        return tuple(sorted(found, key=lambda e: e.start))

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that have evidence, sorted."""
        return tuple(sorted({v for v, _ in (*self._windows, *self._closed)}))

    @property
    def watermark(self) -> datetime | None:
        """The greatest time of any record."""
        return self._watermark

    def outcome(self, identity: str) -> Outcome | None:
        """Return the outcome of a prediction's id that counts at present."""
        found = self._outcomes.get(identity)
        return None if found is None else found[2]

    def counts(self) -> dict[str, int]:
        """Return totals: distinct predictions and outcomes, labelled rows, what waits, what was left out."""
        ends = self._closed.values()
        labelled = sum(1 for i in self._outcomes if i in self._places)
        return {
            "predictions": len(self._places) + len(self._waiting) + sum(e.rows for e in ends),
            "labelled": labelled - len(self._odd) + sum(e.labelled for e in ends),
            "outcomes_without_prediction": len(self._outcomes) - labelled - self._waiting_labelled(),
            "predictions_of_unknown_version": len(self._waiting),
            "labels_of_unknown_class": len(self._odd),
            "late": self._late,
        }

    def _waiting_labelled(self) -> int:
        return sum(1 for i in self._waiting if i in self._outcomes)

    def _take_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            seen = self._outcomes.get(outcome.id)
            content = to_line(outcome)
            if seen is not None and (outcome.time, content) <= (seen[0], seen[1]):
                continue
            self._outcomes[outcome.id] = (outcome.time, content, outcome)
            if outcome.id in self._places:
                self._apply(outcome.id)

    def _take_predictions(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            rank = _rank(prediction)
            waits = self._waiting.get(prediction.id)
            place = self._places.get(prediction.id)
            if (waits and waits[0] <= rank) or (place and place.rank <= rank):
                continue
            if place:
                window = self._windows.get(place.key)
                if window is not None:
                    window.withdraw(place.row)
                del self._places[prediction.id]
                self._odd.discard(prediction.id)
            self._waiting[prediction.id] = (rank, prediction)

    def _admit(self) -> None:
        """Give rows to the waiting predictions whose version is known."""
        groups: defaultdict[str, list[tuple[_Rank, Prediction]]] = defaultdict(list)
        for item in self._waiting.values():
            groups[item[1].version].append(item)
        for version, items in groups.items():
            reference = self._reference(version)
            if reference is not None:
                self._admit_version(reference, items)

    def _admit_version(self, reference: Reference, items: list[tuple[_Rank, Prediction]]) -> None:
        codes = _bin_rows([p for _, p in items], reference)
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for i, (_, prediction) in enumerate(items):
            del self._waiting[prediction.id]
            rows[(prediction.time - _EPOCH) // self._settings.window].append(i)
        for number, chosen in rows.items():
            key = (reference.version, number)
            if key in self._closed:
                self._late += len(chosen)
                continue
            window = self._window(key, reference)
            chosen_items = [items[i] for i in chosen]
            ids = [p.id for _, p in chosen_items]
            first = window.append(ids, [p.scores for _, p in chosen_items], codes[chosen])
            for offset, (rank, prediction) in enumerate(chosen_items):
                self._places[prediction.id] = _Place(key, first + offset, rank)
                if prediction.id in self._outcomes:
                    self._apply(prediction.id)

    def _apply(self, identity: str) -> None:
        place, outcome = self._places[identity], self._outcomes[identity][2]
        window = self._windows[place.key]
        label = window.reference.label_value(outcome.label)
        (self._odd.add if label is None else self._odd.discard)(identity)
        window.label(place.row, np.nan if label is None else label, outcome.value)

    def _reference(self, version: str) -> Reference | None:
        if version not in self._known:
            found = self._references.reference(version)
            if found is None:
                return None
            self._known[version] = found
        return self._known[version]

    def _window(self, key: _Key, reference: Reference) -> Window:
        if key not in self._windows:
            start = _EPOCH + key[1] * self._settings.window
            self._windows[key] = Window(reference, start, start + self._settings.window)
        return self._windows[key]

    def _close(self) -> None:
        """Forget the rows of windows that are past the horizon, and outcomes that nobody waited for."""
        assert self._watermark is not None
        limit = self._watermark - max(self._settings.horizon, 2 * self._settings.window)
        for key in [key for key, window in self._windows.items() if window.end < limit]:
            window = self._windows.pop(key)
            evidence = window.evidence(self._metric, min_labelled=self._settings.min_labelled)
            if evidence is not None:
                self._closed[key] = evidence
            for identity, alive in zip(window.ids, window.alive, strict=True):
                if alive:
                    self._places.pop(identity, None)
                    self._outcomes.pop(identity, None)
                    self._odd.discard(identity)
        number = (limit - _EPOCH) // self._settings.window
        if number > self._swept:
            self._swept = number
            self._sweep(limit)

    def _sweep(self, limit: datetime) -> None:
        expected = self._places.keys() | self._waiting.keys()
        stale = [i for i, (t, _, _) in self._outcomes.items() if t < limit and i not in expected]
        for identity in stale:
            del self._outcomes[identity]
        self._late += len(stale)


def _rank(prediction: Prediction) -> _Rank:
    return (prediction.time, prediction.version, line_digest(prediction))


def _bin_rows(predictions: Sequence[Prediction], reference: Reference) -> Codes:
    """Return the bins of all features, shape ``(n_rows, n_features)``."""
    codes = np.empty((len(predictions), len(reference.profile)), dtype=np.uint8)
    for i, profile in enumerate(reference.profile):
        name = profile.name
        codes[:, i] = bin_values([p.features.get(name) for p in predictions], profile)
    return codes
