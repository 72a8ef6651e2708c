"""One prediction asked for by its id: whoever made it, whatever came of it, whatever its id is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Client, make_workflow

from raywf.core.records import Prediction
from raywf.core.rollout import Part, ShadowAnswer
from raywf.outcomes import LogWriter
from raywf.serving.app import Endpoint
from raywf.serving.keys import Caller, KeyBook
from raywf.testing import SMALL_ROW, FolderSource

ROW = dict(SMALL_ROW)
NOON = datetime(2013, 5, 1, 12, tzinfo=UTC)


def ask(client: Client, name: str) -> Any:
    """The answer to a lookup, whose path says any id."""
    return client.get("/v1/predictions/" + quote(name, safe="").replace(".", "%2E"))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_was_answered_is_told_again(clients: dict[str, Any], task: str) -> None:
    """With its features, its time and its version, and no outcome yet."""
    client = clients[task]
    body = {"features": ROW, "id": "a", "time": "2013-05-01T12:00:00Z"}
    made = client.post("/v1/predict", json=body).json()["predictions"][0]
    found = ask(client, "a").json()
    assert {name: found[name] for name in made} == made
    assert (found["time"], found["features"]) == ("2013-05-01T12:00:00Z", ROW)
    assert (found["model_version"], found["outcome"], found["shadows"]) == ("1", None, [])


def test_the_latest_outcome_is_told(client: Client) -> None:
    """With its value and its time."""
    client.post("/v1/predict", json={"features": ROW, "id": "a"})
    for label, when in (("no", "2026-02-01T00:00:00Z"), ("late", "2026-01-01T00:00:00Z")):
        client.post("/v1/outcomes", json={"id": "a", "label": label, "time": when, "value": 2.5})
    known = {"label": "no", "time": "2026-02-01T00:00:00Z", "value": 2.5}
    assert ask(client, "a").json()["outcome"] == known


@pytest.mark.parametrize("name", ["a/b", "a b", "ä", "100%", "%2F", "..", ".", "a?b#c", "x" * 200, "/", "\n"])
def test_any_id_can_be_asked_for(client: Client, name: str) -> None:
    """It is decoded once."""
    client.post("/v1/predict", json={"features": ROW, "id": name})
    assert ask(client, name).json()["id"] == name


def test_unknown_ids(client: Client) -> None:
    """404 with a reason; an outcome alone is no prediction, and no id is no path."""
    client.post("/v1/outcomes", json={"id": "b", "label": "no"})
    for name in ("a", "b"):
        answer = ask(client, name)
        assert answer.status_code == 404
        assert answer.json()["error"] == f"the log holds no prediction with the id {name!r}"
    assert "/v1/predictions/{id}" in client.get("/v1/predictions/").json()["paths"]
    assert client.post("/v1/predictions/a").status_code == 405


def test_predictions_of_other_replicas_and_versions(
    client: Client, tmp_path: Path, source: FolderSource
) -> None:
    """One of an earlier version is told in its own classes, of one that is gone by its scores."""
    part = Part("000001:000001")
    common = {"id": "old", "time": NOON}
    shadow = ShadowAnswer(**common, version="2", scores=(0.25,), part=part)
    failed = ShadowAnswer(**common, version="3", scores=(), part=part)
    with LogWriter(str(tmp_path / "root"), "w") as log:
        log.append([Prediction(**common, version="9", features={"x": 1}, scores=(0.5,)), shadow, failed])
        log.append([Prediction(id="of-2", time=NOON, version="2", features={}, scores=(0.75,))])
    found = ask(client, "old").json()
    assert (found["model_version"], found["scores"], "prediction" in found) == ("9", [0.5], False)
    assert found["shadows"] == [
        {
            "model_version": "2",
            "scores": [0.25],
            "prediction": "no",
            "probabilities": {"no": 0.75, "late": 0.25},
        },
        {"model_version": "3", "scores": []},
    ]
    assert ask(client, "of-2").json()["prediction"] == "late"


def test_a_version_that_cannot_be_had_is_not_looked_for_each_time(
    client: Client, source: FolderSource
) -> None:
    """A registry that is away does not hold every lookup up."""
    versions = client.endpoint._history._bundle_of
    source.set_down(True)
    assert versions("2") is None
    source.set_down(False)
    assert versions("2") is None
    versions.__self__._known.clear()  # as after a while
    assert versions("2").classes == ("no", "late")


def test_rows_of_a_table_are_found_one_by_one(client: Client) -> None:
    """Each with its own values."""
    columns = {name: [value, value] for name, value in ROW.items()} | {"distance": [1.0, 2.0]}
    client.post("/v1/predict", json={"columns": columns, "ids": ["a", "b"]})
    assert ask(client, "b").json()["features"] == ROW | {"distance": 2.0}


def test_who_may_ask(tmp_path: Path, source: FolderSource) -> None:
    """A key for predictions is needed where any is."""
    root = str(tmp_path / "root")
    keys = {
        scope: KeyBook(root, "w").add(Caller(name=scope, scopes=(scope,)), now=NOON)
        for scope in ("predict", "outcomes")
    }
    client = Client(Endpoint(make_workflow(tmp_path / "root"), source))
    assert client.get("/v1/predictions/a").status_code == 401
    for scope, status in (("outcomes", 403), ("predict", 404)):
        headers = {"authorization": f"Bearer {keys[scope]}"}
        assert client.request("GET", "/v1/predictions/a", headers=headers).status_code == status


def test_requests_are_counted_by_path_and_not_by_id(client: Client) -> None:
    """Lest each id be a series of its own."""
    ask(client, "a")
    counted = client.endpoint._meter._counts
    assert counted["requests", "/v1/predictions/{id}", "404"] == 1


def test_a_log_that_cannot_be_read_is_503(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a prediction that never was."""
    client.post("/v1/predict", json={"features": ROW, "id": "a"})
    client.endpoint._history._lookup._budget_s = 0.0
    answer = ask(client, "a")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    client.endpoint._history._lookup._budget_s = 5.0

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("raywf.outcomes.lookup._catch_up", fail)
    answer = ask(client, "a")
    assert (answer.status_code, "cannot be read" in answer.json()["error"]) == (503, True)
