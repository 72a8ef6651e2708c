"""A client that a generator makes of the OpenAPI document, for each task, used against the endpoint."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Client, make_workflow

from raywf.core.records import Bundle
from raywf.outcomes import LogReader
from raywf.serving.app import Endpoint
from raywf.testing import SMALL_ROW, FolderSource

GENERATOR = Path(sys.executable).with_name("openapi-python-client")


class Generated:
    """The client's package, and calls of its operations."""

    def __init__(self, endpoint: Endpoint, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        document = folder / "openapi.json"
        document.write_text(Client(endpoint).get("/openapi.json").text)
        made = [GENERATOR, "generate", "--meta", "none", "--path", document, "--output-path", folder / name]
        path = f"{GENERATOR.parent}:/usr/bin:/bin"  # it calls ruff
        told = subprocess.run(made, capture_output=True, text=True, check=True, env={"PATH": path}).stdout
        assert "Unable to process" not in told, told
        monkeypatch.syspath_prepend(folder)
        self.endpoint, self.name = endpoint, name
        self.models: Any = importlib.import_module(f"{name}.models")
        self.client = importlib.import_module(f"{name}.client").Client(base_url="http://test")

    def call(self, operation: str, *args: Any, **more: Any) -> Any:
        """Return what the operation answers, as a model of the client's own."""
        module = importlib.import_module(f"{self.name}.api.default.{operation}")

        async def ask() -> Any:
            transport = httpx.ASGITransport(app=Client(self.endpoint)._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as inner:
                self.client.set_async_httpx_client(inner)
                return await module.asyncio(*args, client=self.client, **more)

        return asyncio.run(ask())


@pytest.mark.parametrize("task", ["one", "multiclass", "regression"])
def test_it_works(
    task: str, bundles: dict[str, Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row, many, by column and explained; an outcome; a refusal; what became of a prediction."""
    source = FolderSource(str(tmp_path / "registry"))
    source.add(bundles[task], version="1")
    source.move("champion", "1")
    workflow = make_workflow(tmp_path / "root", "binary" if task == "one" else task)
    ours = Generated(Endpoint(workflow, source), tmp_path, f"client_{task}", monkeypatch)
    models, row = ours.models, json.loads(json.dumps(dict(SMALL_ROW), default=str))

    features = models.Features.from_dict(row)
    answer = ours.call("predict", body=models.OneRow(features=features, id="a", explain=True))
    assert answer.model_version == "1"
    assert answer.predictions[0].id == "a"
    assert set(answer.predictions[0].explanation.contributions.to_dict()) == set(row)

    many = models.ManyRows(rows=[models.Row(features=features, id=name) for name in "bc"])
    assert [p.id for p in ours.call("predict", body=many).predictions] == ["b", "c"]
    columns = models.FeatureColumns.from_dict({name: [value] * 3 for name, value in row.items()})
    by_column = ours.call("predict", body=models.RowsByColumn(columns=columns))
    assert len(by_column.columns.to_dict()["id"]) == 3

    label = 12.5 if task == "regression" else bundles[task].classes[0]
    outcome = models.Outcome.from_dict({"id": "a", "label": label})
    assert ours.call("outcomes", body=outcome).accepted == 1
    past = ours.call("prediction", id="a")
    assert past.outcome.label == label
    assert past.features.to_dict() == row

    wrong = models.OneRow.from_dict({"features": row | {"distance": "far"}})
    refused = ours.call("predict", body=wrong)
    assert "distance" in refused.problems[0].field
    assert ours.call("model").version == "1"
    assert ours.call("healthz").status == "ok"
    assert len(LogReader(str(tmp_path / "root"), "w").read()[0]) == 7
