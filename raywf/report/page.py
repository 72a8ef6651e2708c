"""A story as one HTML page that needs no network."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raywf.report import plots
from raywf.report.story import Story


def write_report(path: Path, story: Story) -> Path:
    """Write the page; plots are inline SVG, all text is escaped."""
    loader = PackageLoader("raywf.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    figures = {
        # the plots are our own SVG; matplotlib escapes the text in them
        name: Markup(draw(story))  # noqa: S704
        for name, draw in (
            ("quality", plots.quality),
            ("loss", plots.loss),
            ("latency", plots.latency),
            ("drift", plots.drift),
        )
    }
    path.write_text(environment.get_template("page.html").render(story=story, **figures), encoding="utf-8")
    return path
