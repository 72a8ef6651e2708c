"""What a search leaves behind below ``sweeps/<id>``, fold by fold, and what it took: it resumes from it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from raywf.core.codec import decode, encode
from raywf.core.records import Attempt, Sweep, Trial
from raywf.core.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One fold of a trial: its scores ``(n_rows, k)`` of the held rows, and what it took.

    `row_s` is the time that the fold's model takes for one row, in seconds.
    """

    scores: NDArray[np.float32]
    loss: float
    rounds: int
    seconds: float
    row_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Trials with their folds, and the sweep made of them.

    Scores and trials are not waited for until the disk has them: a sync costs a quick trial more than itself.
    What a power loss cut off is missing, a trial of which it took scores too, and is made again.
    """

    root: str
    sweep_id: str

    def record_fold(
        self, trial_id: str, number: int, result: FoldResult, *, model: Mapping[str, bytes] | None = None
    ) -> None:
        """Keep a finished fold and its model's files by name; doing so again changes nothing."""
        if model:
            arrays: dict[str, Any] = {k: np.frombuffer(v, np.uint8) for k, v in model.items()}
            self._store.create(self._path(trial_id, f"model-{number}.npz"), _packed(arrays))
        figures = {k: getattr(result, k) for k in _FIGURES}
        text = np.frombuffer(json.dumps(figures).encode(), np.uint8)
        packed = _packed({"scores": result.scores, "figures": text})
        self._store.create(self._path(trial_id, f"fold-{number}.npz"), packed, synced=False)

    def fold(self, trial_id: str, number: int) -> FoldResult | None:
        """Return a finished fold, or None."""
        arrays = self._arrays(self._path(trial_id, f"fold-{number}.npz"))
        if arrays is None:
            return None
        return FoldResult(scores=arrays["scores"], **json.loads(arrays["figures"].tobytes()))

    def write_model(self, trial_id: str, number: int, folder: Path) -> None:
        """Write the files of a fold's model into an existing folder.

        Raises:
            FileNotFoundError: if none were kept.
        """
        path = self._path(trial_id, f"model-{number}.npz")
        arrays = self._arrays(path)
        if arrays is None:
            raise FileNotFoundError(path)
        for name, array in arrays.items():
            (folder / name).write_bytes(array.tobytes())

    def folds(self, trial_id: str, count: int) -> tuple[FoldResult, ...]:
        """Return a trial's finished folds, from the first up to the first that is missing."""
        found = []
        for number in range(count):
            result = self.fold(trial_id, number)
            if result is None:
                break
            found.append(result)
        return tuple(found)

    def record_rung(self, trial_id: str, number: int, loss: float) -> None:
        """Keep the loss at a rung of the first fold, from 1; doing so again changes nothing."""
        path = self._path(trial_id, f"rung-{number}.json")
        self._store.create(path, json.dumps(loss).encode(), synced=False)

    def rungs(self, trial_id: str) -> tuple[float, ...]:
        """Return the losses at a trial's rungs, from the first up to the first that is missing."""
        found: list[float] = []
        with suppress(FileNotFoundError, json.JSONDecodeError):
            while True:
                text = self._store.read(self._path(trial_id, f"rung-{len(found) + 1}.json"))
                found.append(float(json.loads(text)))
        return tuple(found)

    def begin(self, trial: Trial) -> None:
        """Keep what a trial is that has folds and goes on, so that another attempt finds it."""
        self._store.create(self._path(trial.id, _BEGUN), json.dumps(encode(trial)).encode(), synced=False)

    def begun(self) -> tuple[Trial, ...]:
        """Return the trials that have folds and were to go on when their search was cut off, by id."""
        names = self._store.list(f"sweeps/{self.sweep_id}/trials")
        ended = {name.removesuffix(".json") for name in names if name.endswith(".json")}
        found = []
        for name in names:
            if name.endswith(".json") or name in ended:
                continue
            try:
                found.append(decode(Trial, json.loads(self._store.read(self._path(name, _BEGUN)))))
            except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
                continue  # another way to the same trial, or none: its folds are found by its id
        return tuple(found)

    def record(self, trial: Trial) -> None:
        """Keep the record of a trial that is done or was stopped for its losses; again changes nothing.

        What the deadline stopped has not ended: it goes on where its search is taken up.
        """
        self._store.create(self._trial_path(trial.id), json.dumps(encode(trial)).encode(), synced=False)

    def find(self, trial_id: str) -> Trial | None:
        """Return a trial that has ended, or None."""
        path = self._trial_path(trial_id)
        try:
            return decode(Trial, json.loads(self._store.read(path)))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError):
            self._store.drop(path)
            return None

    def trials(self) -> tuple[Trial, ...]:
        """Return every trial that has ended, by id."""
        return tuple(t for t in map(self.find, self.ended()) if t is not None)

    def ended(self) -> list[str]:
        """Return the ids of the trials that have ended, without reading their records."""
        names = (Path(name).name for name in self._store.list(f"sweeps/{self.sweep_id}/trials"))
        return [name.removesuffix(".json") for name in sorted(names) if name.endswith(".json")]

    def whole_trials(self) -> tuple[Trial, ...]:
        """Return the trials that have ended and whose folds are all there; the others are forgotten."""
        return tuple(trial for trial in self.trials() if self._is_whole(trial))

    def _is_whole(self, trial: Trial) -> bool:
        """Return whether a trial's folds are there, and forget it if they are not."""
        count = len(trial.fold_losses)
        if len(self.folds(trial.id, count)) == count:
            return True
        self._store.drop(self._trial_path(trial.id))
        return False

    def settle(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        """Return what the sweep settled under a name: the first value, which a resumed search finds again."""
        path = self._settled_path(name)
        self._store.create(path, json.dumps(value).encode())
        found: dict[str, Any] = json.loads(self._store.read(path))
        return found

    def keep(self, name: str, value: dict[str, Any]) -> None:
        """Settle a value in place of what was settled before."""
        self._store.write(self._settled_path(name), json.dumps(value).encode())

    def settled(self, name: str) -> dict[str, Any] | None:
        """Return what was settled, or None."""
        try:
            found: dict[str, Any] = json.loads(self._store.read(self._settled_path(name)))
        except FileNotFoundError:
            return None
        return found

    def note(self, attempt: Attempt) -> None:
        """Keep what an attempt has taken so far, in place of what was noted of it before."""
        name = attempt.started.strftime("%Y%m%dT%H%M%S%f")
        path = f"sweeps/{self.sweep_id}/attempts/{name}.json"
        self._store.write(path, json.dumps(encode(attempt)).encode())

    def attempts(self) -> tuple[Attempt, ...]:
        """Return what each attempt took, the first one first."""
        folder = f"sweeps/{self.sweep_id}/attempts"
        names = self._store.list(folder)
        return tuple(decode(Attempt, json.loads(self._store.read(f"{folder}/{n}"))) for n in names)

    def write_sweep(self, sweep: Sweep) -> None:
        """Keep the sweep's record."""
        self._store.write(f"sweeps/{self.sweep_id}/sweep.json", json.dumps(encode(sweep), indent=1).encode())

    def read_sweep(self) -> Sweep | None:
        """Return the sweep's record, or None while it is not finished."""
        try:
            return decode(Sweep, json.loads(self._store.read(f"sweeps/{self.sweep_id}/sweep.json")))
        except FileNotFoundError:
            return None

    @property
    def bundles(self) -> Path:
        """Where the bundles lie of a search that registers none, on the node that made them."""
        return self._store.node_folder / "bundles" / self.sweep_id

    @property
    def _store(self) -> Store:
        return Store(self.root)

    def _arrays(self, path: str) -> dict[str, Any] | None:
        try:
            data = self._store.read(path)
        except FileNotFoundError:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, BadZipFile):
            self._store.drop(path)
            return None

    def _settled_path(self, name: str) -> str:
        return f"sweeps/{self.sweep_id}/{name}.json"

    def _trial_path(self, trial_id: str) -> str:
        return f"sweeps/{self.sweep_id}/trials/{trial_id}.json"

    def _path(self, trial_id: str, name: str) -> str:
        return f"sweeps/{self.sweep_id}/trials/{trial_id}/{name}"


_BEGUN = "trial.json"
_FIGURES = ("loss", "rounds", "seconds", "row_s")


def _packed(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
