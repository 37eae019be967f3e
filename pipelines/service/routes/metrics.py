"""The metrics, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pipelines.service.auth import authorize
from pipelines.service.core import ContextOf, ServiceOf
from pipelines.service.metrics import Metrics
from pipelines.service.openapi import problems

router = APIRouter(tags=["operation"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(service: ServiceOf, context: ContextOf) -> Response:
    """Show the metrics in Prometheus' text format; needs a key that may read, unless the configuration opens it."""
    if not service.config.open_metrics:
        authorize(context, "read")
    return Response(service.metrics.page(), media_type=Metrics.content_type)
