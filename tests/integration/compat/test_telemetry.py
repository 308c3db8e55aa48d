"""FastAPI's telemetry names the route of a plugin as it names a hard-coded one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry import trace
from opentelemetry.trace import Span, Tracer, TracerProvider
from opentelemetry.trace.span import INVALID_SPAN_CONTEXT, SpanContext
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from .twins import PluginSpec, make_twins, request

pytestmark = pytest.mark.anyio


class NamedSpan(trace.NonRecordingSpan):
    """A span that remembers its name and attributes."""

    def __init__(self, name: str, context: SpanContext = INVALID_SPAN_CONTEXT) -> None:
        super().__init__(context)
        self.name = name
        self.attributes: dict[str, Any] = {}

    def is_recording(self) -> bool:
        return True

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def update_name(self, name: str) -> None:
        self.name = name


class Spans(TracerProvider, Tracer):
    """A tracer provider that keeps the spans of requests."""

    def __init__(self) -> None:
        self.spans: list[NamedSpan] = []

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        return self

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
        self.spans.append(NamedSpan(name))
        return self.spans[-1]

    @contextmanager
    def start_as_current_span(self, name: str, *args: Any, **kwargs: Any) -> Iterator[Span]:  # type: ignore[override]
        span = self.start_span(name)
        with trace.use_span(span):
            yield span


async def test_labels(variant: str) -> None:
    """Routes, nested routers, mounts, methods that are not allowed: each span is named alike."""
    spans: list[Spans] = []

    def host() -> FastAPI:
        spans.append(Spans())
        return FastAPI(telemetry={"tracer_provider": spans[-1], "metrics": False, "logs": False})

    def make() -> list[APIRouter]:
        inner = APIRouter(prefix="/inner")
        inner.add_api_route("/{x}", lambda x: x)
        router = APIRouter(prefix="/t")
        router.include_router(inner)
        router.routes.append(Mount("/sub", routes=[Route("/{y}", lambda _: PlainTextResponse("y"))]))
        return [router]

    twins = make_twins(PluginSpec("labels", make), host=host)
    redirects = ["/api/t/inner/1/"] if variant == "fast" else []  # the public protocol has no word for these
    for path in ("/api/t/inner/1", "/api/t/inner", "/api/sub/2", "/openapi.json", "/nope", *redirects):
        for method in ("GET", "POST"):
            await request(twins.hard, method, path)
            await request(twins.platform, method, path)
    names = [[(span.name, span.attributes.get("http.route")) for span in of_app.spans] for of_app in spans]
    assert names[0] == names[1]
    assert ("GET /api/t/inner/{x}", "/api/t/inner/{x}") in names[1]
