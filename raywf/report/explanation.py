"""An explanation as one HTML page that needs no network."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raywf.core.errors import SettingsError
from raywf.core.explanation import Explanation
from raywf.report import explain_plots as plots
from raywf.report.words import rows_of


def write_explanation(path: Path, made: Explanation) -> Path:
    """Write the page; plots are inline SVG, all text is escaped.

    Raises:
        SettingsError: if the file cannot be written.
    """
    loader = PackageLoader("raywf.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    figures = {
        # the plots are our own SVG; matplotlib escapes the text in them
        name: Markup(draw(made))  # noqa: S704
        for name, draw, there in (
            ("behind", plots.behind, made.standings),
            ("slices", plots.slices, made.slices and made.slices.slices),
            ("importance", plots.importance, made.importance),
            ("progress", plots.progress, made.progress),
            ("learning", plots.learning, made.learning),
        )
        if there
    }
    parallel = [(family, Markup(svg)) for family, svg in plots.parallel(made)]  # noqa: S704 as above
    page = environment.get_template("explain.html")
    text = page.render(made=made, figures=figures, parallel=parallel, rows_of=rows_of)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        raise SettingsError(f"cannot write {path}: {err.strerror}; name another --report file") from err
    return path
