"""Plots of a story as SVG text, drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raywf.core.records import Evidence
from raywf.report.figure import LIVE, MARK, STATIC, draw_figure, svg_text
from raywf.report.story import Story


def quality(story: Story) -> str:
    """Return the metric by month, the first model beside the live system."""
    with draw_figure() as (figure, axes):
        names = [f"{m.start:%b}" for m in story.months]
        axes.plot(
            names, [m.static for m in story.months], "o--", color=STATIC, label="first model, never replaced"
        )
        axes.plot(names, [m.live for m in story.months], "o-", color=LIVE, label="live system")
        axes.set_ylabel(story.metric)
        axes.legend(frameon=False)
    return svg_text(figure)


def loss(story: Story) -> str:
    """Return the mean bounded loss by window, with each swap; hollow where it is estimated without labels."""
    with draw_figure() as (figure, axes):
        versions = sorted({e.version for e in story.evidence}, key=int)
        for i, version in enumerate(versions):
            mine = [e for e in story.evidence if e.version == version and e.labelled >= 20]
            if mine:
                means = [e.loss_sum / e.labelled for e in mine]
                color = f"C{i % 10}"
                axes.plot([e.start for e in mine], means, ".-", color=color, label=f"version {version}")
            _estimated_losses(axes, [e for e in story.evidence if e.version == version], f"C{i % 10}")
        for version in versions[1:]:
            begin = min(e.start for e in story.evidence if e.version == version)
            axes.axvline(begin, color=MARK, linewidth=1, linestyle=":")
        axes.set_ylabel("bounded loss")
        axes.tick_params(axis="x", rotation=30)
        if versions:
            axes.legend(frameon=False, ncols=4, fontsize=8)
    return svg_text(figure)


def _estimated_losses(axes: Any, windows: Sequence[Evidence], color: str) -> None:
    """Draw what windows without labels are expected to lose, with two standard errors."""
    for e in windows:
        if e.labelled < 20 and e.estimated_loss is not None:
            bar = 2 * e.estimated_error
            axes.errorbar(e.start, e.estimated_loss, bar, fmt="o", color=color, mfc="none", ms=4, lw=1)


def latency(story: Story) -> str:
    """Return p50 and p99 of the request time by second, with each swap."""
    with draw_figure() as (figure, axes):
        points = np.asarray(story.latency).reshape(-1, 2)
        seconds = points[:, 0].astype(int)
        for share, color in ((0.5, STATIC), (0.99, LIVE)):
            values = [1000 * np.quantile(points[seconds == s, 1], share) for s in np.unique(seconds)]
            axes.plot(np.unique(seconds), values, color=color, label=f"p{100 * share:.0f}")
        for swap in story.swaps:
            axes.axvline(swap, color=MARK, linewidth=1, linestyle=":")
        axes.set_xlabel("seconds of traffic; dotted: swaps")
        axes.set_ylabel("ms")
        axes.set_yscale("log")
        axes.legend(frameon=False)
    return svg_text(figure)


def drift(story: Story) -> str:
    """Return the population stability index of the features that moved most, by window."""
    peak: dict[str, float] = {}
    for evidence in story.evidence:
        for one in evidence.drift:
            peak[one.column] = max(peak.get(one.column, 0), one.psi)
    columns = sorted(peak, key=lambda c: -peak[c])[:12]
    with draw_figure() as (figure, axes):
        windows = sorted({e.start for e in story.evidence})
        grid = np.full((len(columns), len(windows)), np.nan)
        for evidence in story.evidence:
            for one in evidence.drift:
                if one.column in columns:
                    grid[columns.index(one.column), windows.index(evidence.start)] = one.psi
        if columns:
            image = axes.imshow(grid, aspect="auto", cmap="YlOrBr", vmin=0, vmax=2)
            axes.set_yticks(range(len(columns)), columns, fontsize=8)
            places = range(0, len(windows), max(1, len(windows) // 8))
            axes.set_xticks(list(places), [f"{windows[i]:%b %d}" for i in places], fontsize=8)
            figure.colorbar(image, label="PSI against the serving version's snapshot")
    return svg_text(figure)
