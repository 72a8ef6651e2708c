"""All families by name."""

from __future__ import annotations

import importlib
import importlib.util

from raywf.core.errors import SearchError, did_you_mean
from raywf.models.family import Family

_PLACES = {
    "prior": ("raywf.models.prior", "PriorFamily"),
    "lightgbm": ("raywf.models.lightgbm", "LightGBMFamily"),
    "xgboost": ("raywf.models.xgboost", "XGBoostFamily"),
    "catboost": ("raywf.models.catboost", "CatBoostFamily"),
    "linear": ("raywf.models.linear", "LinearFamily"),
    "extratrees": ("raywf.models.extratrees", "ExtraTreesFamily"),
    "torch": ("raywf.models.torchnet", "TorchNetFamily"),
}


def is_family(name: str) -> bool:
    """Return whether raywf has a family of that name."""
    return name in _PLACES


def is_installed(name: str) -> bool:
    """Return whether a family's library is here; only CatBoost's may be missing."""
    return name != "catboost" or importlib.util.find_spec("catboost") is not None


def family(name: str) -> Family:
    """Return a family; its library is imported only now, so that a server loads what its bundle needs.

    Raises:
        SearchError: if there is no family of that name.
    """
    if name not in _PLACES:
        raise SearchError(f"unknown model family {name!r}{did_you_mean(name, _PLACES)}")
    if name == "catboost" and not is_installed(name):
        raise SearchError("the family 'catboost' needs its package: pip install 'raywf[catboost]'")
    module, kind = _PLACES[name]
    found: Family = getattr(importlib.import_module(module), kind)()
    return found
