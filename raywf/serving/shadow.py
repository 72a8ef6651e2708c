"""Copies of answered rows for the versions that did not answer them, off the requests' path.

A replica puts copies into a bounded queue; a thread takes them in batches to a worker, a process beside the
replica with the lowest priority. What the worker is too slow for is dropped and counted, and never felt.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson
import ray

from raywf.core.clock import parse_time
from raywf.core.niceness import yield_cpu
from raywf.core.records import ModelVersion
from raywf.core.rollout import Part, ShadowAnswer
from raywf.core.settings import Workflow
from raywf.core.source import ModelSource
from raywf.outcomes.writer import LogWriter
from raywf.serving.cache import BundleCache, LoadedModel
from raywf.serving.requests import Row

MOST_WAITING = 5000  # rows
_BATCH = 256
_GATHER_S = 0.02
_END = None
_AGAIN_S = 10.0
_LONGEST = 300  # characters of an error's text
_LONGEST_S = 120.0


@dataclass(frozen=True, slots=True)
class Copies:
    """Rows of a request that were answered live, for the versions that are to answer them too."""

    rows: Sequence[Row]
    versions: tuple[str, ...]


class Worker(Protocol):
    """What answers copies."""

    def answer(self, step: str, copies: Sequence[Copies]) -> None:
        """Answer them and write the answers to the log."""
        ...

    def close(self) -> None:
        """Take no more."""
        ...


class ShadowQueue:
    """Hands copies to a worker from a thread of its own; `copied` and `dropped` count rows.

    A worker that fails is ended, and another one is started after a while.
    """

    def __init__(self, start: Callable[[], Worker], *, most_waiting: int = MOST_WAITING) -> None:
        self._start, self._most = start, most_waiting
        self._worker: Worker | None = None
        self._not_before = 0.0
        self._queue: queue.SimpleQueue[tuple[str, Copies] | None] = queue.SimpleQueue()
        self._waiting, self._counting = 0, threading.Lock()  # rows in the queue
        self.copied = self.dropped = 0
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="raywf-shadow", daemon=True)
        self._thread.start()

    def offer(self, step: str, copies: Copies) -> None:
        """Take rows in, or drop and count them where too many wait; never waits."""
        with self._counting:
            if self._waiting + len(copies.rows) > self._most:
                self.dropped += len(copies.rows)
                return
            self._waiting += len(copies.rows)
        self._queue.put((step, copies))

    def close(self, *, timeout_s: float = 0.0) -> None:
        """Take no more and end the worker after what is in the queue; wait so long for that."""
        self._queue.put(_END)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        is_open = True
        while is_open:
            items = [self._queue.get()]
            if items[0] is not _END:
                time.sleep(_GATHER_S)
            while items[-1] is not _END and len(items) < _BATCH and not self._queue.empty():
                items.append(self._queue.get())
            is_open = items[-1] is not _END
            batch = [item for item in items if item is not None]
            for step, group in itertools.groupby(batch, key=lambda item: item[0]):
                self._hand([copies for _, copies in group], step)
        self._end_worker()

    def _hand(self, batch: list[Copies], step: str) -> None:
        rows = sum(len(copies.rows) for copies in batch)
        with self._counting:
            self._waiting -= rows
        if self._worker is None and time.monotonic() < self._not_before:
            self._drop(rows)
            return
        try:
            self._worker = self._worker or self._start()
            self._worker.answer(step, batch)
            self.copied += rows
            self.problem = ""
        except Exception as err:  # noqa: BLE001 a worker that is gone must not end the thread
            self._drop(rows)
            self.problem = f"the shadows' process failed: {type(err).__name__}: {err}"[:_LONGEST]
            self._not_before = time.monotonic() + _AGAIN_S
            self._end_worker()

    def _drop(self, rows: int) -> None:
        with self._counting:
            self.dropped += rows

    def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(Exception):  # it may be gone already
                worker.close()


class ShadowWorker:
    """Answers copies with the versions that it was given; made a Ray actor by its replica."""

    def __init__(self, workflow: Workflow, source: ModelSource, versions: Sequence[ModelVersion]) -> None:
        yield_cpu()
        root, name = workflow.stores.root, workflow.name
        cache = BundleCache(root, name, source, trust=workflow.trusts_own_code)
        self._models = {version.version: cache.load(version) for version in versions}
        self._log = LogWriter(root, name)

    def answer(self, step: str, copies: Sequence[Copies]) -> None:
        """Answer the copies and write the answers to the log."""
        found: list[ShadowAnswer] = []
        for version, model in self._models.items():
            chosen = [row for one in copies if version in one.versions for row in one.rows]
            if chosen:
                found += _answers(model, step, chosen)
        self._log.append(found)

    def answer_packed(self, step: str, packed: bytes) -> None:
        """Answer copies as `_packed` writes them."""
        self.answer(
            step,
            [
                Copies([Row(one, parse_time(when), values) for one, when, values in rows], tuple(versions))
                for versions, rows in orjson.loads(packed)
            ],
        )

    def close(self) -> None:
        """Close the log."""
        self._log.close()


class RayWorker:
    """A `ShadowWorker` in a process of its own, which ends with the replica that started it."""

    def __init__(self, workflow: Workflow, source: ModelSource, versions: Sequence[ModelVersion]) -> None:
        made = ray.remote(num_cpus=0)(ShadowWorker)
        self._actor = made.remote(workflow, source, tuple(versions))

    def answer(self, step: str, copies: Sequence[Copies]) -> None:
        """Let the process answer.

        Raises:
            RayError: if it is gone, could not be started, or takes too long.
        """
        ray.get(self._actor.answer_packed.remote(step, _packed(copies)), timeout=_LONGEST_S)

    def close(self) -> None:
        """End the process."""
        ray.kill(self._actor)


def _packed(copies: Sequence[Copies]) -> bytes:
    """Return copies as bytes: pickling the records would hold the replica's requests up for milliseconds."""
    plain = [(one.versions, [(row.id, row.time, row.features) for row in one.rows]) for one in copies]
    return orjson.dumps(plain)


def _answers(model: LoadedModel, step: str, rows: Sequence[Row]) -> list[ShadowAnswer]:
    start = time.perf_counter()
    scores = _scores(model, rows)
    part = Part(step, 1e6 * (time.perf_counter() - start) / len(rows))
    return [
        ShadowAnswer(id=row.id, time=row.time, version=model.version.version, scores=values, part=part)
        for row, values in zip(rows, scores, strict=True)
    ]


def _scores(model: LoadedModel, rows: Sequence[Row]) -> list[tuple[float, ...]]:
    """Return each row's scores, or none where the model has no finite answer."""
    try:
        table = model.predictor.predict_rows([row.features for row in rows]).tolist()
    except Exception:  # noqa: BLE001 one row that a challenger cannot take must not take the others' answers
        if len(rows) == 1:
            return [()]
        return [scores for row in rows for scores in _scores(model, [row])]
    return [tuple(values) if all(abs(v) < float("inf") for v in values) else () for values in table]
