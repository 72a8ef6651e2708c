"""What a terminal shows of a search that runs."""

from __future__ import annotations

import io

import pytest

from raywf.cli.progress import progress


class Terminal(io.StringIO):
    """Keeps what a terminal is sent."""

    def isatty(self) -> bool:
        return True


def test_the_bar_is_of_the_tightest_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Money may end a search long before its seconds do, which it tells once it knows the CPUs."""
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    with progress(600.0) as listener:
        listener.stage("snapshot")
        assert "of at most 600 s" in shown.getvalue()
        listener.bounded(90.0)
    assert "of at most 90 s" in shown.getvalue()
