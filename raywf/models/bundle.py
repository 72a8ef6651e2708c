"""A servable model as a folder: members, weights, encoder, schema, reference answers, digests; no pickle.

Layout::

    digests.json      SHA-256 of every other file; the bundle's digest is the SHA-256 of this one
    bundle.json       the `Bundle` record
    encoder.json      categories and their codes
    calibration.json  only where calibrated
    reference.json    rows with the answers that they had at export
    member-0/ ...     each family's own files
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raywf.core.clock import format_time
from raywf.core.codec import DecodeError, decode, encode
from raywf.core.errors import BundleError
from raywf.core.ids import digest_bytes
from raywf.core.records import Bundle, Member
from raywf.models.calibration import Calibration
from raywf.models.encoding import Encoder
from raywf.models.families import family, is_family
from raywf.models.family import Model, Problem, Rows, answer, reads_table
from raywf.models.own import load_own
from raywf.models.pairs import Pairs, unwrap

TOLERANCE = 1e-5
_LEAST_UNIT = 1e-12
_NO_LABELS = np.empty(0)


class Predictor:
    """A bundle in memory. Immutable after loading; `predict_row` and `predict_rows` are thread-safe."""

    def __init__(
        self, bundle: Bundle, encoder: Encoder, models: Sequence[Model], *, calibration: Calibration | None
    ) -> None:
        self.bundle, self.encoder, self.calibration = bundle, encoder, calibration
        parts = [unwrap(model) for model in models]
        self._pairs = list(
            dict.fromkeys(pairs for _, pairs in parts)
        )  # members that read the same share them
        self._members = tuple(
            (inner, self._pairs.index(pairs), member.weight)
            for (inner, pairs), member in zip(parts, bundle.members, strict=True)
        )
        self._encode = encoder.compile()
        self._width = len(encoder.names)
        self.reads_table = any(reads_table(model) for model in models)

    @property
    def members(self) -> tuple[tuple[Model, Pairs, float], ...]:
        """Each member without its pairs of numbers, these pairs, and its weight."""
        return tuple((model, self._pairs[at], weight) for model, at, weight in self._members)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Rows:
        """Return rows by column name as the members read them, without labels.

        Raises:
            RowError: if a value is of the wrong type, naming the field.
        """
        X = self._matrix(rows)
        return Rows(X, _NO_LABELS, table=self.encoder.arrow(rows) if self.reads_table else None)

    def reference_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the training data that lie in the bundle.

        Raises:
            OSError: if the bundle's folder is gone.
        """
        stored = json.loads((Path(self.bundle.uri) / "reference.json").read_text())
        return list(stored["rows"])

    def predict_matrix(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return scores ``(n_rows, k)`` of encoded rows; not of a bundle that `reads_table`."""
        return self._answer(X)

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Return scores ``(n_rows, k)`` of rows by column name.

        Raises:
            RowError: if a value is of the wrong type, naming the field.
        """
        X = self._matrix(rows)
        if self.reads_table:
            return self._answer(X, self.encoder.arrow(rows))
        return self._answer(X)

    def predict_row(self, features: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the k scores of one row, without pandas."""
        return tuple(self.predict_rows((features,))[0].tolist())

    def can_score(self, table: pa.Table) -> bool:
        """Return whether an Arrow table holds the schema's columns."""
        return {column.name for column in self.bundle.columns} <= set(table.column_names)

    def predict_table(self, table: pa.Table) -> NDArray[np.float64]:
        """Return scores ``(n_rows, k)`` of an Arrow table that holds the schema's columns."""
        return self._answer(self.encoder.table(table), table.select([c.name for c in self.bundle.columns]))

    def _matrix(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        X = np.empty((len(rows), self._width), dtype=np.float32)
        for i, row in enumerate(rows):
            self._encode(row, X[i])
        return X

    def _answer(self, X: NDArray[np.float32], table: pa.Table | None = None) -> NDArray[np.float64]:
        read = [Rows(pairs.widen(X), _NO_LABELS, table=table) for pairs in self._pairs]
        weighted = (answer(model, read[at]) * weight for model, at, weight in self._members)
        combined = np.asarray(sum(weighted, np.float64(0)))
        return combined if self.calibration is None else self.calibration.apply(combined)

    def check_reference(self) -> None:
        """Answer the stored rows again.

        Raises:
            BundleError: if an answer is not finite or differs from the stored one by more than 1e-5
                (relative to the answers' spread for regression, or to their size where both are below 1).
        """
        stored = json.loads((Path(self.bundle.uri) / "reference.json").read_text())
        expected = np.asarray(stored["scores"], dtype=np.float64)
        found = self.predict_rows(stored["rows"])
        check_answers(found, expected, task=self.bundle.task)


def check_answers(found: NDArray[np.float64], expected: NDArray[np.float64], *, task: str) -> None:
    """Compare answers, shape ``(n_rows, k)``, with expected ones.

    Raises:
        BundleError: as `Predictor.check_reference`.
    """
    if not np.isfinite(found).all():
        raise BundleError("the model answers a reference row with a value that is not finite")
    gap = float(np.max(np.abs(found - expected), initial=0))
    unit = 1.0
    if task == "regression":  # whose labels may all be tiny
        unit = max(_LEAST_UNIT, min(1.0, float(np.max(np.abs(expected), initial=0))))
    scale = max(unit, float(np.std(expected))) if len(expected) else unit
    if found.shape != expected.shape or gap > TOLERANCE * scale:
        raise BundleError(f"reference answers differ by {gap:.3g}, allowed {TOLERANCE * scale:.3g}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a bundle is written from: fitted models in the order of `bundle.members`."""

    bundle: Bundle
    encoder: Encoder
    models: tuple[Model, ...]
    calibration: Calibration | None
    reference: pa.Table


def write_bundle(draft: Draft, folder: Path) -> Bundle:
    """Write a bundle into `folder` (made new), load it again and compare its answers with the models'.

    The reference's rows are encoded one by one, as requests are, and as a table, as for a fit.

    Raises:
        BundleError: if these differ, or the loaded bundle answers otherwise than the models it was made of.
    """
    folder.mkdir(parents=True)
    for i, model in enumerate(draft.models):
        (folder / f"member-{i}").mkdir()
        model.save(folder / f"member-{i}")
    fitted = Predictor(draft.bundle, draft.encoder, draft.models, calibration=draft.calibration)
    rows = plain_rows(draft.reference)
    answers = fitted.predict_rows(rows)
    check_answers(fitted.predict_table(draft.reference), answers, task=draft.bundle.task)
    _write_json(folder / "reference.json", {"rows": rows, "scores": answers.tolist()})
    _write_json(folder / "encoder.json", encode(draft.encoder))
    if draft.calibration is not None:
        _write_json(folder / "calibration.json", encode(draft.calibration))
    record = {k: v for k, v in encode(draft.bundle).items() if k not in {"uri", "digest"}}
    _write_json(folder / "bundle.json", record)
    _write_json(folder / "digests.json", _digests(folder))
    loaded = load_bundle(folder, trust=True)
    check_answers(loaded.predict_rows(rows), answers, task=draft.bundle.task)
    return loaded.bundle


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows as a client would send them."""
    return [{k: _plain(v) for k, v in row.items()} for row in table.to_pylist()]


def load_bundle(folder: str | Path, *, digest: str | None = None, trust: bool = False) -> Predictor:
    """Load a bundle after checking every file against its digest; with `trust` members of the user's own too.

    Raises:
        BundleError: if a file is missing, changed or extra, the bundle is not the one with `digest`, or it
            holds Python of the user's own and is not trusted.
    """
    root = Path(folder)
    bundle = read_record(root, digest=digest)
    try:
        encoder = decode(Encoder, json.loads((root / "encoder.json").read_text()))
        calibration = None
        if (root / "calibration.json").exists():
            calibration = decode(Calibration, json.loads((root / "calibration.json").read_text()))
        models = _load_members(root, bundle, encoder, trust=trust)
    except (OSError, ValueError, KeyError, DecodeError) as err:
        raise BundleError(f"bundle {root} cannot be read: {err}") from err
    return Predictor(bundle, encoder, models, calibration=calibration)


def read_record(folder: str | Path, *, digest: str | None = None) -> Bundle:
    """Return what a bundle says of itself, after checking every file against its digest; load no model.

    Raises:
        BundleError: if a file is missing, changed or extra, or the bundle is not the one with `digest`.
    """
    root = Path(folder)
    try:
        listing = (root / "digests.json").read_bytes()
        found = digest_bytes(listing)
        if digest is not None and digest != found:
            raise BundleError(f"bundle {root} has digest {found}, expected {digest}")
        stored, present = json.loads(listing), _digests(root)
        wrong = sorted(k for k in stored.keys() | present.keys() if stored.get(k) != present.get(k))
        if wrong:
            raise BundleError(f"bundle {root}: missing, changed or extra files: {', '.join(wrong)}")
        record = json.loads((root / "bundle.json").read_text())
        return decode(Bundle, {**record, "uri": str(root), "digest": found})
    except (OSError, ValueError, KeyError, DecodeError) as err:
        raise BundleError(f"bundle {root} cannot be read: {err}") from err


def problem_of(bundle: Bundle, encoder: Encoder) -> Problem:
    """Return the problem that a bundle's members answer."""
    return Problem(task=bundle.task, n_classes=len(bundle.classes), sizes=encoder.sizes)


def _load_members(root: Path, bundle: Bundle, encoder: Encoder, *, trust: bool) -> list[Model]:
    problem = problem_of(bundle, encoder)
    return [
        family(m.family).load(problem, root / f"member-{i}")
        if is_family(m.family)
        else load_own(problem, root / f"member-{i}", trust=trust)
        for i, m in enumerate(bundle.members)
    ]


def _digests(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and p.name != "digests.json")
    return {p.relative_to(root).as_posix(): digest_bytes(p.read_bytes()) for p in files}


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return format_time(value) if isinstance(value, datetime) else value


def single_member(name: str) -> tuple[Member, ...]:
    """Return the members of a bundle of one model with default settings."""
    return (Member(trial_id=name, family=name, params={}, rounds=0, weight=1.0),)
