"""Progress on standard error: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from raywf.core.records import Trial

if TYPE_CHECKING:
    from raywf.loop.pipeline import Listener

_EVERY_S = 2.0


@contextmanager
def progress(budget_s: float) -> Iterator[Listener]:
    """Yield a listener that shows the stages, the search's trials and how much of its time is gone.

    That is of `budget_s` until the search tells what it has: other budgets may be tighter.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
    from rich.progress_bar import ProgressBar

    from raywf.loop.pipeline import Listener

    if not sys.stderr.isatty():
        start = time.monotonic()

        def line(text: str) -> None:
            click.echo(f"[{time.monotonic() - start:6.1f} s] {text}", err=True)

        yield Listener(stage=line, trial=lambda t: line(f"  {_trial_line(t)}"))
        return

    allowed_s = budget_s

    class TimeBar(BarColumn):
        def render(self, task: Task) -> ProgressBar:
            return ProgressBar(total=allowed_s, completed=min(allowed_s, task.elapsed or 0.0), width=40)

    columns = (TextColumn("{task.completed} trials"), TimeBar(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"of at most {allowed_s:.0f} s", total=None, start=False)

        def stage(text: str) -> None:
            bar.console.print(text, highlight=False)
            bar.start_task(task)  # the first is the snapshot's, with which the search begins

        def advance(trial: Trial) -> None:
            bar.console.print(f"  {_trial_line(trial)}", highlight=False)
            bar.advance(task)

        def bounded(left_s: float) -> None:
            nonlocal allowed_s
            allowed_s = (bar.tasks[0].elapsed or 0.0) + left_s
            bar.update(task, description=f"of at most {allowed_s:.0f} s")

        yield Listener(stage=stage, trial=advance, bounded=bounded)


def _trial_line(trial: Trial) -> str:
    score = f"{trial.score:.4f}" if trial.score is not None else "-"
    tail = f"  {trial.error}" if trial.error else ""
    return f"{trial.id:<22} {trial.status:<8} {score}  {trial.seconds:.1f} s{tail}"


@contextmanager
def counted(doing: str, things: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function that is told how many things are done, of how many, and what to say besides.

    Without a terminal it prints a line at most every two seconds, and one for the last.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    start = said = time.monotonic()
    if not sys.stderr.isatty():

        def line(done: int, of: int, more: str) -> None:
            nonlocal said
            now = time.monotonic()
            if done == of or now - said >= _EVERY_S:
                said = now
                click.echo(f"[{now - start:6.1f} s] {doing}: {done} of {of} {things}, {more}", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)

        def advance(done: int, of: int, more: str) -> None:
            bar.update(task, completed=done, total=of, description=f"{doing}: {more}")

        yield advance
