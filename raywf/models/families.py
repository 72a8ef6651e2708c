"""All families by name."""

from __future__ import annotations

import importlib
import importlib.util

from raywf.core.errors import SearchError, did_you_mean
from raywf.models.family import Family, Traits

_PLACES = {
    "prior": ("raywf.models.prior", "PriorFamily"),
    "lightgbm": ("raywf.models.lightgbm", "LightGBMFamily"),
    "xgboost": ("raywf.models.xgboost", "XGBoostFamily"),
    "catboost": ("raywf.models.catboost", "CatBoostFamily"),
    "linear": ("raywf.models.linear", "LinearFamily"),
    "extratrees": ("raywf.models.extratrees", "ExtraTreesFamily"),
    "torch": ("raywf.models.torchnet", "TorchNetFamily"),
}
_TRAITS = {
    "prior": Traits(merges=True),
    "lightgbm": Traits(per_round=1.0, merges=True, widens=True),
    "xgboost": Traits(per_round=1.3, merges=True, widens=True),
    # three a round, and about so many times more rounds
    "catboost": Traits(per_round=8.0, merges=True, widens=True),
    "linear": Traits(whole=0.3),
    "extratrees": Traits(whole=1.2, merges=True, widens=True),
    "torch": Traits(whole=5.0, merges=True, bag=0.25),
}


def is_family(name: str) -> bool:
    """Return whether raywf has a family of that name."""
    return name in _PLACES


def traits(name: str) -> Traits:
    """Return what is known of a family; of a user's own nothing is."""
    return _TRAITS.get(name, Traits())


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
    if not _TRAITS[name].widens:
        return found
    widening = importlib.import_module("raywf.models.widening")
    widened: Family = widening.WideningFamily(found)
    return widened
