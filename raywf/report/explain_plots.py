"""Plots of an explanation as SVG text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from raywf.core.explanation import Explanation, Importance, Slice
from raywf.core.records import Trial
from raywf.report.figure import LIVE, MARK, STATIC, draw_figure, svg_text
from raywf.report.words import names_of

_TOP = 20
_LEAST_TRIALS = 3
_WIDEST = 46
_FAR = 20
_TICK: dict[str, Any] = {
    "fontsize": 7,
    "bbox": {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
}


def behind(made: Explanation) -> str:
    """Return how far each trial lies behind the best, with intervals; members stand out."""
    shown = [s for s in made.standings if s.behind is not None][:_TOP]
    with draw_figure(0.9 + 0.22 * len(shown)) as (figure, axes):
        for place, one in enumerate(shown):
            color = LIVE if one.weight else STATIC
            axes.errorbar(one.behind, place, xerr=one.behind_margin or 0, fmt="o", color=color, capsize=2)
        axes.axvline(0, color=MARK, linewidth=1, linestyle=":")
        far = max((s.behind or 0 for s in shown), default=0)
        nearest = [s.behind_margin for s in shown if s.behind_margin is not None][:3]
        axes.set_xlim(-max([far / 4, *nearest]) * 1.1 - 1e-9, far * 1.25 + max(nearest, default=0) + 1e-9)
        _name_rows(axes, [s.trial_id for s in shown])
        axes.set_xlabel(f"{made.sweep.metric} behind the best, with 95 % intervals; blue: in the ensemble")
        return svg_text(figure)


def slices(made: Explanation) -> str:
    """Return the loss of the worst slices with intervals, beside that of all rows."""
    report = made.slices
    shown: Sequence[Slice] = report.slices[:_TOP] if report else ()
    with draw_figure(0.9 + 0.22 * len(shown)) as (figure, axes):
        for place, one in enumerate(shown):
            color = MARK if one.q < 0.05 else STATIC
            axes.errorbar(one.loss, place, xerr=one.margin, fmt="o", color=color, capsize=2)
        if report is not None:
            axes.axvline(report.loss, color=LIVE, linewidth=1, linestyle=":")
        _name_rows(axes, [f"{s.column}: {s.value} ({s.rows:,})" for s in shown])
        axes.set_xlabel("bounded loss with 95 % intervals; dotted: all rows; red: worse than the rest")
        return svg_text(figure)


def importance(made: Explanation) -> str:
    """Return the most important columns, and the groups, as bars with deviations."""
    report = made.importance
    shown: list[Importance] = [*report.columns[:_TOP], *report.groups[:5]] if report else []
    with draw_figure(0.9 + 0.22 * len(shown)) as (figure, axes):
        for place, one in enumerate(shown):
            color = LIVE if len(one.columns) == 1 else STATIC
            axes.barh(place, one.drop, xerr=one.sd, color=color, height=0.7, error_kw={"linewidth": 1})
        _name_rows(axes, [names_of(i) for i in shown])
        axes.set_xlabel(f"{made.sweep.metric} lost when shuffled; grey: columns shuffled together")
        return svg_text(figure)


def progress(made: Explanation) -> str:
    """Return the best trial's and the ensemble's score by seconds of fits."""
    with draw_figure() as (figure, axes):
        seconds = [p.seconds for p in made.progress]
        axes.plot(seconds, [p.best for p in made.progress], "o--", color=STATIC, label="best trial")
        axes.plot(seconds, [p.ensemble for p in made.progress], "o-", color=LIVE, label="ensemble")
        axes.set_xlabel("seconds of the trials' fits, all workers together")
        axes.set_ylabel(made.sweep.metric)
        axes.legend(frameon=False)
        return svg_text(figure)


def learning(made: Explanation) -> str:
    """Return what the heaviest member scores by rows."""
    with draw_figure(2.6) as (figure, axes):
        rows = [p.rows for p in made.learning]
        axes.plot(rows, [p.score for p in made.learning], "o-", color=LIVE)
        axes.set_xscale("log", base=2)
        axes.set_xticks(rows, [f"{r:,}" for r in rows])
        axes.minorticks_off()
        axes.set_xlabel("rows fitted")
        axes.set_ylabel(made.sweep.metric)
        return svg_text(figure)


def parallel(made: Explanation) -> list[tuple[str, str]]:
    """Return for each family with several finished trials its name and parallel coordinates: an axis a
    parameter that differs, the last the score; a line a trial, the darker the better.
    """
    done = [t for t in made.sweep.trials if t.status == "done" and t.score is not None]
    drawn = []
    for family in dict.fromkeys(t.family for t in done):
        trials = [t for t in done if t.family == family]
        names = [n for n in dict.fromkeys(k for t in trials for k in t.params) if _differs(trials, n)]
        if len(trials) >= _LEAST_TRIALS and names:
            drawn.append((family, _parallel(made, trials, names)))
    return drawn


def _parallel(made: Explanation, trials: list[Trial], names: list[str]) -> str:
    columns = [_axis([t.params.get(n) for t in trials]) for n in names]
    columns.append(_axis([t.score for t in trials]))
    heights = np.column_stack([c for c, _ in columns])
    losses = np.array([np.mean(t.fold_losses) for t in trials])
    rank = np.argsort(np.argsort(losses)) / max(1, len(trials) - 1)
    with draw_figure(3.4) as (figure, axes):
        colors = mpl.colormaps["viridis"](0.9 * rank)
        for i in np.argsort(-rank):
            axes.plot(heights[i], color=colors[i], linewidth=2.2 if rank[i] < 0.25 else 1.0, marker=".")
        for place, (_, ticks) in enumerate(columns):
            axes.axvline(place, color="#d1d5db", linewidth=1, zorder=0)
            for height, text in ticks:
                axes.annotate(text, (place, height), xytext=(4, 0), textcoords="offset points", **_TICK)
        labels = [n.replace("_", "_\n") if len(n) > 10 else n for n in names]
        axes.set_xticks(range(len(columns)), [*labels, made.sweep.metric], fontsize=8)
        axes.set_xlim(-0.1, len(columns) - 0.6)
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)
        return svg_text(figure)


def _axis(values: Sequence[Any]) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Return each value's height and the ticks: numbers from 0 to 1, other values and unset ones below."""
    numbers = np.array(sorted({float(v) for v in values if _is_number(v)}))
    low, high = (numbers[0], numbers[-1]) if len(numbers) else (0.0, 0.0)
    others = sorted({_text(v) for v in values if not _is_number(v)})
    step = 0.12 if len(numbers) else 1 / max(1, len(others) - 1)
    start = -step * len(others) if len(numbers) else 0.0
    place = {text: start + step * i for i, text in enumerate(others)}
    made = [_height(float(v), low, high) if _is_number(v) else place[_text(v)] for v in values]
    ticks = [(h, text) for text, h in place.items()]
    if len(numbers):
        ticks += [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")] if high > low else [(0.5, f"{low:.4g}")]
    return np.array(made), ticks


def _height(value: float, low: float, high: float) -> float:
    """Return where a value lies between two others; by its logarithm where they are far apart."""
    if low == high:
        return 0.5
    if low > 0 and high > _FAR * low:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)


def _differs(trials: list[Trial], name: str) -> bool:
    return len({_text(t.params.get(name)) for t in trials}) > 1


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return "unset" if value is None else value if isinstance(value, str) else json.dumps(value)


def _name_rows(axes: Any, names: list[str]) -> None:
    shown = [n if len(n) <= _WIDEST else n[: _WIDEST - 1] + "…" for n in names]
    axes.set_yticks(range(len(names)), shown, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
