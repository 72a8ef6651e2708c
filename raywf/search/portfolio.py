"""The ordered configurations that a search tries first, and their neighbours for the time that is left.

Values are starting points published under Apache-2.0 by pytabkit ("TD" defaults, arXiv 2407.04491) and
AutoGluon's 2025 portfolio, with learning rates raised for budgets of seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from raywf.core.ids import stable_id, stable_number
from raywf.core.records import Effort, Sweep, Trial
from raywf.core.settings import SearchSettings
from raywf.models.families import family as find_family
from raywf.models.families import is_family, is_installed, traits

_DECAY, _PLACE_WEIGHT = 0.5, 0.25  # of a sweep's ranks by its age; of the portfolio's own order
_POOL_WEIGHT = 0.3  # of what is expected of any configuration, beside what it showed in the newest sweep
_RUNNERS_UP, _NEIGHBOURS, _SHAKEN = 3, 4, 4
_MOST_ROWS = {"extratrees": 20_000, "torch": 60_000}
_MOST_LEAVES = 8_000  # of a tree whose leaves are single rows
_MAX_RATE = 0.12
_MEDIAN = 0.5

_MIDDLE = {
    "learning_rate": 0.05,
    "num_leaves": 50,
    "min_data_in_leaf": 40,
    "bagging_fraction": 0.75,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
}
Configuration = tuple[str, dict[str, Any]]
PAIRS = 24  # columns made of two numbers each that most trees read besides
_PAIRS = {"pairs": PAIRS}
_TELLING = 0.005  # of the loss: so much a probe has to gain or lose by pairs for most trees to follow it
_CONFIGURATIONS: tuple[Configuration, ...] = (
    ("lightgbm", _MIDDLE),
    (
        "lightgbm",
        {
            "learning_rate": 0.06,
            "num_leaves": 39,
            "min_data_in_leaf": 3,
            "extra_trees": True,
            "feature_fraction": 0.46,
            "lambda_l1": 0.24,
            "lambda_l2": 0.36,
            **_PAIRS,
        },
    ),
    (
        "catboost",
        {
            "learning_rate": 0.08,
            "depth": 6,
            "l2_leaf_reg": 3.0,
            "random_strength": 0.8,
            "one_hot_max_size": 15,
            "leaf_estimation_iterations": 1,
            **_PAIRS,
        },
    ),
    (
        "xgboost",
        {
            "learning_rate": 0.08,
            "max_depth": 6,
            "min_child_weight": 1,
            "colsample_bylevel": 0.9,
            "subsample": 0.65,
            **_PAIRS,
        },
    ),
    ("linear", {}),
    (
        "lightgbm",
        {
            "learning_rate": 0.1,
            "num_leaves": 8,
            "feature_fraction": 0.9,
            "lambda_l1": 1.0,
            "lambda_l2": 1.0,
            **_PAIRS,
        },
    ),
    ("torch", {"hidden": [128, 128, 128], "lr": 0.01, "steps": 2500}),
    ("extratrees", {"n_estimators": 100, "min_samples_leaf": 1, "max_features": 0.7, **_PAIRS}),
    ("lightgbm", {**_MIDDLE, **_PAIRS}),
    ("extratrees", {"n_estimators": 100, "min_samples_leaf": 3, "max_features": 0.5}),
    (
        "xgboost",
        {
            "learning_rate": 0.06,
            "max_leaves": 64,
            "max_depth": 0,
            "grow_policy": "lossguide",
            "colsample_bytree": 0.6,
            "subsample": 0.8,
            "min_child_weight": 4,
        },
    ),
    (
        "lightgbm",
        {
            "learning_rate": 0.05,
            "num_leaves": 180,
            "min_data_in_leaf": 20,
            "extra_trees": True,
            "feature_fraction": 0.4,
            "lambda_l1": 0.77,
            "lambda_l2": 1.6,
        },
    ),
    (
        "catboost",
        {
            "learning_rate": 0.06,
            "depth": 8,
            "l2_leaf_reg": 5.0,
            "one_hot_max_size": 4,
            "leaf_estimation_iterations": 1,
        },
    ),
    ("linear", {"C": 0.02, "alpha": 30.0}),
    ("torch", {"hidden": [256, 128], "lr": 0.006, "dropout": 0.15, "steps": 3000}),
)

# what a neighbour may change: the bounds of each number
_RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (0.02, _MAX_RATE),
    "num_leaves": (4, 255),
    "max_leaves": (8, 255),
    "max_depth": (3, 10),
    "depth": (4, 9),
    "min_data_in_leaf": (1, 100),
    "min_child_weight": (0.5, 20),
    "min_samples_leaf": (1, 20),
    "feature_fraction": (0.3, 1.0),
    "colsample_bylevel": (0.3, 1.0),
    "colsample_bytree": (0.3, 1.0),
    "max_features": (0.2, 1.0),
    "bagging_fraction": (0.5, 1.0),
    "subsample": (0.5, 1.0),
    "lambda_l1": (0.01, 4.0),
    "lambda_l2": (0.01, 8.0),
    "l2_leaf_reg": (0.5, 20.0),
    "random_strength": (0.1, 3.0),
    "C": (0.005, 10.0),
    "alpha": (0.1, 300.0),
    "lr": (0.002, 0.03),
    "dropout": (0.0, 0.5),
    "pairs": (6, 60),
}
_STEP = 0.4  # standard deviation of a neighbour's log factors


def trial_id(family: str, params: dict[str, Any]) -> str:
    """Return a configuration's id; the same configuration has the same id in every sweep.

    >>> trial_id("linear", {}) == trial_id("linear", {})
    True
    """
    return f"{family}-{stable_id(family, params, length=8)}"


def make_trial(family: str, params: dict[str, Any]) -> Trial:
    """Return a trial that has not begun."""
    return Trial(id=trial_id(family, params), family=family, params=params, status="pending")


def plan_trials(
    settings: SearchSettings,
    *,
    rows: int,
    former: Sequence[Sweep] = (),
    effort: Effort = "full",
    speed: float = 1.0,
    gain: float = 0.0,
    quantile: float | None = None,
) -> tuple[Trial, ...]:
    """Return the trials to run in order; `former` are the champion's sweep and those before it.

    A full search begins with the champion's members, heaviest first, and goes on with the portfolio in the
    order that this workflow's own history suggests; cheaper ones begin with the member that took longest. A
    warm one puts the family that was not tried for the longest, the former runners-up and neighbours of the
    best between them; a cheaper one has the members alone. `speed` raises the portfolio's learning rates,
    where the budget would fit too few of them; `gain` is the share of the loss that pairs of numbers took off
    in a short fit, by which trees read them; `quantile` is what a regression is asked for, if not the mean.
    """
    own = settings.models
    families = searched_families(settings, rows=rows, quantile=quantile) | own.keys()
    given = {name: model.params for name, model in own.items() if model.params or not model.space}
    portfolio = [make_trial(name, params) for name, params in given.items()]
    portfolio += [
        make_trial(family, _faster(params, speed)) for family, params in _with_pairs(_CONFIGURATIONS, gain)
    ]

    def allowed(trials: Sequence[Trial]) -> list[Trial]:
        return [t for t in trials if t.family in families and _is_small_enough(t, rows)]

    portfolio = allowed(portfolio)
    wanted = allowed(_members(former[0]))[: settings.trials] if former else []
    if effort != "full":
        seconds = {t.id: t.seconds for t in former[0].trials} if former else {}
        wanted.sort(key=lambda t: -seconds.get(t.id, 0.0))  # all are tried, so that slots end together
    if not wanted or effort in {"warm", "full"}:
        if wanted and effort == "warm":
            wanted += _missed(portfolio, former) + allowed(_runners_up(former, seed=settings.seed))
        wanted += order_by_history(portfolio, former)
    return tuple({t.id: t for t in wanted}.values())[: settings.trials]


def searched_families(settings: SearchSettings, *, rows: int, quantile: float | None = None) -> set[str]:
    """Return which of raywf's families are searched: those whose library is here and that the rows suit.

    Of a quantile other than the median a forest knows nothing.

    A family with a space of the user's is searched on any number of rows, and so are those that are given
    where none of them suits.

    Raises:
        SearchError: if the library of one with a space is missing, or those of all that are given.
    """
    here: set[str] = {f for f in settings.families if is_installed(f)}
    for name in settings.families:
        if name not in here and (name in settings.spaces or not (here or settings.models)):
            find_family(name)  # says what to install
    suited = {f for f in here if f in settings.spaces or rows <= _MOST_ROWS.get(f, rows)}
    if quantile is not None and quantile != _MEDIAN:
        suited -= {"extratrees"} - settings.spaces.keys()
    return suited if suited or settings.models else here


def _with_pairs(configurations: Sequence[Configuration], gain: float) -> list[Configuration]:
    """Return them with pairs for all trees but the first where those gain, for but one where they lose."""
    if abs(gain) < _TELLING:
        return list(configurations)
    found: list[Configuration] = []
    odd = min(i for i, (_, params) in enumerate(configurations) if bool(params.get("pairs")) != (gain > 0))
    for i, (family, params) in enumerate(configurations):
        wide = (gain > 0) != (i == odd)
        plain = {name: value for name, value in params.items() if name != "pairs"}
        found.append((family, {**plain, **_PAIRS} if wide and traits(family).widens else plain))
    return found


def _is_small_enough(trial: Trial, leaves: int) -> bool:
    return leaves <= _MOST_LEAVES or trial.params.get("min_samples_leaf", 2) > 1


def order_by_history(portfolio: Sequence[Trial], former: Sequence[Sweep]) -> list[Trial]:
    """Return the portfolio by how its configurations fared in former sweeps, the newest counting most.

    A configuration that was never tried keeps its place: where it stands is worth a quarter of a sweep.
    """
    places: dict[str, list[tuple[float, float]]] = {}
    for age, sweep in enumerate(former):
        ranked = _ranked(sweep)
        for place, trial in enumerate(ranked):
            places.setdefault(_likeness(trial), []).append((_DECAY**age, place / len(ranked)))
        for trial in sweep.trials:
            if (trial.status == "stopped" or trial.id in sweep.passed_over) and trial.fold_losses:
                places.setdefault(_likeness(trial), []).append((_DECAY**age, 1.0))

    def standing(item: tuple[int, Trial]) -> float:
        at, trial = item
        seen = [(_PLACE_WEIGHT, at / len(portfolio)), *places.get(_likeness(trial), [])]
        return sum(w * p for w, p in seen) / sum(w for w, _ in seen)

    return [trial for _, trial in sorted(enumerate(portfolio), key=standing)]


def _members(sweep: Sweep) -> list[Trial]:
    return [make_trial(m.family, m.params) for m in sorted(sweep.members, key=lambda m: -m.weight)]


def _missed(portfolio: Sequence[Trial], former: Sequence[Sweep]) -> list[Trial]:
    """Return the first configuration of the family that was not tried for the longest, if there is one.

    What lost once would otherwise never come back, whatever the data turn into.
    """
    tried = [{t.family for t in sweep.trials} for sweep in former]
    ages = {
        trial.family: next((age for age, names in enumerate(tried) if trial.family in names), len(tried))
        for trial in portfolio
    }
    oldest = max(portfolio, key=lambda t: ages[t.family], default=None)
    return [oldest] if oldest is not None and ages[oldest.family] > 0 else []


def _runners_up(former: Sequence[Sweep], *, seed: int) -> list[Trial]:
    """Return the best trials of former sweeps beside the newest members, and neighbours of the best."""
    members = {m.trial_id for m in former[0].members}
    pool = _mixed(pool_trials(former))
    found = [t for t in pool if t.id not in members][:_RUNNERS_UP]
    shaken = (_beside(pool, number, seed=seed + stable_number(former[0].id)) for number in range(_NEIGHBOURS))
    return found + [t for t in shaken if t is not None]


def _mixed(best_first: Sequence[Trial]) -> list[Trial]:
    """Return the best of each family, then the second of each, and so on, the better ones first.

    Neighbours of the best fare alike, and sweep after sweep would else try none but one family.
    """
    seen: Counter[str] = Counter()
    places = []
    for trial in best_first:
        places.append(seen[trial.family])
        seen[trial.family] += 1
    return [trial for _, trial in sorted(zip(places, best_first, strict=True), key=lambda item: item[0])]


def pool_trials(former: Sequence[Sweep]) -> list[Trial]:
    """Return all configurations that former sweeps finished, the best first.

    What a configuration lost beyond the best of its sweep, as a share of it, tells how good it is; the newest
    sweep counts most. Each is drawn a little to the middle of all, which one lucky sweep weighs less against.
    """
    lost: dict[str, list[tuple[float, float]]] = {}
    newest: dict[str, Trial] = {}
    for age, sweep in enumerate(former):
        ranked = _ranked(sweep)
        least = float(np.mean(ranked[0].fold_losses)) if ranked else 0.0
        for trial in ranked:
            excess = (float(np.mean(trial.fold_losses)) - least) / max(abs(least), 1e-12)
            lost.setdefault(_likeness(trial), []).append((_DECAY**age, excess))
            newest.setdefault(_likeness(trial), make_trial(trial.family, trial.params))
    if not lost:
        return []
    middle = float(np.median([excess for seen in lost.values() for _, excess in seen]))

    def standing(name: str) -> float:
        seen = [(_POOL_WEIGHT, middle), *lost[name]]
        return sum(w * e for w, e in seen) / sum(w for w, _ in seen)

    return [newest[name] for name in sorted(lost, key=standing)]


def _ranked(sweep: Sweep) -> list[Trial]:
    """Return a sweep's finished trials, the best first, but for those that cannot be members."""
    over = set(sweep.passed_over)
    done = [t for t in sweep.trials if t.status == "done" and t.fold_losses and t.id not in over]
    return sorted(done, key=lambda t: float(np.mean(t.fold_losses)))


def _likeness(trial: Trial) -> str:
    """Name a configuration whatever its learning rate, which follows the budget."""
    return trial_id(trial.family, {k: v for k, v in trial.params.items() if k != "learning_rate"})


def neighbour(done: Sequence[Trial], number: int, *, seed: int) -> Trial | None:
    """Return the `number`-th trial beside the best finished ones: one of them with its numbers shaken.

    The best is chosen most often; None if nothing can be changed.
    """
    return _beside(sorted(done, key=lambda t: fmean(t.fold_losses)), number, seed=seed)


def _beside(best_first: Sequence[Trial], number: int, *, seed: int) -> Trial | None:
    ranked = [t for t in best_first if is_family(t.family) and _changeable(t.params)][:_SHAKEN]
    if not ranked:
        return None
    draw = np.random.default_rng((seed, number))
    base = ranked[min(int(draw.geometric(0.45)) - 1, len(ranked) - 1)]
    params = dict(base.params)
    for name in _changeable(params):
        low, high = _RANGES[name]
        value = float(np.clip(params[name] * np.exp(_STEP * draw.normal()), low, high))
        params[name] = round(value) if isinstance(params[name], int) else float(f"{value:.4g}")
    return make_trial(base.family, params)


def _changeable(params: dict[str, Any]) -> list[str]:
    return [k for k, v in params.items() if k in _RANGES and not isinstance(v, bool) and v]


def _faster(params: dict[str, Any], speed: float) -> dict[str, Any]:
    if "learning_rate" not in params:
        return dict(params)
    rate = max(params["learning_rate"], min(_MAX_RATE, params["learning_rate"] * speed))
    return {**params, "learning_rate": float(f"{rate:.3g}")}
