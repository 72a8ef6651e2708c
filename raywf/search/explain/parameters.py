"""Which parameters the better trials had."""

from __future__ import annotations

import json
from typing import Any

from raywf.core.explanation import ParameterRange
from raywf.core.records import Sweep, Trial

_LEAST_TRIALS = 3
_UNSET = "unset"


def parameter_ranges(sweep: Sweep) -> tuple[ParameterRange, ...]:
    """Return the values of each parameter that differs among a family's finished trials.

    Families with fewer than three of them are left out. The best quarter is at least one trial.
    """
    made = []
    done = sorted((t for t in sweep.trials if t.status == "done"), key=_mean)
    for family in dict.fromkeys(t.family for t in done):
        mine = [t for t in done if t.family == family]
        names = dict.fromkeys(name for t in mine for name in t.params)
        for name in names if len(mine) >= _LEAST_TRIALS else ():
            values = _values(mine, name)
            if len(values) > 1:
                best = _values(mine[: -(-len(mine) // 4)], name)
                made.append(
                    ParameterRange(family=family, name=name, trials=len(mine), values=values, best=best)
                )
    return tuple(made)


def _mean(trial: Trial) -> float:
    return sum(trial.fold_losses) / len(trial.fold_losses)


def _values(trials: list[Trial], name: str) -> tuple[float | str, ...]:
    found = {_plain(t.params[name]) if name in t.params else _UNSET for t in trials}
    numbers = sorted(v for v in found if isinstance(v, float))
    return (*numbers, *sorted(v for v in found if isinstance(v, str)))


def _plain(value: Any) -> float | str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str) else json.dumps(value)
