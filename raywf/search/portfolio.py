"""The ordered configurations that a search tries first: strong and cheap ones before the rest.

Values are starting points published under Apache-2.0 by pytabkit ("TD" defaults, arXiv 2407.04491) and
AutoGluon's 2025 portfolio, with learning rates raised for budgets of seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raywf.core.ids import stable_id
from raywf.core.records import Sweep, Trial
from raywf.core.settings import SearchSettings

_FOREST_MAX_ROWS = 60_000

_CONFIGURATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "lightgbm",
        {
            "learning_rate": 0.05,
            "num_leaves": 50,
            "min_data_in_leaf": 40,
            "bagging_fraction": 0.75,
            "bagging_freq": 1,
            "feature_fraction": 0.8,
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
        },
    ),
    ("linear", {}),
    (
        "lightgbm",
        {
            "learning_rate": 0.05,
            "num_leaves": 39,
            "min_data_in_leaf": 5,
            "extra_trees": True,
            "feature_fraction": 0.46,
            "lambda_l1": 0.24,
            "lambda_l2": 0.36,
        },
    ),
    (
        "lightgbm",
        {"learning_rate": 0.1, "num_leaves": 8, "feature_fraction": 0.9, "lambda_l1": 1.0, "lambda_l2": 1.0},
    ),
    ("torch", {"hidden": [128, 64], "epochs": 12, "lr": 0.002}),
    ("extratrees", {"n_estimators": 100, "min_samples_leaf": 5}),
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
    ("linear", {"C": 0.02, "alpha": 30.0}),
    ("extratrees", {"n_estimators": 150, "min_samples_leaf": 2, "max_features": 0.5}),
    ("torch", {"hidden": [256], "epochs": 16, "lr": 0.004, "dropout": 0.3}),
)


def trial_id(family: str, params: dict[str, Any]) -> str:
    """Return a configuration's id; the same configuration has the same id in every sweep.

    >>> trial_id("linear", {}) == trial_id("linear", {})
    True
    """
    return f"{family}-{stable_id(family, params, length=8)}"


def plan_trials(settings: SearchSettings, *, rows: int, warm: Sweep | None = None) -> tuple[Trial, ...]:
    """Return the trials to run in order: the former sweep's members, then the portfolio."""
    wanted: list[tuple[str, dict[str, Any]]] = []
    if warm is not None:
        ranked = sorted(warm.members, key=lambda m: -m.weight)
        wanted += [(m.family, m.params) for m in ranked if m.family in settings.families]
    wanted += [
        (family, params)
        for family, params in _CONFIGURATIONS
        if family in settings.families and (family != "extratrees" or rows <= _FOREST_MAX_ROWS)
    ]
    unique = {trial_id(family, params): (family, params) for family, params in wanted}
    return _pending(list(unique.items())[: settings.trials])


def _pending(chosen: Iterable[tuple[str, tuple[str, dict[str, Any]]]]) -> tuple[Trial, ...]:
    return tuple(Trial(id=i, family=f, params=p, status="pending") for i, (f, p) in chosen)
