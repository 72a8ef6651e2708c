"""A backtest as a table and as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from raywf.core.duration import format_duration
from raywf.core.errors import SettingsError
from raywf.loop.backtest.run import Backtest, Delay
from raywf.loop.backtest.summary import summarise
from raywf.loop.backtest.tune import Tuned
from raywf.report.figure import MARK, draw_figure, svg_text

TUNED_HEADS = ("policy", "head loss", "head CPU-s", "tail loss", "tail CPU-s", "chosen")
_HEADS = ("gain", "retrainings", "promoted", "looks", "in vain", "late", "CPU-s", "USD")


def heads_of_backtest(made: Backtest) -> list[str]:
    """Return the names of the columns; there is one of values where it is said what answers are worth."""
    return ["policy", made.metric, *_HEADS, *(["value"] if _has_values(made) else [])]


def rows_of_backtest(made: Backtest) -> list[list[str]]:
    """Return a row a policy, below `heads_of_backtest`."""
    has_values = _has_values(made)
    return [
        [
            s.policy,
            "-" if s.metric is None else f"{s.metric:.4f}",
            "-" if s.gain is None else f"{s.gain:.0%}",
            *map(str, (s.retrainings, s.promoted, s.looks, s.vain)),
            _late(s.late),
            f"{s.cpu_s:.0f}",
            f"{s.cost_usd:.4f}",
            *([] if not has_values else ["-" if s.value is None else f"{s.value:.4g}"]),
        ]
        for s in summarise(made)
    ]


def rows_of_tuned(tuned: Sequence[Tuned]) -> list[list[str]]:
    """Return a row a setting that was tried, below `TUNED_HEADS`."""
    return [
        [
            t.policy,
            f"{t.head_loss:.4f}",
            f"{t.head_cpu_s:.0f}",
            "-" if t.tail_loss is None else f"{t.tail_loss:.4f}",
            f"{t.tail_cpu_s:.0f}",
            "*" * t.chosen,
        ]
        for t in tuned
    ]


def tuned_warning(tuned: Sequence[Tuned]) -> str:
    """Say which figures of settings that were tried are to be believed."""
    return (
        f"chosen on the head, of {len(tuned)} settings: that flatters it; believe the tail, which had no say"
    )


def write_backtest(path: Path, made: Backtest, tuned: Sequence[Tuned] = ()) -> Path:
    """Write the page: the metric over time by policy, the tables, each policy's events.

    Raises:
        SettingsError: if the file cannot be written.
    """
    loader = PackageLoader("raywf.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("backtest.html").render(
        made=made,
        figure=Markup(_over_time(made)),  # noqa: S704 our own SVG; matplotlib escapes the text in it
        heads=heads_of_backtest(made),
        rows=rows_of_backtest(made),
        tuned_heads=TUNED_HEADS,
        tuned_rows=rows_of_tuned(tuned),
        tuned_warning=tuned_warning(tuned),
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        raise SettingsError(f"cannot write {path}: {err.strerror}; name another --report file") from err
    return path


def _over_time(made: Backtest) -> str:
    """Return the metric of each step; marks are new champions."""
    sign = _sign(made)
    with draw_figure(3.8) as (figure, axes):
        for course in made.courses:
            told = [step for step in course.steps if step.loss is not None]
            (line,) = axes.plot(
                [step.start for step in told],
                [sign * (step.loss or 0.0) for step in told],
                drawstyle="steps-post",
                linewidth=1.4,
                label=course.policy,
            )
            swaps = [e.settled for e in course.events if e.stage == "promoted"]
            new = [step for step in told if any(step.start <= at < step.end for at in swaps)]
            axes.plot(
                [s.start for s in new],
                [sign * (s.loss or 0.0) for s in new],
                "o",
                markersize=3,
                color=line.get_color(),
                markeredgecolor=MARK,
                markeredgewidth=0.5,
            )
        axes.set_ylabel(made.metric)
        axes.legend(frameon=False, fontsize=8)
        return svg_text(figure)


def _late(delay: Delay | None) -> str:
    """Say how late a policy came after the oracle's moments, and how many it missed."""
    if delay is None:
        return "-"
    missed = f"{delay.missed} of {delay.moments} missed"
    if delay.median is None:
        return missed
    return format_duration(delay.median) + (f", {missed}" if delay.missed else "")


def _has_values(made: Backtest) -> bool:
    return any(course.value is not None for course in made.courses)


def _sign(made: Backtest) -> float:
    return -1.0 if made.greater_is_better else 1.0
