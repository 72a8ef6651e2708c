"""The page of an explanation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from raywf.core.errors import SettingsError
from raywf.core.explanation import (
    Explanation,
    Importance,
    ImportanceReport,
    LearningPoint,
    SearchProgress,
    Slice,
    SliceReport,
    Standing,
)
from raywf.core.records import Member, Sweep, Trial
from raywf.report.explanation import write_explanation

ODD = "a $x$ <b>_{"


def make(**changes: object) -> Explanation:
    """Return an explanation in which every name is odd."""
    params = ({"rate": 0.1, "deep": True}, {"rate": 0.2}, {"rate": 0.3, "deep": [8, 4]})
    trials = tuple(
        Trial(id=f"t{i}", family="lightgbm", params=p, status="done", fold_losses=(0.5, 0.4), score=0.45)
        for i, p in enumerate(params)
    )
    sweep = Sweep(
        id="s1",
        snapshot_id="x1",
        metric="log_loss",
        greater_is_better=False,
        trials=trials,
        members=(Member(trial_id="t0", family="lightgbm", params={ODD: ODD}, rounds=3, weight=1.0),),
        score=0.45,
        calibrated=False,
        budget_s=10,
        spent_s=9,
        cpu_s=18,
    )
    standing = Standing(
        trial_id="t0",
        family="lightgbm",
        status="done",
        folds=2,
        score=0.45,
        margin=0.1,
        behind=0.0,
        behind_margin=None,
        weight=1.0,
        row_us=10,
        seconds=2,
    )
    found = Slice(
        column=ODD, value=ODD, rows=40, score=None, loss=0.2, margin=0.1, excess=0.1, shrunk=0.05, q=0.01
    )
    made = Explanation(
        workflow=ODD,
        version="1",
        sweep=sweep,
        standings=(standing, dataclasses.replace(standing, trial_id="t1", behind=None, margin=None)),
        parameters=(),
        slices=SliceReport(rows=100, score=0.45, loss=0.1, too_small=2, slices=(found,)),
        importance=ImportanceReport(
            rows=100,
            source="folds",
            share=0.8,
            score=0.45,
            repeats=5,
            columns=(Importance(columns=(ODD,), drop=0.1, sd=0.01),),
            groups=(Importance(columns=(ODD, "b"), drop=0.2, sd=0.01),),
        ),
        progress=(SearchProgress(trials=1, seconds=1, best=0.5, ensemble=0.45),),
        learning=(LearningPoint(rows=100, score=0.5, seconds=0.1),),
        notes=(ODD,),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


BARE: dict[str, Any] = {"slices": None, "importance": None, "progress": (), "learning": (), "version": None}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every part."""
    return write_explanation(tmp_path_factory.mktemp("page") / "r.html", make()).read_text()


def test_every_part_has_its_plot(page: str) -> None:
    """Six of them inline, nothing from elsewhere."""
    assert page.count("<svg") == 6
    assert "<script" not in page
    assert 'src="http' not in page
    assert "80% of the ensemble" in page


def test_text_is_escaped(page: str) -> None:
    """In the page and in its plots; dollars are no formula."""
    assert "<b>_{" not in page
    assert page.count("a $x$ &lt;b&gt;_{") >= 8


def test_same_explanation_same_page(page: str, tmp_path: Path) -> None:
    """Written again, it does not differ."""
    assert write_explanation(tmp_path / "r.html", make()).read_text() == page


def test_parts_may_be_missing(tmp_path: Path) -> None:
    """Only the leaderboard is always there."""
    page = write_explanation(tmp_path / "r.html", make(**BARE)).read_text()
    assert "Leaderboard" in page
    assert page.count("<svg") == 2
    assert "Importance</h2>" not in page


def test_file_that_cannot_be_written(tmp_path: Path) -> None:
    """One line that names it."""
    with pytest.raises(SettingsError, match=r"cannot write .*nowhere.*: No such file or directory"):
        write_explanation(tmp_path / "nowhere" / "r.html", make(**BARE))
