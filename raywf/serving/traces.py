"""A span of OpenTelemetry for each request, where the standard variables ask for traces.

With ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``..._TRACES_ENDPOINT``) in the environment in which Ray starts, and
the extra ``raywf[otel]``, each replica sends its requests' spans there over HTTP, as children of the caller's
(``traceparent``). Without, a request costs nothing more. A span has no feature and no id of a prediction.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WANTED = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_VERSION = b"x-raywf-model-version"
_logger = logging.getLogger(__name__)


def exporter(environ: Mapping[str, str] = os.environ) -> SpanExporter | None:
    """Return what sends spans where the environment says; None where it does not, or nothing can."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(environ.get, _WANTED)):
        return None
    try:
        made: SpanExporter = importlib.import_module(_EXPORTER).OTLPSpanExporter()
    except ModuleNotFoundError:
        _logger.warning("traces are asked for by OTEL_EXPORTER_OTLP_ENDPOINT: pip install 'raywf[otel]'")
        return None
    return made


class TracedRequests:
    """ASGI middleware that makes a span of each HTTP request and hands it to `to`."""

    def __init__(self, app: ASGIApp, to: SpanExporter) -> None:
        self._app = app
        provider = TracerProvider(resource=Resource.create({"service.name": "raywf"}))
        provider.add_span_processor(BatchSpanProcessor(to))
        self.provider = provider
        self._tracer = provider.get_tracer("raywf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request be answered within a span."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], _route(scope["path"])
        facts: dict[str, Any] = {"http.request.method": method, "url.path": path}
        with self._tracer.start_as_current_span(
            f"{method} {path}",
            context=propagate.extract(headers),
            kind=trace.SpanKind.SERVER,
            attributes=facts,
        ) as span:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _tell(span, message)
                await send(message)

            return await self._app(scope, receive, told)


def _route(path: str) -> str:
    """Return a path without the id of a prediction."""
    before, found, _ = path.partition("/v1/predictions/")
    return f"{before}{found}{{id}}" if found else path


def _tell(span: trace.Span, message: Message) -> None:
    status = int(message["status"])
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR)
    for name, value in message["headers"]:
        if name.lower() == _VERSION:
            span.set_attribute("raywf.model_version", value.decode())
