"""What is served: the index, how it searches where a request does not say, and the metadata of its documents."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field

from pipelines.service.auth import requires
from pipelines.service.config import Scope
from pipelines.service.context import Principal
from pipelines.service.core import ContextOf, Service, ServiceOf
from pipelines.service.fields import SECTION, count_fields
from pipelines.service.openapi import problems
from pipelines.service.strict_json import StrictRoute
from pipelines.service.wire import Reply
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import FirstStage, GroupBy

router = APIRouter(route_class=StrictRoute, tags=["search"])
_SAMPLE = 2_000


class DefaultsReply(Reply):
    """What a search does where the request does not say."""

    top_k: int
    candidates: int
    depth: int
    budget_ms: float | None
    rerank: bool
    first_stage: FirstStage
    group_by: GroupBy


class BoundsReply(Reply):
    """What one request may ask for."""

    top_k: int
    candidates: int
    depth: int
    query_characters: int
    upload_bytes: int
    files: int


class IndexReply(Reply):
    """The index that is served, and how."""

    documents: int | None = Field(description="null for the key of a tenant: only passages are counted for it")
    passages: int = Field(description="those that the key may see")
    encoder: str
    dimensions: int
    adapted: bool = Field(description="whether the encoder was adapted to these documents")
    reranker: str | None = Field(description="null where searches do not rerank")
    store: str = Field(description="edge (embedded), server or memory")
    quantization: str = Field(description="none, or how vectors are compressed for search")
    language: str = Field(description="of the BM25 arm")
    updated: str
    defaults: DefaultsReply
    limits: BoundsReply
    scopes: list[Scope] = Field(description="what the key may do")


class ValueReply(Reply):
    """One value and the passages that hold it."""

    value: str | int | bool
    passages: int


class FieldReply(Reply):
    """One field of the metadata."""

    key: str = Field(description="as filters name it", examples=["metadata.topic"])
    passages: int = Field(description="passages of the sample that have it")
    different: int = Field(description="different values, as far as they were counted")
    values: list[ValueReply] = Field(description="the most frequent ones; no floats")
    least: float | None = Field(description="smallest number; null where it holds none")
    most: float | None


class FieldsReply(Reply):
    """The metadata of a sample of passages."""

    fields: list[FieldReply]
    sampled: int = Field(description="passages that were looked at")
    complete: bool = Field(description="whether these are all there are")


@router.get("/v1/index", response_model=IndexReply, responses=problems())
async def index(
    service: ServiceOf, context: ContextOf, principal: Annotated[Principal, Depends(requires("read"))]
) -> Response:
    """Say what is served, and what a search does where the request does not say."""
    reply = await service.run(lambda pipeline: _index(pipeline, service, principal), context)
    return Response(reply.model_dump_json(), media_type="application/json")


@router.get("/v1/fields", response_model=FieldsReply, responses=problems())
async def fields(
    service: ServiceOf,
    context: ContextOf,
    principal: Annotated[Principal, Depends(requires("read"))],
    values: Annotated[int, Query(ge=0, le=100, description="values to show of each field")] = 10,
) -> Response:
    """Say which metadata the documents have and which values are frequent, from a sample of 2,000 passages."""
    reply = await service.run(lambda pipeline: _fields(pipeline, service, principal, values), context)
    return Response(reply.model_dump_json(), media_type="application/json")


def _index(pipeline: TwoStagePipeline, service: Service, principal: Principal) -> IndexReply:
    own = service.visible(None, principal, pipeline)
    config, limits = pipeline.config, service.config.limits
    with pipeline.reading() as serving:
        manifest = pipeline.manifest
        passages = manifest.passages if own is None else serving.store.count(own)
        quantization = str(serving.store.quantization)
        # The time stands only in what is stored: it is set when the manifest is written.
        updated = (serving.store.read_manifest() or {}).get("updated", manifest.updated)
    encoder, first = manifest.encoder, config.first_stage
    return IndexReply(
        documents=manifest.documents if own is None else None,
        passages=passages,
        encoder=f"{encoder.name}@{encoder.digest}",
        dimensions=encoder.dim,
        adapted=manifest.adapted_from is not None,
        reranker=config.rerank.model if config.rerank.enabled else None,
        store=config.store.kind,
        quantization=quantization,
        language=str(manifest.bm25.get("language", "")),
        updated=str(updated),
        defaults=DefaultsReply(
            top_k=config.search.top_k,
            candidates=first.candidates,
            depth=config.rerank.depth,
            budget_ms=config.rerank.budget_ms,
            rerank=config.rerank.enabled,
            first_stage=first.arms,
            group_by=config.search.group_by,
        ),
        limits=BoundsReply(**{name: getattr(limits, name) for name in BoundsReply.model_fields}),
        scopes=sorted(principal.scopes),
    )


def _fields(pipeline: TwoStagePipeline, service: Service, principal: Principal, values: int) -> FieldsReply:
    own = service.visible(None, principal, pipeline)
    with pipeline.reading() as serving:
        # Points come by their ids, which are hashes: the first ones are as good a sample as any.
        found = islice(serving.store.scan(own, payload=[SECTION], batch=_SAMPLE + 1), _SAMPLE + 1)
        rows: list[dict[str, Any]] = [dict(point.payload.get(SECTION) or {}) for point in found]
    sample = rows[:_SAMPLE]
    return FieldsReply(
        fields=[
            FieldReply(
                key=one.key,
                passages=one.passages,
                different=len(one.values),
                values=[ValueReply(value=value, passages=count) for value, count in one.most_frequent(values)],
                least=one.least,
                most=one.most,
            )
            for one in count_fields(sample)
        ],
        sampled=len(sample),
        complete=len(rows) <= _SAMPLE,
    )
