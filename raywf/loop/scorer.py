"""What a worker does with one piece of a table: read, predict, write; a piece that is done is left alone."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raywf.core import errors
from raywf.core.codec import decode, encode
from raywf.core.errors import BundleError, RaywfError, SourceError
from raywf.core.niceness import yield_cpu
from raywf.core.records import ModelVersion
from raywf.core.source import ModelSource
from raywf.core.store import Store
from raywf.loop.pieces import Block, Piece, Wanted, read_piece
from raywf.loop.scores import ScoredPart, check_part, write_part
from raywf.serving.cache import BundleCache, LoadedModel
from raywf.serving.columns import read_column
from raywf.serving.requests import RequestError
from raywf.serving.tables import answer_columns

_ANY = 2**62  # bytes: what a worker may hold is bounded by its pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What every worker of a run is told; the columns of a snapshot are `typed` as the model takes them."""

    workflow: str
    root: str
    trust: bool
    source: ModelSource
    version: ModelVersion
    run_id: str
    input: str
    wanted: Wanted
    typed: bool
    output: str


@dataclass(frozen=True, slots=True)
class Outturn:
    """What became of a piece: its part, and whether that was there; or the name of an error and its text.

    An error that left the worker as such would come home with Ray Data's logs and traces around it.
    """

    part: ScoredPart | None = None
    kept: bool = False
    error: str = ""
    reason: str = ""

    def settled(self) -> ScoredPart:
        """Return the part.

        Raises:
            RaywfError: the one that the worker met.
        """
        if self.part is None:
            raise getattr(errors, self.error, RaywfError)(self.reason)
        return self.part


def load_model(scoring: Scoring) -> LoadedModel:
    """Return the version in memory by way of the cache that replicas use; its digest and answers are checked.

    Where the store is no folder, each process fetches the bundle for itself and keeps it in memory alone.

    Raises:
        BundleError: if the files are not those of the registered digest, or answer otherwise.
        RegistryError: if they cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="raywf-") as folder:
        root = scoring.root if Store(scoring.root).is_local else folder
        cache = BundleCache(root, scoring.workflow, scoring.source, trust=scoring.trust)
        return cache.load(scoring.version)


class Scorer:
    """An actor of the pool: loads the bundle when it has a first piece to score, and keeps it."""

    def __init__(self, scoring: Scoring) -> None:
        yield_cpu()  # replicas on the same machine go first
        self._scoring = scoring
        self._model: LoadedModel | None = None
        self._store = Store(scoring.output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Score pieces, given as JSON; return what became of each, as JSON of an `Outturn`."""
        pieces = [decode(Piece, json.loads(text)) for text in batch["piece"]]
        return {"outturn": [json.dumps(encode(self._carry_out(piece))) for piece in pieces]}

    def _carry_out(self, piece: Piece) -> Outturn:
        try:
            if self._store.exists(piece.part):
                return Outturn(check_part(self._store, self._scoring.run_id, piece.part), kept=True)
            return Outturn(self._score(piece))
        except RaywfError as err:
            return Outturn(error=type(err).__name__, reason=str(err))

    def _score(self, piece: Piece) -> ScoredPart:
        scoring = self._scoring
        if self._model is None:
            self._model = load_model(scoring)
        blocks = read_piece(scoring.input, piece, scoring.wanted)
        tables = [score_block(self._model, block, file=piece.file, typed=scoring.typed) for block in blocks]
        if not tables:
            return ScoredPart(name=piece.part, rows=0, digest="")
        table = pa.concat_tables(tables).combine_chunks()
        return write_part(self._store, scoring.run_id, piece.part, table)


def score_block(model: LoadedModel, block: Block, *, file: str, typed: bool) -> pa.Table:
    """Return what is kept of the rows, the answers by column, and the model's version.

    Raises:
        SourceError: if a value is of the wrong type, naming file and column.
        BundleError: if the model has no finite answer for a row.
    """
    features = block.features if typed else as_features(model, block.features, file=file)
    predictor = model.predictor
    scores = predictor.predict_table(features)
    bad = int((~np.isfinite(scores).all(axis=1)).sum())
    if bad:
        raise BundleError(
            f"version {model.version.version} has no finite answer for {bad} of {len(scores)} rows in {file}"
        )
    answers = answer_columns(predictor.bundle, scores)
    version = pa.array([model.version.version] * len(scores), pa.string())
    kept = {name: block.kept.column(name) for name in block.kept.column_names}
    return pa.table({**kept, **answers, "model_version": version})


def as_features(model: LoadedModel, table: pa.Table, *, file: str) -> pa.Table:
    """Return the columns as the endpoint reads them from a request by columns.

    Raises:
        SourceError: if a value is of the wrong type, naming file and column.
    """
    encoder = model.predictor.encoder
    found = {}
    for column in encoder.columns:
        given = table.column(column.name).combine_chunks()
        try:
            values = read_column(given, column.kind, column.name, max_bytes=_ANY)
        except RequestError as err:
            raise SourceError(f"{file}: {err.reason}") from None
        found[column.name] = encoder.spelt(column.name, values) if column.kind == "category" else values
    return pa.table(found)
