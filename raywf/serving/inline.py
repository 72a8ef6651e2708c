"""Answers small requests in the turn of the event loop that brings them, before Ray Serve counts them.

Ray Serve makes two tasks of a request, counts it as waiting and as running, and watches for a client that
goes away: about as much work as all of a prediction. A small body is answered before any of that could
matter, so that nothing waits, runs on or could be cut off; every other request goes Ray Serve's way. Ray
calls `middlewares` in each replica by the variable that `raywf.serving.environment` sets; without it all
requests go Ray Serve's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raywf.serving.exchange import Reply, refusal
from raywf.serving.requests import RequestError
from raywf.serving.traces import TracedRequests, exporter

INLINE_BYTES = 16_384
BODY_S = 10.0  # for a small body to be there; it mostly comes with the headers

# Of path, headers and body; None for a request that has to go Ray Serve's way.
Answerer = Callable[[str, Mapping[bytes, bytes], bytes], Reply | None]
Settler = Callable[[Reply], Awaitable[Reply]]


class InlineAnswers:
    """ASGI middleware in front of a replica; `answer` is set by the endpoint of this process, if any.

    `settle`, where it is set, is waited for before an answer goes out, and may put another in its place.
    """

    answer: ClassVar[Answerer | None] = None
    settle: ClassVar[Settler | None] = None

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a small POST, or hand the request on."""
        answer = InlineAnswers.answer
        if answer is None or scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        if not _is_small(headers.get(b"content-length", b"")):
            return await self._app(scope, receive, send)
        try:
            async with asyncio.timeout(BODY_S):
                message = await receive()
                while message.get("more_body"):
                    message = _joined(message, await receive())
        except TimeoutError:
            reply: Reply | None = refusal(RequestError(408, f"the body did not come within {BODY_S:g} s"))
        else:
            if message["type"] != "http.request":
                return None
            reply = answer(scope["path"], headers, message["body"])
        if reply is None:
            return await self._app(scope, _again(message, receive), send)
        if InlineAnswers.settle is not None:
            reply = await InlineAnswers.settle(reply)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.raw_headers()})
        return await send({"type": "http.response.body", "body": reply.body})


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts in front of its own application in proxies and replicas."""
    to = exporter()
    traced = [] if to is None else [Middleware(TracedRequests, to=to)]
    return [*traced, Middleware(InlineAnswers)]


def _is_small(length: bytes) -> bool:
    return len(length) < 6 and length.isdigit() and int(length) <= INLINE_BYTES


def _joined(first: Message, then: Message) -> Message:
    """Return two parts of a body as one; a client that went away stays away."""
    if then["type"] != "http.request":
        return then
    return {**then, "body": first["body"] + then.get("body", b"")}


def _again(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives a message that was taken already, then what comes."""
    taken = [message]

    async def next_message() -> Message:
        return taken.pop() if taken else await receive()

    return next_message
