"""What each finished trial left behind, below ``sweeps/<id>/trials``: a search resumes from it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raywf.core.codec import decode, encode
from raywf.core.records import Sweep, Trial
from raywf.core.store import Store

OutOfFold = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Finished trials with their out-of-fold scores (one array a fold), and the sweep made of them."""

    root: str
    sweep_id: str

    def record(self, trial: Trial, scores: OutOfFold) -> None:
        """Keep a finished trial, whole or not at all; doing so again changes nothing."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {f"fold{i}": fold for i, fold in enumerate(scores)}
        np.savez(buffer, trial=np.frombuffer(json.dumps(encode(trial)).encode(), np.uint8), **arrays)
        self._store.create(self._path(trial.id), buffer.getvalue())

    def find(self, trial_id: str) -> tuple[Trial, OutOfFold] | None:
        """Return a finished trial and its scores, or None."""
        try:
            data = self._store.read(self._path(trial_id))
        except FileNotFoundError:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            trial = decode(Trial, json.loads(arrays["trial"].tobytes()))
            folds = sorted((name for name in arrays.files if name != "trial"), key=lambda n: int(n[4:]))
            return trial, tuple(arrays[name] for name in folds)

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
    def _store(self) -> Store:
        return Store(self.root)

    def _path(self, trial_id: str) -> str:
        return f"sweeps/{self.sweep_id}/trials/{trial_id}.npz"
