"""The endpoint over gRPC, beside HTTP: a server in each replica's event loop, see ``raywf.proto``.

All replicas of a node listen on one port; the system gives each new connection to one of them. Why it is not
Ray Serve's gRPC proxy: docs/decisions/0016-grpc-is-served-by-the-replicas.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio
import orjson

from raywf.core.errors import ServingError
from raywf.core.serving_settings import ServingSettings
from raywf.serving.exchange import Reply
from raywf.serving.messages import (
    SERVICE,
    model_body,
    model_reply,
    outcomes_body,
    outcomes_reply,
    predict_body,
    predict_reply,
)

REFUSAL = "raywf-refusal-bin"
MAX_CALLS = (
    100  # under way at once in a replica, whose messages are in memory; beyond that RESOURCE_EXHAUSTED
)
DRAIN_S = 5.0
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class Answers(Protocol):
    """Answers a request of `size` bytes; `read` gives its body, once the caller was let in."""

    def __call__(
        self, method: str, path: str, headers: Mapping[bytes, bytes], size: int, read: Callable[[], bytes]
    ) -> Awaitable[Reply]:
        """Return the reply, be it a refusal."""
        ...


class _Call(NamedTuple):
    """A call of the service: the endpoint's method and path, and the way of its messages to JSON and back."""

    method: str
    path: str
    body: Callable[[bytes, int], bytes]
    reply: Callable[[bytes], bytes]


_CALLS = {
    "Predict": _Call("POST", "/v1/predict", predict_body, predict_reply),
    "Outcomes": _Call("POST", "/v1/outcomes", outcomes_body, outcomes_reply),
    "Model": _Call("GET", "/v1/model", model_body, model_reply),
}


class RpcServer:
    """Serves `answer` on ``settings.grpc_port`` of ``settings.host``; make it within the event loop.

    Raises:
        ServingError: if the port cannot be listened on.
    """

    def __init__(self, answer: Answers, settings: ServingSettings) -> None:
        self._answer, self._max_rows = answer, settings.max_rows
        self._timeout_s = settings.request_timeout_s
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._carry_out, call))
            for name, call in _CALLS.items()
        }
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 1), ("grpc.max_receive_message_length", settings.max_body_bytes)],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self.port = self._server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as err:
            raise ServingError(
                f"serving.grpc_port {settings.grpc_port} cannot be listened on: {err}"
            ) from err
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.create_task(self._server.start())

    def close(self) -> None:
        """Take no new connection, and let what is under way come to its end; from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self.stop()))

    async def stop(self) -> None:
        """As `close`, and wait for the end."""
        await self._server.stop(DRAIN_S)

    async def _carry_out(self, call: _Call, data: bytes, context: Any) -> bytes:
        headers = {name.encode(): _bytes(value) for name, value in context.invocation_metadata() or ()}
        read = partial(call.body, data, self._max_rows)
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._answer(call.method, call.path, headers, len(data), read)
        except TimeoutError:
            reason = f"it took longer than {self._timeout_s:g} s"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, reason)
        if reply.status < 400:
            return call.reply(reply.body)
        more = [(name.decode(), value.decode()) for name, value in reply.headers]
        code = _STATUS.get(reply.status, grpc.StatusCode.INTERNAL)
        await context.abort(code, _reason(reply.body), ((REFUSAL, reply.body), *more))
        raise AssertionError("abort raises")


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _reason(body: bytes) -> str:
    """Return the error of a refusal's JSON."""
    return str(orjson.loads(body)["error"])
