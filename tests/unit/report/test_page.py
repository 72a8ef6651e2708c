"""The report page of a story."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from raywf.core.records import Drift, Evidence, JournalEntry
from raywf.report import plots
from raywf.report.page import write_report
from raywf.report.story import Month, Story
from raywf.testing import make_decision

DAY = datetime(2013, 3, 1, tzinfo=UTC)


def evidence(version, start):
    """Return one window of forty labelled rows."""
    return Evidence(
        version=version,
        start=start,
        end=start + timedelta(days=1),
        rows=50,
        labelled=40,
        loss_sum=8.0,
        loss_squares=2.0,
        drift=(Drift(column="temp", psi=0.3, rows=50, missing=0.0),),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the text of a small story's page."""
    decision = make_decision("d1", window="x", reasons=("a <b> rose",), time=DAY)
    entry = JournalEntry(
        decision_id="d1", stage="promoted", time=DAY, wall_time=DAY, figures={"version": "2"}
    )
    story = Story(
        title="A <year>",
        metric="roc_auc",
        months=(Month(start=DAY, rows=10, label_share=0.2, static=0.6, live=0.7, versions=("1", "2")),),
        decisions=(decision,),
        entries=(entry,),
        versions=(),
        evidence=(evidence("1", DAY), evidence("2", DAY + timedelta(days=1))),
        latency=((0.1, 0.002), (0.4, 0.003), (1.2, 0.004)),
        swaps=(1.0,),
        summary={"swaps": 1},
    )
    return write_report(tmp_path_factory.mktemp("page") / "report.html", story).read_text()


def test_the_page_needs_no_network(page):
    """Four plots are inline SVG, and nothing is loaded from elsewhere."""
    assert page.count("<svg") == 4
    assert "<script" not in page
    assert 'src="http' not in page


def test_what_is_estimated_is_drawn_too():
    """A window without labels has its point, with a bar."""
    waiting = replace(evidence("1", DAY), labelled=0, loss_sum=0.0, estimated_loss=0.2, estimated_error=0.01)
    story = Story(
        title="t", metric="rmse", months=(), decisions=(), entries=(), versions=(), evidence=(waiting,)
    )
    bare = replace(story, evidence=(replace(waiting, estimated_loss=None),))
    assert len(plots.loss(story)) > len(plots.loss(bare)) + 500


def test_text_from_records_is_escaped(page):
    """A reason or title with markup is shown, not interpreted."""
    assert "A &lt;year&gt;" in page
    assert "a &lt;b&gt; rose" in page


def test_an_empty_story_still_makes_a_page(tmp_path):
    """A run that ended before any traffic has a page too."""
    empty = Story(title="none", metric="rmse", months=(), decisions=(), entries=(), versions=(), evidence=())

    assert "none" in write_report(tmp_path / "r.html", empty).read_text()
