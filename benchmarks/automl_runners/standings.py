"""Who won where: the losses side by side, and the figures that sum them up."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
Round = Mapping[str, Result]  # what each contender made of one table and seed
_TIE = 1e-12


def rounds_of(results: Sequence[Result]) -> list[Round]:
    """Group results by table and seed, in the order in which these first come."""
    found: dict[tuple[str, int], dict[str, Result]] = {}
    for result in results:
        found.setdefault((result["table"], result["seed"]), {})[result["contender"]] = result
    return list(found.values())


def points(ours: Result, theirs: Result) -> float:
    """Return 1 for a win of raywf, a half for a tie, else 0; a failure loses, raywf's to everyone.

    >>> points({"loss": 0.2}, {"loss": 0.3}), points({"loss": None}, {"loss": None})
    (1.0, 0.0)
    """
    if ours["loss"] is None or theirs["loss"] is None:
        return float(ours["loss"] is not None)
    gap = ours["loss"] - theirs["loss"]
    return 0.5 if abs(gap) <= _TIE else float(gap < 0)


def print_losses(results: Sequence[Result], contenders: Sequence[str]) -> None:
    """Print a line for each table and seed: each contender's loss (less is better) and who is best."""
    print(f"{'table':24}{'seed':>5}" + "".join(f"{name:>12}" for name in contenders) + "  best")
    for cells in rounds_of(results):
        first = next(iter(cells.values()))
        shown = "".join(f"{_cell(cells.get(name)):>12}" for name in contenders)
        ranked = [name for name in contenders if name in cells and cells[name]["loss"] is not None]
        best = min(ranked, key=lambda name: cells[name]["loss"], default="-")
        print(f"{first['table']:24}{first['seed']:>5}{shown}  {best}")


def summarise(results: Sequence[Result], contenders: Sequence[str]) -> dict[str, Any]:
    """Return the figures; those without anything to rest on are None."""
    mine = [result for result in results if result["contender"] == "raywf"]
    ended = [result for result in mine if result["loss"] is not None]
    rounds, peers = rounds_of(results), [name for name in contenders if name != "raywf"]
    met = {peer: [(r["raywf"], r[peer]) for r in rounds if {"raywf", peer} <= r.keys()] for peer in peers}
    return {
        "win_rate": {peer: _mean([points(*pair) for pair in pairs]) for peer, pairs in met.items()},
        "mean_relative_loss": {peer: _mean(_relative(pairs)) for peer, pairs in met.items()},
        "row_p50_ms_max": max((result["row_p50_ms"] for result in ended), default=None),
        "rows_per_s_median": _median([result["rows_per_s"] for result in ended]),
        "overrun_max": max((result["overrun"] for result in ended), default=None),
        "failures": len(mine) - len(ended),
        "row_p50_ms": {name: _median(_figures(results, name, "row_p50_ms")) for name in contenders},
    }


def _relative(pairs: Sequence[tuple[Result, Result]]) -> list[float]:
    whole = [(a["loss"], b["loss"]) for a, b in pairs if a["loss"] is not None and b["loss"]]
    return [ours / theirs - 1 for ours, theirs in whole]


def _figures(results: Sequence[Result], contender: str, key: str) -> list[float]:
    return [r[key] for r in results if r["contender"] == contender and r["loss"] is not None]


def _cell(result: Result | None) -> str:
    if result is None:
        return "-"
    return "failed" if result["loss"] is None else f"{result['loss']:.6g}"


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 5) if values else None


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 4) if values else None
