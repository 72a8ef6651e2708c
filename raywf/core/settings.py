"""What a workflow is told: one frozen record a stage, checked when made.

Each range or choice that is broken raises `DecodeError` with the key; the loader adds file and line.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from raywf.core.alert_settings import AlertSettings
from raywf.core.cluster_settings import ClusterSettings
from raywf.core.codec import DecodeError, require
from raywf.core.metrics import METRICS, find_metric
from raywf.core.retrain_settings import RetrainSettings
from raywf.core.serving_settings import RolloutSettings, ServingSettings
from raywf.core.space import parse_space

Task = Literal["binary", "multiclass", "regression"]
Family = Literal["lightgbm", "catboost", "xgboost", "linear", "extratrees", "torch"]
FAMILIES: tuple[Family, ...] = ("lightgbm", "catboost", "xgboost", "linear", "extratrees", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpineSettings:
    """The table of things to predict: one row a prediction that was or could have been asked for.

    `maturity` is how old a row must be for its label to be learned from; None finds it in the data, where
    labels that come soon differ from those that come late. `weight` names a column that says how much a row
    counts in a fit; `group` one whose equal values belong together: without times they are never parted
    between fitting and scoring.
    """

    path: str
    label: str
    keys: tuple[str, ...] = ()
    event_time: str | None = None
    label_time: str | None = None
    maturity: timedelta | None = None
    positive: str | None = None
    weight: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        require(
            self.label_time is None or self.event_time is not None,
            "label_time",
            "given together with event_time",
            self.label_time,
        )
        require(
            self.maturity is None or (self.label_time is not None and self.maturity >= timedelta(0)),
            "maturity",
            "at least 0s, given together with label_time",
            self.maturity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """A table of feature values by key, each valid from its event time, known from its known time."""

    path: str
    keys: tuple[str, ...]
    event_time: str | None = None
    known_time: str | None = None
    max_age: timedelta | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.keys) > 0, "keys", "at least one column", self.keys)
        require(
            self.max_age is None or self.event_time is not None,
            "max_age",
            "given together with event_time",
            self.max_age,
        )
        require(
            self.known_time is None or self.event_time is not None,
            "known_time",
            "given together with event_time",
            self.known_time,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """Which columns of the spine are features (none named: all), and the views joined to it."""

    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    views: dict[str, ViewSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateSettings:
    """Bounds of the checks that run before anything is trained."""

    min_rows: int = 100
    max_missing: float = 0.99
    min_label_share: float = 0.001
    leak_auc: float = 0.995
    on_leak: Literal["refuse", "warn"] = "refuse"
    window: timedelta | None = None

    def __post_init__(self) -> None:
        require(self.min_rows >= 10, "min_rows", "at least 10", self.min_rows)
        require(0.5 < self.leak_auc <= 1, "leak_auc", "in (0.5, 1]", self.leak_auc)
        require(0 < self.max_missing <= 1, "max_missing", "in (0, 1]", self.max_missing)
        require(0 <= self.min_label_share < 0.5, "min_label_share", "in [0, 0.5)", self.min_label_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnModelSettings:
    """A model of the user's own: ``code: file.py:Name``, run only with ``trust: true``.

    `input` is what its rows are: a matrix of encoded numbers, or the snapshot's columns as they are, a table.
    `params` are its first configuration, `space` is what others are drawn from, at most `trials` in all. A
    trial takes `cpus` and `gpus` (a share of one will do). With `rungs` the first fold is fitted rung by rung
    and losers are stopped between them. With more `workers` than one a fit is spread over so many processes,
    which take so much each, by Ray Train; then all models have workers, and `families` is [].
    """

    code: str
    trust: bool = False
    input: Literal["matrix", "table"] = "matrix"
    params: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    trials: int = 10
    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1
    rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(self.trust, "trust", "true: the file's Python is run as it is", self.trust)
        require(self.trials >= 1, "trials", "at least 1", self.trials)
        require(self.cpus >= 1, "cpus", "at least 1", self.cpus)
        require(self.gpus >= 0, "gpus", "at least 0", self.gpus)
        require(self.workers >= 1, "workers", "at least 1", self.workers)
        rising = all(a < b for a, b in itertools.pairwise((0, *self.rungs)))
        require(rising, "rungs", "whole numbers that rise, from 1 on", self.rungs)
        _require_space(self.space, "space")

    @property
    def resources(self) -> dict[str, float]:
        """What one process of a fit takes, by Ray's names."""
        return {"CPU": float(self.cpus), **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMetricSettings:
    """A metric of the user's own: a function of labels and scores, run only with ``trust: true``."""

    code: str
    greater_is_better: bool
    trust: bool = False

    def __post_init__(self) -> None:
        require(self.trust, "trust", "true: the file's Python is run as it is", self.trust)


def _require_space(space: dict[str, Any], key: str) -> None:
    try:
        parse_space(space)
    except ValueError as err:
        raise DecodeError(str(err), (key,)) from err


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """The budget of one search and what it may try.

    `budget_s` bounds the wall-clock time, `max_cpu_s` and `max_usd` (by the price of `cost`) that time
    multiplied by the CPUs which the search may occupy; `max_concurrent` bounds the trials at once, and is
    how many a cluster that grows is asked to have room for. A warm search has `warm_share` of the budgets
    and of `trials`, and of a small one seconds enough to start its workers. `folds` None leaves their
    number to the costs; `row_ms` bounds the time that the ensemble may take for one row. `class_weight`
    "balanced" lets each class count alike in the fits, as in scikit-learn. `spaces` are drawn from by
    family once the portfolio is through.
    """

    budget_s: float = 60.0
    max_cpu_s: float | None = None
    max_usd: float | None = None
    warm_share: float = 0.2
    trials: int = 1000
    folds: int | None = None
    row_ms: float = 0.26
    class_weight: Literal["none", "balanced"] = "none"
    purge: timedelta = timedelta(0)
    families: tuple[Family, ...] = FAMILIES
    models: dict[str, OwnModelSettings] = field(default_factory=dict)
    spaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    trial_cpus: int = 1
    max_concurrent: int | None = None
    max_failures: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.budget_s >= 1, "budget_s", "at least 1 second", self.budget_s)
        for name in ("max_cpu_s", "max_usd"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "above 0", value)
        require(self.trials >= 1, "trials", "at least 1", self.trials)
        require(self.folds is None or 1 <= self.folds <= 20, "folds", "in [1, 20]", self.folds)
        require(0 < self.warm_share <= 1, "warm_share", "a share of the budgets in (0, 1]", self.warm_share)
        require(self.row_ms > 0, "row_ms", "above 0 milliseconds", self.row_ms)
        some = len(self.families) + len(self.models) > 0
        require(some, "families", "at least one family, or models given", self.families)
        for name in self.models:
            good = name.isidentifier() and name not in (*FAMILIES, "prior")
            require(good, "models", "named otherwise than raywf's families, as a word", name)
        for name, space in self.spaces.items():
            require(name in self.families, "spaces", "of families that are searched", name)
            _require_space(space, "spaces")
        require(self.trial_cpus >= 1, "trial_cpus", "at least 1", self.trial_cpus)
        teams = [model.workers > 1 for model in self.models.values()]
        alone = all(teams) and not self.families
        # beside others a team would wait for CPUs that their workers keep
        require(alone or not any(teams), "families", "[] beside models that all have workers", self.families)

    @property
    def slot_cpus(self) -> int:
        """What a trial occupies: its own CPUs, or those of the largest team."""
        return max([self.trial_cpus, *(m.cpus * m.workers for m in self.models.values() if m.workers > 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSettings:
    """What the cluster's time costs: prices of your own, or the price table's for a node type.

    `discount` is a share off the table's prices, `prices` a CSV file whose rows go before the table's.
    `reserved_discount` is the further share off that you get for nodes which you reserve.
    Without any of these a CPU costs what an AWS m7i on demand in us-east-1 does, per vCPU.
    """

    usd_per_cpu_hour: float | None = None
    usd_per_gpu_hour: float | None = None
    cloud: str | None = None
    region: str | None = None
    node_type: str | None = None
    spot: bool = False
    discount: float = 0.0
    reserved_discount: float | None = None
    prices: str | None = None

    def __post_init__(self) -> None:
        for name in ("usd_per_cpu_hour", "usd_per_gpu_hour"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "above 0", value)
        require(0 <= self.discount < 1, "discount", "a share in [0, 1)", self.discount)
        reserved = self.reserved_discount
        fits = reserved is None or 0 < reserved < 1
        require(fits, "reserved_discount", "a share in (0, 1)", reserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When a challenger may replace the champion.

    Held for it are the newest rows; with more `pieces` than one every other piece of twice as many.
    """

    newest: float = 0.15
    max_rows: int = 20_000
    pieces: int = 1
    min_rows: int = 50
    alpha: float = 0.05
    margin: float = 0.01

    def __post_init__(self) -> None:
        require(0 < self.newest <= 0.5, "newest", "a share of the rows in (0, 0.5]", self.newest)
        require(1 <= self.pieces <= 100, "pieces", "in [1, 100]", self.pieces)
        require(0 < self.alpha < 0.5, "alpha", "in (0, 0.5)", self.alpha)
        require(self.margin >= 0, "margin", "at least 0", self.margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSettings:
    """How the outcome log is folded into evidence; labels later than `horizon` are only counted.

    Where a version's rows need longer for their labels, that is waited for.

    A window is judged by its labels once `labelled_share` of its rows have one: less than that may be those
    that came soon, or that somebody cared to send. `values` say what an answer earns, by the class that was
    answered, then by the one that it was (0 where none is named); an outcome's own value goes before.
    """

    window: timedelta = timedelta(days=1)
    min_labelled: int = 200
    labelled_share: float = 0.8
    horizon: timedelta = timedelta(days=180)
    poll_s: float = 1.0
    clock: Literal["wall", "log"] = "wall"
    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for row in self.values.values() for value in row.values())
        require(finite, "values", "finite numbers", self.values)
        require(self.window > timedelta(0), "window", "longer than nothing", self.window)
        require(self.poll_s > 0, "poll_s", "above 0", self.poll_s)
        require(self.min_labelled >= 1, "min_labelled", "at least 1", self.min_labelled)
        share = self.labelled_share
        require(0 < share <= 1, "labelled_share", "a share of a window's rows in (0, 1]", share)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where raywf keeps what it makes; `mlflow` empty means SQLite below the root."""

    root: str = ".raywf"
    mlflow: str = ""

    def __post_init__(self) -> None:
        plain = "://" not in self.root or not set("?@#") & set(self.root)
        wanted = "a URI without '?', '@' and '#': endpoints and keys come from AWS_ENDPOINT_URL and the like"
        require(plain, "root", wanted, self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """All settings of one prediction problem."""

    name: str
    task: Task
    spine: SpineSettings
    metric: str = ""
    metrics: dict[str, OwnMetricSettings] = field(default_factory=dict)
    features: FeatureSettings = FeatureSettings()
    validate: ValidateSettings = ValidateSettings()
    search: SearchSettings = SearchSettings()
    cost: CostSettings = CostSettings()
    gate: GateSettings = GateSettings()
    serving: ServingSettings = field(default_factory=ServingSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    monitor: MonitorSettings = MonitorSettings()
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    stores: StoreSettings = StoreSettings()
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    def __post_init__(self) -> None:
        good = self.name.replace("-", "").replace("_", "").isalnum() and self.name.isascii()
        require(good, "name", "letters, digits, '-' and '_'", self.name)
        if not self.metric:
            default = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}[self.task]
            object.__setattr__(self, "metric", default)
        if self.spine.event_time is None:  # nothing says which rows are newer: there is nothing to look at
            object.__setattr__(self, "retrain", replace(self.retrain, look=None))
        self._require_metric()
        require(
            self.spine.positive is None or self.task == "binary",
            "spine",
            "without 'positive' unless the task is binary",
            self.spine.positive,
        )
        require(
            self.search.class_weight == "none" or self.task != "regression",
            "search",
            "without 'class_weight' for a regression",
            self.search.class_weight,
        )
        require(
            not self.monitor.values or self.task != "regression",
            "monitor",
            "without 'values' for a regression: what a prediction earned comes with its outcome",
            self.monitor.values,
        )
        window, maturity = self.validate.window, self.spine.maturity
        some = window is None or maturity is None or maturity < window
        require(some, "spine", "of a maturity below validate.window, lest no row be left", maturity)
        age = self.retrain.max_age
        younger = age is None or maturity is None or maturity < age
        require(
            younger, "spine", "of a maturity below retrain.max_age: a new model is as old already", maturity
        )

    @property
    def trusts_own_code(self) -> bool:
        """Whether bundles with Python of the user's own may be loaded."""
        return len(self.search.models) > 0

    def _require_metric(self) -> None:
        for name in self.metrics:
            require(find_metric(name) is None, "metrics", "named otherwise than raywf's metrics", name)
        if self.metric in self.metrics:
            return
        metric = find_metric(self.metric)
        fitting = sorted(m.name for m in METRICS.values() if self.task in m.tasks)
        fitting += ["quantile_0.9"] if self.task == "regression" else []
        require(
            metric is not None and self.task in metric.tasks,
            "metric",
            f"one of {', '.join(fitting)} for a {self.task} task",
            self.metric,
        )
        require(
            metric is None or not metric.grouped or self.spine.group is not None,
            "metric",
            "used with 'spine.group', the column that says which rows belong together",
            self.metric,
        )
