"""The records that the steps hand to one another; each is frozen, picklable and survives JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from raywf.core.rollout import Part

ColumnKind = Literal["number", "category", "time"]
LabelKind = Literal["class", "number"]
Effort = Literal["refit", "reweight", "warm", "full"]
Span = Literal["all", "half", "quarter", "aging"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One feature: a number, a category (text, flag) or an instant."""

    name: str
    kind: ColumnKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A table that went into a snapshot, and which version of it."""

    name: str
    path: str
    files: int
    bytes: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnProfile:
    """What a feature looked like in training.

    Numbers: `edges` are the inner edges of equal-mass bins, `counts` the rows in each of the
    ``len(edges) + 1`` bins (bin i holds edges[i-1] < x <= edges[i]); where it `has_range` the first and the
    last bin are what lies below and above all of training. Categories: `values` are the commonest, `counts`
    their rows with one more entry for all others. `missing` counts rows without a value.
    """

    name: str
    kind: ColumnKind
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    missing: int = 0

    @property
    def has_range(self) -> bool:
        """Whether numbers beyond those of training have bins of their own."""
        return self.kind == "number" and len(self.edges) > 1 and self.counts[0] == self.counts[-1] == 0

    @property
    def is_listed(self) -> bool:
        """Whether `values` are all the categories that training held."""
        return self.kind == "category" and self.counts[-1:] == (0,)

    @property
    def is_empty(self) -> bool:
        """Whether no row of training had a value."""
        return self.counts == (0,)


def tells_range(profile: Sequence[ColumnProfile]) -> bool:
    """Return whether profiles say which numbers training had none beyond; those of before do not."""
    return bool(profile) and all(p.has_range or p.is_empty for p in profile if p.kind == "number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An immutable table of features and labels as they were known at `as_of`.

    Rows lie in Parquet files below `uri`, sorted by event time where there is one. Reserved columns:
    ``__label`` (class index or value), ``__time`` (event time), ``__label_time`` (when the label became
    known, where that is told), ``__weight`` and ``__group`` (where they are named), ``__key`` (a hash of the
    entity keys and the event time, or of the row where there are no keys). `classes` are the labels as text
    in the order of their index. `maturity_s` is how old a row must be for its label to be a fair sample:
    rows are as old at `as_of`, unless the history is short.
    """

    id: str
    workflow: str
    uri: str
    rows: int
    columns: tuple[Column, ...]
    task: str
    classes: tuple[str, ...]
    label: str
    has_time: bool
    window: tuple[datetime, datetime] | None
    as_of: datetime | None
    digest: str
    profile: tuple[ColumnProfile, ...]
    sources: tuple[Source, ...]
    warnings: tuple[str, ...] = ()
    maturity_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One configuration and what its folds gave; `status` is done, stopped (a loser) or failed.

    `row_us` is the time that one fold's model takes for one row, in microseconds. `cost_usd` is the price of
    the CPUs that the trial held while its folds were fitted.
    """

    id: str
    family: str
    params: dict[str, Any]
    status: str
    fold_losses: tuple[float, ...] = ()
    score: float | None = None
    rounds: int = 0
    seconds: float = 0.0
    row_us: float = 0.0
    error: str = ""
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A trial's share in an ensemble; weights sum to 1.

    `folds` is the number of its folds' models that answer together, 0 for one model fitted on all rows.
    """

    trial_id: str
    family: str
    params: dict[str, Any]
    rounds: int
    weight: float
    folds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One search over a snapshot: its trials and the ensemble that came of it.

    `cost_usd` is the price of the CPUs that it occupied, busy or not, in all of its attempts. `span` is what
    was trained on: all, the newest half or quarter, or all with old rows counting less. `passed_over` are ids
    of finished trials that could be no members, for a row would have taken each of them too long by itself.
    """

    id: str
    snapshot_id: str
    metric: str
    greater_is_better: bool
    trials: tuple[Trial, ...]
    members: tuple[Member, ...]
    score: float
    calibrated: bool
    budget_s: float
    spent_s: float
    cpu_s: float
    warm_from: str | None = None
    effort: Effort = "full"
    cost_usd: float = 0.0
    span: Span = "all"
    passed_over: tuple[str, ...] = ()

    @property
    def idle_usd(self) -> float:
        """What was paid for CPUs while no trial held them: start-up, ensemble, refits, slots that waited."""
        return max(0.0, self.cost_usd - sum(t.cost_usd for t in self.trials))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a search, from its start until it ended or was cut off: what it occupied and its price.

    A search that was interrupted and goes on, or is done again, has several. `started` is of the wall's time,
    `decision` the id of the one that it was made for, or empty.
    """

    workflow: str
    started: datetime
    wall_s: float
    cpu_s: float
    cost_usd: float
    decision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What an hour of a CPU and of a GPU costs; `basis` says where that is from.

    With `larger_share` both are a whole node's price over its number of them, and the larger of the two sums
    is charged; without it they add up.
    """

    usd_per_cpu_hour: float
    usd_per_gpu_hour: float = 0.0
    larger_share: bool = False
    basis: str = ""

    def usd(self, *, cpu_s: float, gpu_s: float = 0.0) -> float:
        """Return the price of CPU-seconds and GPU-seconds, fractions of a GPU included.

        >>> round(Rate(usd_per_cpu_hour=0.05).usd(cpu_s=7200), 3)
        0.1
        >>> node = Rate(usd_per_cpu_hour=0.25, usd_per_gpu_hour=1.0, larger_share=True)  # 4 CPUs and a GPU
        >>> node.usd(cpu_s=3600, gpu_s=1800)
        0.5
        """
        cpu, gpu = self.usd_per_cpu_hour * cpu_s / 3600, self.usd_per_gpu_hour * gpu_s / 3600
        return max(cpu, gpu) if self.larger_share else cpu + gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpan:
    """A node of the cluster from when it was first seen to when it was last seen alive, in the wall's time.

    `node_type` is the machine type where a label tells it, `group` the name of the node's kind in the
    cluster's file, `resource_id` what the cloud's bill calls the machine; each empty where it is not known.
    """

    node_id: str
    start: datetime
    end: datetime
    cpus: float
    gpus: float = 0.0
    spot: bool = False
    node_type: str = ""
    group: str = ""
    pool: str = ""
    region: str = ""
    resource_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSpan:
    """A workflow's endpoint while its controller saw the cluster: what CPUs its replicas hold.

    With `whole_pool` the nodes of the pool "serve" are there for replicas alone, which hold no CPUs of them.
    """

    workflow: str
    start: datetime
    end: datetime
    cpus: float
    pool: str = ""
    whole_pool: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A servable model on disk: `uri` is its folder, `digest` covers every file in it.

    `threshold` is the probability from which on the second of two classes is the prediction, `quantile` what
    a regression's loss is of (None: the absolute error). `profile` is what its columns looked like in
    training; one of before this was kept has none.
    """

    uri: str
    digest: str
    task: str
    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    members: tuple[Member, ...]
    snapshot_id: str
    fitted_until: datetime | None
    loss_scale: float | None
    threshold: float = 0.5
    quantile: float | None = None
    profile: tuple[ColumnProfile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A registered bundle and where it came from.

    `loss` and `loss_rows` are the mean bounded loss on the gate's block and its rows: the level that the
    monitor compares with.
    """

    workflow: str
    version: str
    uri: str
    digest: str
    run_id: str
    status: str
    snapshot_id: str
    sweep_id: str
    code_version: str
    parent: str | None
    decision_id: str
    metrics: dict[str, float]
    loss: float | None
    loss_rows: int
    cost_usd: float
    created: datetime
    fitted_until: datetime | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question a verdict asked: the figure found, its interval, the bound and whether it held."""

    name: str
    figure: float
    low: float
    high: float
    bound: float
    passed: bool
    note: str = ""


BASELINE = "baseline"  # what a verdict is against where there is no champion to compare with


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May the challenger replace the champion: accept, reject or undecided, with the reasons.

    The first of the `checks` is the metric's gain.
    """

    outcome: Literal["accept", "reject", "undecided"]
    rows: int
    metric: str
    challenger: float
    champion: float
    against: str
    checks: tuple[Check, ...]
    loss: float
    reason: str

    @property
    def is_better(self) -> bool:
        """Whether the challenger is accepted for being surely better than a champion, not only no worse."""
        gained = len(self.checks) > 0 and self.checks[0].low > 0
        return self.outcome == "accept" and self.against != BASELINE and gained


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answered row: scores have the model's k values, features are by column name."""

    id: str
    time: datetime
    version: str
    features: dict[str, Any]
    scores: tuple[float, ...]
    part: Part | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a prediction; `time` is when the label became known, `value` what it earned."""

    id: str
    time: datetime
    label: str | float
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One feature's live values, or answers or labels, beside training's or the window before's, by bins.

    `psi` is the stability index, `js` the Jensen-Shannon distance, `distance` of what has an order the
    Wasserstein distance in ranks: by which share of the bins values moved on average. `q` is the false
    discovery rate over all features at which it stands out (chi-square). `missing` is the share of rows
    without a value, `missing_before` what it was, `unlike` the share whose value training had not: a new
    category, or one beyond the range; None where that is not known.
    """

    column: str
    psi: float
    rows: int
    missing: float
    js: float | None = None
    q: float | None = None
    distance: float | None = None
    missing_before: float | None = None
    unlike: float | None = None

    @property
    def stands_out(self) -> bool:
        """Whether the index is more than chance may well have made."""
        return self.q is None or self.q < 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One window of one model version, in event time.

    `loss_sum` and `loss_squares` are sums of the bounded loss over `labelled` rows; `metric` is the
    workflow's metric with a 95 % interval, absent while too few labels are known. `maturity_s` is how long
    after its end the labels that came are a fair sample. `estimate` is the metric by the rows' own scores
    and features, without a label, with its interval; `estimated_loss` the mean bounded loss likewise, with
    its standard error. `value_mean` is what `value_rows` outcomes earned on average, `value_squares` the sum
    of its squares. Of `labelled_share` of its rows labels have to be there before it is judged by them.
    `unlike` counts the rows with a value that training had not: a number beyond its range, a category that it
    did not hold, none where it always had one; None where the version's profile is of before this was kept.
    `answers` and `labels` tell how far those have moved beside those of the gate's rows, None of fewer than
    `monitor.min_labelled`, and of labels before `labelled_share` have come.
    `answered` requests took `p50_s` at the median, and all but one in a hundred `p99_s` at most; `refused`
    ones could not be read, `failed` ones had no answer; they held `cpu_s` CPU-seconds. All are by the
    replicas' own records, None where there are none.
    """

    version: str
    start: datetime
    end: datetime
    rows: int
    labelled: int
    loss_sum: float
    loss_squares: float
    metric: float | None = None
    metric_low: float | None = None
    metric_high: float | None = None
    value_mean: float | None = None
    drift: tuple[Drift, ...] = ()
    maturity_s: float = 0.0
    estimate: float | None = None
    estimate_low: float | None = None
    estimate_high: float | None = None
    estimated_loss: float | None = None
    estimated_error: float = 0.0
    value_rows: int = 0
    value_squares: float = 0.0
    labelled_share: float = 0.8
    unlike: int | None = None
    answers: Drift | None = None
    labels: Drift | None = None
    answered: int | None = None
    refused: int | None = None
    failed: int | None = None
    p50_s: float | None = None
    p99_s: float | None = None
    cpu_s: float | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether so many rows have a label that it may be judged by them."""
        return self.labelled > 0 and self.labelled >= self.labelled_share * self.rows

    @property
    def judged_from(self) -> datetime:
        """When the labels of all its rows are a fair sample."""
        return self.end + timedelta(seconds=self.maturity_s)

    def has_aged(self, now: datetime) -> bool:
        """Whether it is so old; without a maturity it is at once."""
        return self.judged_from <= now or not self.maturity_s

    def is_mature(self, now: datetime) -> bool:
        """Whether its labels may be judged by: most are there, and its rows are old enough."""
        return self.has_aged(now) and self.is_labelled

    @property
    def pending(self) -> int:
        """Rows whose label is not known yet."""
        return self.rows - self.labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do and why; `id` is a function of workflow, kind, cause and window.

    `effort` is how much a retraining does: fit the champion's members again with their weights, weigh them
    anew too, search shortly from there, or search in full.
    """

    id: str
    workflow: str
    kind: Literal["retrain", "probe", "promote", "rollback", "skip"]
    cause: str
    window: str
    reasons: tuple[str, ...]
    time: datetime
    effort: Effort = "full"

    @property
    def anchor(self) -> str:
        """Its window, less the number of a further try."""
        return self.window.partition("#")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One stage that a decision reached; (decision id, stage) is written once."""

    decision_id: str
    stage: str
    time: datetime
    wall_time: datetime
    reasons: tuple[str, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
