"""Small requests answered before Ray Serve sees them: the same answers, and all others handed on whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from conftest import Client

from raywf.serving import inline
from raywf.serving.exchange import Reply, refusal
from raywf.serving.inline import INLINE_BYTES, InlineAnswers
from raywf.serving.requests import RequestError
from raywf.testing import SMALL_ROW

ROW = dict(SMALL_ROW)


class Front:
    """An endpoint with its inline answers before it, and what these handed on: paths and bodies."""

    def __init__(self, client: Client) -> None:
        self.handed: list[tuple[str, bytes]] = []
        self.behind = client
        self.app = InlineAnswers(self._app)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.handed.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"behind"})

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **more)

        return asyncio.run(call())


@pytest.fixture
def front(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """An endpoint whose answers are asked first."""
    monkeypatch.setattr(InlineAnswers, "answer", client.endpoint.answer_now)
    return Front(client)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/predict", {"features": ROW, "id": "a"}),
        ("/v1/predict", {"features": {"distance": "far"}}),
        ("/v1/predict", {"features": ROW, "tme": 1}),
        ("/v1/outcomes", {"id": "a", "label": "no"}),
        ("/v1/outcomes", {"id": "a"}),
        ("/v1/model", {}),
        ("/v2/predict", {}),
        ("/healthz", {}),
    ],
)
def test_an_inline_answer_is_the_endpoint_s(front: Front, path: str, body: Any) -> None:
    """Status, headers and body do not tell which way a request went."""
    one, two = front.request("POST", path, json=body), front.behind.post(path, json=body)
    assert (one.status_code, one.content) == (two.status_code, two.content)
    assert dict(one.headers) == dict(two.headers)
    assert front.handed == []


def test_an_answer_waits_until_it_is_settled(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """What settles it may refuse in its place."""

    async def refuse(reply: Reply) -> Reply:
        assert reply.status == 200
        await asyncio.sleep(0)
        return refusal(RequestError(503, "the disk is full"))

    monkeypatch.setattr(InlineAnswers, "settle", refuse)
    answer = front.request("POST", "/v1/predict", json={"features": ROW})
    assert (answer.status_code, answer.json()) == (503, {"error": "the disk is full"})


def test_large_bodies_other_methods_and_slow_routes_are_handed_on(front: Front) -> None:
    """What is handed on has its whole body still to be read."""
    large = json.dumps({"rows": [{"features": ROW}] * 500}).encode()
    assert len(large) > INLINE_BYTES
    front.request("POST", "/v1/predict", content=large)
    front.request("GET", "/v1/model")
    front.request("POST", "/v1/retrain", content=b'{"reason": "a"}')
    assert front.handed == [
        ("/v1/predict", large),
        ("/v1/model", b""),
        ("/v1/retrain", b'{"reason": "a"}'),
    ]


@pytest.mark.parametrize("length", ["", "-1", "1e3", "99999999999999999999999999", "\u0661"])
def test_a_length_that_is_none_is_left_to_the_server(front: Front, length: str) -> None:
    """Only a plain small number is believed."""
    front.request("POST", "/v1/predict", content=b"{}", headers={"content-length": length.encode()})
    assert front.handed == [("/v1/predict", b"{}")]


def ask(front: Front, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the front these messages, then nothing more; return what it sends."""
    sent: list[dict[str, Any]] = []
    body = json.dumps({"features": ROW}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers}

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(front.app(scope, receive, send))
    return sent


def test_a_body_in_parts_is_answered_when_it_is_whole(front: Front) -> None:
    """The last part is what counts."""
    body = json.dumps({"features": ROW}).encode()
    parts = [{"type": "http.request", "body": body[i : i + 20], "more_body": True} for i in range(0, 200, 20)]
    sent = ask(front, [*parts, {"type": "http.request", "body": b"", "more_body": False}])
    assert [m.get("status", m.get("body", b"")[:1]) for m in sent] == [200, b"{"]


def test_a_body_that_does_not_come_is_given_up(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stops in the middle does not hold anything for long."""
    monkeypatch.setattr(inline, "BODY_S", 0.05)
    sent = ask(front, [{"type": "http.request", "body": b"{", "more_body": True}])
    assert sent[0]["status"] == 408


def test_a_client_that_goes_away_is_not_answered(front: Front) -> None:
    """Nothing is predicted for nobody."""
    sent = ask(
        front, [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )
    assert sent == []
