"""Documents: shown with their passages, and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import ConfigDict, Discriminator, Field, Tag

from pipelines.service.auth import requires
from pipelines.service.context import Principal
from pipelines.service.core import ContextOf, ServiceOf
from pipelines.service.errors import ServiceError
from pipelines.service.filters import WhereFilter
from pipelines.service.openapi import problems
from pipelines.service.strict_json import StrictRoute
from pipelines.service.tenants import within_tenant
from pipelines.service.wire import WITHOUT_NUL, Cap, Reply, Text, Wire, check_caps
from pipelines.stored_document import StoredPassage, joined_text, read_document
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import Filter
from retrieval.stores.filters import parse_filter

router = APIRouter(route_class=StrictRoute, tags=["documents"])
_MOST_PASSAGES = 10_000


class PassageReply(Reply):
    """One passage of a document."""

    passage_id: str
    index: int = Field(description="position among the passages, from 0")
    start: int = Field(description="first character in the document")
    end: int
    text: str
    headings: list[str]


class DocumentReply(Reply):
    """A document as the index holds it."""

    id: str
    source: str
    title: str
    metadata: dict[str, Any]
    text: str = Field(description="the passages shown here joined, what they overlap only once")
    passages: list[PassageReply]
    total_passages: int
    other_sources: list[str] = Field(description="further documents with this id, the first 100")


class DeleteIdsRequest(Wire):
    """Documents to remove, by their ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["manual-17", "manual-18"]}]})
    ids: Annotated[list[Annotated[Text, Field(max_length=2_048)]], Field(min_length=1), Cap("ids")]


class DeleteWhereRequest(Wire):
    """Documents to remove, by a filter; one that excludes nothing is refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"where": {"must": [{"key": "metadata.topic", "match": {"value": "plumbing"}}]}}]
        }
    )
    where: WhereFilter


class DeletedReply(Reply):
    """How many documents were removed."""

    removed: int


def _kind(value: Any) -> Literal["@ids", "@where"]:
    by_filter = "where" in value if isinstance(value, Mapping) else isinstance(value, DeleteWhereRequest)
    return "@where" if by_filter else "@ids"


AnyDelete = Annotated[
    Annotated[DeleteIdsRequest, Tag("@ids")] | Annotated[DeleteWhereRequest, Tag("@where")], Discriminator(_kind)
]
DocumentId = Annotated[str, Path(min_length=1, max_length=2_048, pattern=WITHOUT_NUL, description="document id")]


@router.post("/v1/documents/delete", responses=problems(409, 415, 507))
async def delete_documents(
    body: AnyDelete,
    service: ServiceOf,
    context: ContextOf,
    principal: Annotated[Principal, Depends(requires("write"))],
) -> DeletedReply:
    """Remove documents by id or by filter; what is removed does not come back after a crash."""
    check_caps(body, service.config.limits)
    if isinstance(body, DeleteWhereRequest):
        if parse_filter(body.where).matches_everything:
            raise ServiceError(409, "matches_everything", "this filter excludes nothing, so nothing is removed")
        where: Filter = body.where
    else:
        where = _with_ids(body.ids)
    kept_to = within_tenant(where, service.tenant_field, principal.tenant) or where
    return DeletedReply(removed=await service.write(lambda pipeline: pipeline.delete_where(kept_to), context))


@router.get("/v1/documents/{id:path}", response_model=DocumentReply, responses=problems(404))
async def get_document(
    id: DocumentId,
    service: ServiceOf,
    context: ContextOf,
    principal: Annotated[Principal, Depends(requires("read"))],
    source: Annotated[
        str | None, Query(max_length=4_096, pattern=WITHOUT_NUL, description="one of several with this id")
    ] = None,
    offset: Annotated[int, Query(ge=0, le=2**31, description="first passage to show")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_PASSAGES, description="passages to show")] = 1_000,
) -> Response:
    """Show a document: its passages joined, and its metadata."""
    where = within_tenant(_with_ids([id]), service.tenant_field, principal.tenant) or _with_ids([id])
    most = min(limit, service.config.limits.passages)

    def work(pipeline: TwoStagePipeline) -> DocumentReply:
        return _document(pipeline, id, where, source, offset, most)

    reply = await service.run(work, context)
    return Response(reply.model_dump_json(), media_type="application/json")


@router.delete("/v1/documents/{id:path}", responses=problems(404, 507))
async def delete_document(
    id: DocumentId,
    service: ServiceOf,
    context: ContextOf,
    principal: Annotated[Principal, Depends(requires("write"))],
) -> DeletedReply:
    """Remove a document; what is removed does not come back after a crash."""
    where = within_tenant(_with_ids([id]), service.tenant_field, principal.tenant) or _with_ids([id])
    removed = await service.write(lambda pipeline: pipeline.delete_where(where), context)
    if not removed:
        raise _unknown()
    return DeletedReply(removed=removed)


def _with_ids(ids: Sequence[str]) -> dict[str, Any]:
    return {"must": [{"key": "document_id", "match": {"any": list(ids)}}]}


def _unknown() -> ServiceError:
    return ServiceError(404, "unknown_document", "there is no document with this id")


def _document(
    pipeline: TwoStagePipeline, name: str, where: Filter, source: str | None, offset: int, limit: int
) -> DocumentReply:
    found = read_document(pipeline, name, where=where, source=source, offset=offset, limit=limit)
    if found is None:
        raise _unknown()
    return DocumentReply(
        id=name,
        source=found.source,
        title=found.title,
        metadata=dict(found.metadata),
        text=joined_text(found.passages),
        passages=[_passage(passage) for passage in found.passages],
        total_passages=found.total_passages,
        other_sources=list(found.other_sources),
    )


def _passage(passage: StoredPassage) -> PassageReply:
    return PassageReply(
        passage_id=passage.id,
        index=passage.index,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        headings=list(passage.headings),
    )
