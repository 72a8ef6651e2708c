"""Spans of requests, where the environment asks for them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from raywf.serving.inline import InlineAnswers, middlewares
from raywf.serving.traces import TracedRequests, exporter

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    headers = [(b"x-raywf-model-version", b"7")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def spans(path: str) -> list[Any]:
    to = InMemorySpanExporter()
    app = TracedRequests(answer, to)

    async def call() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post(path, content=b"{}", headers={"traceparent": PARENT})

    asyncio.run(call())
    app.provider.force_flush()
    return list(to.get_finished_spans())


def test_a_request_is_a_span_of_its_caller_s_trace() -> None:
    """With method, path, status and version; a 5xx is an error."""
    (span,) = spans("/v1/predict")
    assert span.name == "POST /v1/predict"
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.attributes["http.response.status_code"] == 503
    assert span.attributes["raywf.model_version"] == "7"
    assert not span.status.is_ok


def test_no_id_of_a_prediction_is_told() -> None:
    """Its path is that of all of them."""
    (span,) = spans("/churn/v1/predictions/a%2Fb")
    assert span.attributes["url.path"] == "/churn/v1/predictions/{id}"


def test_nothing_is_traced_unless_the_environment_asks() -> None:
    """The standard variables say where to, and whether at all."""
    assert exporter({}) is None
    assert (
        exporter({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}) is None
    )
    assert exporter({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is not None
    assert [one.cls for one in middlewares()] == [InlineAnswers]
