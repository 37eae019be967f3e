"""What those who run the service do with it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field

from pipelines.service.auth import requires
from pipelines.service.context import Principal, RequestContext
from pipelines.service.core import ContextOf, ServiceOf
from pipelines.service.errors import ServiceError
from pipelines.service.logs import log
from pipelines.service.openapi import problems
from pipelines.service.reload import reload_pipeline
from pipelines.service.strict_json import StrictRoute
from pipelines.service.wire import Reply, Wire

router = APIRouter(route_class=StrictRoute, tags=["operation"])


class ReloadRequest(Wire):
    """What to load."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"index": "2026-11"}]})
    index: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}$")] | None = Field(
        default=None, description="name of a folder in service.indexes; null: what the configuration says now"
    )


class ReloadReply(Reply):
    """What serves now."""

    index: str
    documents: int
    passages: int
    encoder: str
    reranker: str
    seconds: float


def _require_index(folder: str | None, name: str | None) -> None:
    if name is None:
        return
    if folder is None:
        raise ServiceError(409, "no_indexes", "service.indexes names no folder, so no index can be loaded by its name")
    if not (Path(folder) / name).is_dir():
        raise ServiceError(404, "unknown_index", "there is no index of this name in the folder of service.indexes")


@router.post("/v1/admin/reload", responses=problems(404, 409, 415, 501))
async def reload(
    body: ReloadRequest,
    service: ServiceOf,
    context: ContextOf,
    principal: Annotated[Principal, Depends(requires("admin"))],
) -> ReloadReply:
    """Read the configuration again and let its index and models serve; requests go on meanwhile, none is dropped."""
    if service.resolve is None:
        raise ServiceError(409, "nothing_to_reload", "this service was started without a configuration to read again")
    _require_index(service.config.indexes, body.index)
    resolve = service.resolve
    started = time.monotonic()

    def work(_current: object) -> ReloadReply:
        following = reload_pipeline(service.holder, *resolve(body.index), read_only=service.config.read_only)
        manifest, encoder = following.manifest, following.manifest.encoder
        return ReloadReply(
            index=following.store.location,
            documents=manifest.documents,
            passages=manifest.passages,
            encoder=f"{encoder.name}@{encoder.digest}",
            reranker=following.config.rerank.model,
            seconds=time.monotonic() - started,
        )

    longer = RequestContext(context.request_id, time.monotonic() + service.config.timeouts.reload)
    reply = await service.write(work, longer)
    service.metrics.reloads.inc()
    log("reloaded", request_id=context.request_id, index=reply.index, seconds=round(reply.seconds, 3))
    return reply
