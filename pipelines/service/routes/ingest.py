"""Ingest: an upload becomes a job, which can be waited for, asked about, or followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from pipelines.service.auth import requires
from pipelines.service.context import Principal
from pipelines.service.core import ContextOf, Service, ServiceOf
from pipelines.service.errors import ServiceError
from pipelines.service.events import EventStream, event
from pipelines.service.job import Job, State
from pipelines.service.multipart import FIELD
from pipelines.service.openapi import problems
from pipelines.service.spool import Upload
from pipelines.service.strict_json import StrictRoute
from pipelines.service.uploads import Kind, receive_upload
from pipelines.service.wire import Reply

router = APIRouter(route_class=StrictRoute, tags=["documents"])
_HEARTBEAT_S = 15.0
# Left of the time of a request for its answer.
_SHARE_FOR_WAITING = 0.9


class RejectedReply(Reply):
    """Something that could not be ingested, and why."""

    source: str = Field(description="document id, file, or line")
    reason: str


class DuplicateReply(Reply):
    """A document that was near-equal to another one when it came in."""

    source: str
    of: str = Field(description="id of the document that was there before")
    kind: Literal["exact", "near"]
    share: float = Field(description="word triples that both share, 0 to 1")
    skipped: bool


class ReportReply(Reply):
    """What an ingest did."""

    added: int
    changed: int
    unchanged: int
    removed: int
    rejected: list[RejectedReply] = Field(description="the first 1,000")
    rejected_count: int
    passages: int
    seconds: float
    duplicates: list[DuplicateReply] = Field(default=[], description="the first 1,000, where they were looked for")
    duplicate_count: int = 0
    read_seconds: float = Field(default=0.0, description="work of reading; that of two processes overlaps")
    encode_seconds: float = Field(default=0.0, description="work of cutting and encoding")
    write_seconds: float = Field(default=0.0, description="work of writing")


class ProgressReply(Reply):
    """What an ingest has done so far."""

    stage: str
    documents: int
    passages: int
    rejected: int
    seconds: float
    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    write_seconds: float = 0.0


class JobErrorReply(Reply):
    """Why a job failed."""

    status: int
    code: str
    detail: str


class JobReply(Reply):
    """An ingest job."""

    id: str
    state: State = Field(description="done: everything that the report counts is in the index for good")
    created: str
    finished: str | None
    progress: ProgressReply | None
    report: ReportReply | None
    error: JobErrorReply | None


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/IngestRequest"}},
            "application/x-ndjson": {
                "schema": {
                    "type": "string",
                    "pattern": r"\S",
                    "description": "one document a line, each as in the JSON form",
                },
                "example": '{"id": "a", "text": "first"}\n{"id": "b", "text": "second"}\n',
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "description": "text, HTML, JSON, CSV, Parquet, PDF, office documents and others",
                        }
                    },
                    "required": [FIELD],
                    "additionalProperties": False,
                }
            },
        },
    }
}
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="id of an ingest job")]


@router.post(
    "/v1/ingest",
    status_code=202,
    response_model=JobReply,
    responses={
        200: {"model": JobReply, "description": "Done, when asked to wait"},
        202: {
            "description": "Accepted: the upload is on disk and will be ingested, even after a crash",
            "headers": {"Location": {"description": "path of the job", "schema": {"type": "string"}}},
        },
        **problems(409, 415, 507),
    },
    openapi_extra=_BODY,
)
async def ingest(
    request: Request,
    service: ServiceOf,
    context: ContextOf,
    principal: Annotated[Principal, Depends(requires("write"))],
    wait: Annotated[
        Literal["true", "false"], Query(description="true: answer when it is done, if that is soon enough")
    ] = "false",
) -> Response:
    """Put documents into the index; one that is there already is replaced or, unchanged, skipped."""

    async def take(upload: Upload) -> Kind:
        return await receive_upload(request, upload, service.config.limits)

    job = await service.jobs.receive(principal, take)
    if wait == "true":
        # Waiting begins when the upload has ended, however long that took.
        await _wait_for(job, service)
    if wait == "true" and job.state == "failed" and job.error is not None:
        error = job.error
        raise ServiceError(error["status"], error["code"], error["detail"], headers={"Location": _place(job)})
    return Response(
        _reply(job).model_dump_json(),
        200 if job.over else 202,
        {"Location": _place(job)},
        media_type="application/json",
    )


@router.get("/v1/ingest/{job}", response_model=JobReply, responses=problems(404))
async def ingest_job(
    job: JobId, service: ServiceOf, principal: Annotated[Principal, Depends(requires("write"))]
) -> Response:
    """Tell how far an ingest job is."""
    return Response(_reply(service.jobs.get(job, principal)).model_dump_json(), media_type="application/json")


@router.get(
    "/v1/ingest/{job}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events named progress, done, failed and closing; data is the job",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404),
    },
)
async def ingest_events(
    job: JobId, service: ServiceOf, principal: Annotated[Principal, Depends(requires("write"))]
) -> Response:
    """Follow an ingest job until it is over; a slow reader misses steps, never the end."""
    return EventStream(_events(service.jobs.get(job, principal), service), service.jobs.streaming())


async def _wait_for(job: Job, service: Service) -> None:
    try:
        async with asyncio.timeout(service.config.timeouts.request * _SHARE_FOR_WAITING):
            # While the service ends, a running job may still be done in time; one that waits will not be begun.
            while not job.over and not (service.draining and job.state == "queued"):
                await job.wait_beyond(job.version)
    except TimeoutError:
        return


async def _events(job: Job, service: Service) -> AsyncIterator[bytes]:
    """What to send of a job: its state now, every later one that is still the latest when it can be sent, the end."""
    shown = -1
    while True:
        if job.version != shown:
            shown = job.version
            name = job.state if job.over else "progress"
            yield event(name, _reply(job).model_dump_json(), shown)
        if job.over:
            return
        if service.draining:
            yield event("closing", _reply(job).model_dump_json(), shown)
            return
        try:
            async with asyncio.timeout(_HEARTBEAT_S):
                await job.wait_beyond(shown)
        except TimeoutError:
            yield b": still here\n\n"


def _place(job: Job) -> str:
    return f"/v1/ingest/{job.id}"


def _reply(job: Job) -> JobReply:
    return JobReply.model_validate(
        {name: getattr(job, name) for name in ("id", "state", "created", "finished", "progress", "report", "error")}
    )
