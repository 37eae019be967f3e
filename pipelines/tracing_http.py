"""One span for each request of an ASGI application; its parent is the span of the caller, where headers name one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import TYPE_CHECKING, Any

from pipelines.tracing import current_tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

UNTRACED = frozenset({"/health", "/ready", "/metrics"})
"""Paths that machines ask every few seconds."""


def trace_requests(app: Application, paths: Collection[str] = ()) -> Application:
    """Wrap an application, so that each HTTP request is a span ``METHOD ROUTE`` of kind server.

    The route is the path with placeholders that the router has put into the scope; other paths, which hold what the
    client has written, are not told. Answers from 500 on mark the span as failed. Nothing is recorded while no tracer
    provider is configured in this process.

    Args:
        app: An ASGI application.
        paths: Paths that it answers without a router, told as they are.
    """

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        tracer = current_tracer() if scope["type"] == "http" and scope["path"] not in UNTRACED else None
        if tracer is None:
            await app(scope, receive, send)
        else:
            await _record(tracer, app, scope, receive, send, paths)

    return traced


async def _record(
    tracer: Tracer, app: Application, scope: Scope, receive: Receive, send: Send, paths: Collection[str]
) -> None:
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind, Status, StatusCode

    async def watched(message: Message) -> None:
        if message["type"] == "http.response.start":
            span.set_attribute("http.response.status_code", message["status"])
            if message["status"] >= 500:
                span.set_status(Status(StatusCode.ERROR))
        await send(message)

    method, path = scope["method"], scope["path"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    with tracer.start_as_current_span(
        method,
        context=propagate.extract(headers),
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            await app(scope, receive, watched)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            route = path if path in paths else getattr(scope.get("route"), "path", None)
            if route is not None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
