"""Figures as SVG text: drawn without a display, the same each time, column names taken as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STATIC, LIVE, MARK = "#9aa3ad", "#0b6e99", "#c2410c"
_SETTINGS = {"svg.hashsalt": "raywf", "svg.fonttype": "none", "text.parse_math": False}


@contextmanager
def draw_figure(height: float = 3.2) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure with its axes; what is drawn and written within has raywf's settings."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(8.5, height), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        yield figure, axes


def svg_text(figure: Figure) -> str:
    """Return the figure as an SVG element."""
    buffer = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
