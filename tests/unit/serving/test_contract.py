"""The endpoint against its own OpenAPI document: requests made from it, right and wrong, by schemathesis."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from conftest import Client, make_workflow
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.requests import Request

from raywf.serving.app import Endpoint
from raywf.serving.inline import InlineAnswers
from raywf.serving.keys import Caller, KeyBook
from raywf.testing import FolderSource

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Served:
    """An endpoint as an ASGI application whose every path but the health check needs the key."""

    def __init__(self, root: Path, source: FolderSource) -> None:
        scopes = ("predict", "outcomes", "admin")
        self.key = KeyBook(str(root), "w").add(Caller(name="a", scopes=scopes), now=NOW)  # type: ignore[arg-type]
        self.endpoint = Endpoint(make_workflow(root), source)
        InlineAnswers.answer = self.endpoint.answer_now
        self.app = InlineAnswers(self._app)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        answer = await self.endpoint(Request(scope, receive))
        await answer(scope, receive, send)


@pytest.fixture
def api(tmp_path: Path, source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The document of an endpoint in this process, and every call with its key."""
    monkeypatch.setattr(InlineAnswers, "answer", None)  # put back what Served sets
    served = Served(tmp_path / "root", source)
    headers = {"authorization": f"Bearer {served.key}"}
    document = Client(served.endpoint).request("GET", "/openapi.json", headers=headers).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.app = served.app

    @schema.auth()
    class Key:
        def get(self, case: Any, context: Any) -> str:
            return f"Bearer {served.key}"

        def set(self, case: Any, data: str, context: Any) -> None:
            case.headers["authorization"] = data

    return schema


TABLES = {"text/csv", "application/vnd.apache.arrow.stream"}  # whose schema the document cannot say
RULES = ("from 1970 to 2199", "must be of one length")  # nor these
OPERATIONS = [
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/model"),
    ("GET", "/v1/predictions/{id}"),
    ("GET", "/v1/rollouts"),
    ("POST", "/v1/outcomes"),
    ("POST", "/v1/predict"),
    ("POST", "/v1/retrain"),
    ("POST", "/v1/rollouts"),
]


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [(*one, kind) for one in OPERATIONS for kind in GenerationMode if kind.is_positive or one[0] == "POST"],
)
def test_no_answer_is_undocumented(api: Any, method: str, path: str, kind: GenerationMode) -> None:
    """No request gives a 5xx, an undocumented status or content type, or a body that does not fit."""
    operation = api[path][method]

    @given(case=operation.as_strategy(generation_mode=kind))
    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        response = case.call()
        reason = response.text if response.status_code == 422 else ""
        unsaid = case.media_type in TABLES or any(rule in reason for rule in RULES)
        excluded = [positive_data_acceptance] * unsaid
        excluded += [negative_data_rejection] * (response.status_code == 413)  # which it does not expect
        case.validate_response(response, excluded_checks=excluded)

    ask()


def test_the_document_names_all_operations(api: Any) -> None:
    """The list above is complete."""
    found = {(one.ok().method.upper(), one.ok().path) for one in api.get_all_operations()}
    assert found == set(OPERATIONS)
