"""`raywf backtest`: what is wrong is told before Ray starts or a table is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from click.testing import CliRunner

from raywf.cli.main import cli


@pytest.mark.parametrize(
    ("policy", "said"), [("nonsense", "nonsense"), ("every fortnight", "fortnight"), ("raywf lok=7d", "lok")]
)
def test_what_is_no_policy_is_refused_at_once(policy: str, said: str, tmp_path: Path) -> None:
    """The table need not even be there."""
    (tmp_path / "workflow.yaml").write_text(
        "name: w\ntask: binary\nspine: {path: gone.csv, label: y, event_time: t, label_time: k}\n"
    )
    ran = CliRunner().invoke(cli, ["backtest", "-f", str(tmp_path / "workflow.yaml"), "--policy", policy])
    assert ran.exit_code != 0
    assert said in str(ran.exception or ran.output)
    assert not ray.is_initialized()
