"""Results have stdout for themselves, whatever libraries print there."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from raywf.cli.options import show, workflow_options
from raywf.core.settings import Workflow

SETTINGS = "name: churn\ntask: binary\nspine: {path: t.csv, label: y}\n"


@click.command()
@workflow_options
def chatty(workflow: Workflow, *, as_json: bool) -> None:
    """Have something printed on the way, as Ray does where a worker died."""
    print("(raylet) A worker died")
    show({"name": workflow.name}, as_json=as_json, lines=["done"])


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "workflow.yaml"
    path.write_text(SETTINGS)
    return str(path)


def test_json_is_alone_on_stdout(file: str) -> None:
    """Whoever reads it has nothing else to take away."""
    done = CliRunner().invoke(chatty, ["-f", file, "--json"])
    assert json.loads(done.stdout) == {"name": "churn"}
    assert done.stderr == "(raylet) A worker died\n"


def test_lines_are_alone_on_stdout(file: str) -> None:
    """And what was said on the way is on stderr."""
    done = CliRunner().invoke(chatty, ["-f", file])
    assert (done.stdout, done.stderr) == ("done\n", "(raylet) A worker died\n")
