"""Whether the service lives, whether it can take requests, and its metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from pipelines.service.core import ServiceOf
from pipelines.service.openapi import problems
from pipelines.service.strict_json import StrictRoute
from pipelines.service.wire import Reply

router = APIRouter(route_class=StrictRoute, tags=["operation"])


class Health(Reply):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(Reply):
    """Whether requests should be sent here now."""

    status: Literal["ready", "draining", "saturated"]


@router.get("/health", responses=problems(always=(403, 421)))
async def health() -> Health:
    """Say that the process lives; a failure means that it should be restarted."""
    return Health()


@router.get(
    "/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not now"}, **problems(always=(403, 421))},
)
async def ready(service: ServiceOf) -> Response:
    """Say whether requests should come here: the index is open, the workers have room, nobody is shutting down."""
    status: Literal["ready", "draining", "saturated"] = "ready"
    if service.draining:
        status = "draining"
    elif service.pool.saturated:
        status = "saturated"
    return JSONResponse(Readiness(status=status).model_dump(), 200 if status == "ready" else 503)
