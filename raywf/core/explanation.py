"""What is told of a search: its standings, slices, importances and curves, as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raywf.core.records import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A trial's place in its sweep; a margin is half of a 95 % interval over the folds, None with one fold.

    `behind` is how much better the best trial scores on the folds that both finished, and its margin that of
    this paired difference. One that `is_slow` took too long for a row to become a member.
    """

    trial_id: str
    family: str
    status: str
    folds: int
    score: float | None
    margin: float | None
    behind: float | None
    behind_margin: float | None
    weight: float
    row_us: float
    seconds: float
    is_slow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The rows of one value, or one bin of values, of a column, and how the ensemble does on them.

    `score` is the sweep's metric (None where it is not defined), `loss` the mean bounded loss and `margin`
    half of its 95 % interval. `excess` is how far that loss lies above the one of all other rows, `shrunk`
    the same drawn towards none by its noise, `q` the false discovery rate at which it is above. `label_mean`
    and `predicted_mean` are None for more than two classes; at `bias_q` they differ. `same` names further
    slices of the very same rows.
    """

    column: str
    value: str
    rows: int
    score: float | None
    loss: float
    margin: float
    excess: float
    shrunk: float
    q: float
    label_mean: float | None = None
    predicted_mean: float | None = None
    bias_q: float | None = None
    same: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReport:
    """All slices that were looked at, the worst first, of rows that were scored out of fold.

    `too_small` counts the slices that have too few rows to be looked at.
    """

    rows: int
    score: float | None
    loss: float
    too_small: int
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """How much worse the metric gets when columns are permuted together: mean and deviation over repeats."""

    columns: tuple[str, ...]
    drop: float
    sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceReport:
    """Columns by importance, the greatest first, then groups of columns that tell nearly the same.

    `source` is "gate" or "folds" for rows that were not fitted on, "fitted" for rows that were; by the folds'
    models it is of those members whose models were kept, with `share` of the ensemble's weight.
    """

    rows: int
    source: Literal["gate", "folds", "fitted"]
    share: float
    score: float
    repeats: int
    columns: tuple[Importance, ...]
    groups: tuple[Importance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProgress:
    """What a search had after so many finished trials, in the order in which they began.

    `seconds` are those of the trials' fits so far; `best` is the best single trial's score out of fold,
    `ensemble` that of an ensemble of all so far.
    """

    trials: int
    seconds: float
    best: float
    ensemble: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPoint:
    """What the heaviest member scores when it is fitted on so many rows, and how long that takes."""

    rows: int
    score: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRange:
    """The values that a family's finished trials had of a parameter, and those of their best quarter.

    Numbers in ascending order, then other values as text; "unset" where a trial leaves it to the library.
    """

    family: str
    name: str
    trials: int
    values: tuple[float | str, ...]
    best: tuple[float | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a sweep came to its ensemble, and where that is good or bad; `notes` say what is left out."""

    workflow: str
    version: str | None
    sweep: Sweep
    standings: tuple[Standing, ...]
    parameters: tuple[ParameterRange, ...]
    slices: SliceReport | None = None
    importance: ImportanceReport | None = None
    progress: tuple[SearchProgress, ...] = ()
    learning: tuple[LearningPoint, ...] = ()
    notes: tuple[str, ...] = ()
