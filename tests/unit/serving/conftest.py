"""Bundles and sources shared by the serving tests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from raywf.core.records import Bundle
from raywf.core.serving_settings import ServingSettings
from raywf.core.settings import SpineSettings, StoreSettings, Workflow
from raywf.serving import tally
from raywf.serving.app import Endpoint
from raywf.testing import FolderSource, small_bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Two binary bundles, one multiclass and one regression."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "one": small_bundle(folder / "one", seed=1, rounds=5),
        "two": small_bundle(folder / "two", seed=2, rounds=5),
        "multiclass": small_bundle(folder / "multiclass", task="multiclass", rounds=5),
        "regression": small_bundle(folder / "regression", task="regression", rounds=5),
    }


@pytest.fixture(autouse=True)
def _no_tallies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs hold what a test has asked for; a test of tallies writes them itself."""
    monkeypatch.setattr(tally, "EVERY_S", 600.0)


@pytest.fixture
def source(tmp_path: Path, bundles: dict[str, Bundle]) -> FolderSource:
    """Versions 1 and 2, version 1 being the champion."""
    made = FolderSource(str(tmp_path / "registry"))
    made.add(bundles["one"], version="1")
    made.add(bundles["two"], version="2")
    made.move("champion", "1")
    return made


def make_workflow(root: Path, task: str = "binary", **serving: Any) -> Workflow:
    return Workflow(
        name="w",
        task=task,  # type: ignore[arg-type]
        spine=SpineSettings(path="x.csv", label="y"),
        serving=ServingSettings(alias_poll_s=600, **serving),
        stores=StoreSettings(root=str(root)),
    )


class Client:
    """Calls an endpoint in this process as an ASGI server would."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **more)

        return asyncio.run(call())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


@pytest.fixture
def client(tmp_path: Path, source: FolderSource) -> Client:
    """An endpoint that serves version 1 of a binary model."""
    return Client(Endpoint(make_workflow(tmp_path / "root", max_rows=100, max_body_bytes=50_000), source))


@pytest.fixture
def clients(tmp_path: Path, bundles: dict[str, Bundle]) -> dict[str, Client]:
    """An endpoint a task."""
    made = {}
    for task, name in (("binary", "one"), ("multiclass", "multiclass"), ("regression", "regression")):
        source = FolderSource(str(tmp_path / task / "registry"))
        source.add(bundles[name], version="1")
        source.move("champion", "1")
        made[task] = Client(Endpoint(make_workflow(tmp_path / task / "root", task), source))
    return made
