"""The application: routers behind one door, over one pipeline."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.service import filters, uploads
from pipelines.service.access_log import AccessLog
from pipelines.service.auth import Keys
from pipelines.service.config import ServiceConfig
from pipelines.service.core import Service
from pipelines.service.door import AsgiApp, Door
from pipelines.service.openapi import document
from pipelines.service.places import Places
from pipelines.service.playground import playground_router
from pipelines.service.reload import Resolve
from pipelines.service.routes import (
    admin,
    documents,
    embeddings,
    health,
    index,
    ingest,
    metrics,
    models,
    rerank,
    search,
)
from pipelines.service.shortcut import Shortcut
from pipelines.two_stage import TwoStagePipeline
from retrieval import __version__

_ROUTERS: tuple[APIRouter, ...] = (
    search.router,
    index.router,
    ingest.router,
    documents.router,
    admin.router,
    embeddings.router,
    rerank.router,
    models.router,
    health.router,
    metrics.router,
)
_CAPPED: tuple[type[BaseModel], ...] = (
    search.SearchRequest,
    search.SearchManyRequest,
    documents.DeleteIdsRequest,
    embeddings.EmbeddingsRequest,
    rerank.RerankRequest,
    rerank.RerankFieldsRequest,
    rerank.RerankV2Request,
)
"""Requests whose fields are annotated with `Cap`."""

_FAST: dict[tuple[str, str], Callable[[Service], AsgiApp]] = {("POST", embeddings.PATH): embeddings.fast_embeddings}
"""Method and path to what makes the plain ASGI callable that answers there, before routing."""


# Later versions of FastAPI trace by themselves where a provider is configured; `pipelines.tracing` does that here.
_WITHOUT_TELEMETRY: dict[str, Any] = (
    {"telemetry": {"tracing": False, "metrics": False, "logs": False}}
    if "telemetry" in inspect.signature(FastAPI).parameters
    else {}
)


class Application(FastAPI):
    """FastAPI with the door in front of everything: hot paths pass none of its layers, and errors are answered once."""

    door: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request at the door; what is none goes by."""
        if scope["type"] == "http" and self.door is not None:
            await self.door(scope, receive, send)
        else:
            await self.behind_the_door(scope, receive, send)

    async def behind_the_door(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What FastAPI does."""
        await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """The layers of FastAPI but for the one that would answer errors before the door does."""
        stack = super().build_middleware_stack()
        return stack.app if isinstance(stack, ServerErrorMiddleware) else stack


def create_app(
    pipeline: TwoStagePipeline, config: ServiceConfig = ServiceConfig(), *, resolve: Resolve | None = None
) -> FastAPI:
    """Build the service.

    Args:
        pipeline: Open pipeline, read-only where the settings say so; it is closed when the application ends.
        config: Settings.
        resolve: Gives the settings and the folder of the index that a reload opens; ``None`` where there is no reload.

    Returns:
        An ASGI application; ``app.state.service`` is its `Service`.

    Raises:
        ConfigError: A key is missing or cannot be used.
        StoreError: The folder of uploads cannot be used.
    """
    service = Service(pipeline, config, Keys(config.keys, read_only=config.read_only), resolve)
    access = AccessLog()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.jobs.start()
        access.start()
        yield
        await service.close()
        access.close()

    app = Application(
        title="Two-stage retrieval",
        version=__version__,
        summary="Search, ingest, embeddings and rerank over one index.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        **_WITHOUT_TELEMETRY,
    )
    app.state.service = service
    app.state.fast_paths = tuple(_FAST)
    page = playground_router() if config.playground else APIRouter()
    routers = (*_ROUTERS, page)
    for router in routers:
        app.include_router(router)
    fast = {place: make(service) for place, make in _FAST.items()}
    app.door = door = Door(app.behind_the_door, service, Places(routers), access, fast, Places((page,)).all())
    app.state.shortcut = Shortcut(service, door, embeddings.PATH, embeddings.at_once)
    if config.cors_origins:
        # Outside of the door: pages may read errors too.
        app.door = CORSMiddleware(
            door,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After", "Location"],
        )
    app.add_exception_handler(HTTPException, _to_the_door)
    app.add_exception_handler(RequestValidationError, _to_the_door)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            components = {**filters.SCHEMAS, **uploads.schemas()}
            app.openapi_schema = document(app, config.limits, _CAPPED, components, keyed=bool(config.keys))
        with service.holder.use() as pipeline:  # a reload may bring another encoder
            embeddings.describe_dimensions(app.openapi_schema, pipeline.encoder.dim)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _to_the_door(request: Request, error: Exception) -> NoReturn:
    raise error
