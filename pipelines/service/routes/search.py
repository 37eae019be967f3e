"""Search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import ConfigDict, Discriminator, Field, Tag

from pipelines.service.auth import requires
from pipelines.service.context import Principal, RequestContext
from pipelines.service.core import ContextOf, Service, ServiceOf
from pipelines.service.errors import ServiceError
from pipelines.service.filters import WhereFilter
from pipelines.service.openapi import problems
from pipelines.service.strict_json import StrictRoute
from pipelines.service.wire import Cap, Count, CountOrNone, Reply, Text, Wire, check_caps
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import Arm, FirstStage, GroupBy, Hit, Results, Stopped
from retrieval.errors import RetrievalError

router = APIRouter(route_class=StrictRoute, tags=["search"])
# Left of the time of a request for sending the answer.
_SHARE_FOR_RERANKING = 0.9


def _bound(value: Any) -> Literal["@probability", "@auto"]:
    return "@auto" if isinstance(value, str) else "@probability"


MinScore = Annotated[
    Annotated[float, Field(ge=0, le=1), Tag("@probability")] | Annotated[Literal["auto"], Tag("@auto")],
    Discriminator(_bound),
]


class SearchSettings(Wire):
    """How to search; what is left out or null comes from the configuration."""

    top_k: Annotated[Count | None, Cap("top_k")] = Field(default=None, description="hits")
    candidates: Annotated[Count | None, Cap("candidates")] = Field(
        default=None, description="passages that the first stage fetches"
    )
    depth: Annotated[CountOrNone | None, Cap("depth")] = Field(
        default=None, description="candidates that the cross-encoder may read"
    )
    budget_ms: Annotated[float, Field(gt=0, le=3_600_000)] | None = Field(
        default=None, description="milliseconds after which it stops reading"
    )
    rerank: bool | None = Field(default=None, description="false keeps the order of the first stage")
    first_stage: FirstStage | None = Field(default=None, description="arms that fetch candidates")
    where: WhereFilter | None = Field(default=None, description="only passages that match")
    group_by: GroupBy | None = Field(
        default=None, description="document: the best passage of each document; passage: all of them"
    )
    min_score: MinScore | None = Field(
        default=None,
        description="hits with a lower probability, and those that were not read, are left out; auto: the threshold "
        "that is stored with the index",
    )
    exact: bool | None = Field(
        default=None, description="search all vectors as they were given, without the graph and without quantization"
    )


class SearchRequest(SearchSettings):
    """A search for one query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "pipe not broken but leaking", "top_k": 5},
                {"query": "tides", "where": {"must": [{"key": "metadata.year", "range": {"gte": 2020}}]}},
            ]
        }
    )
    query: Annotated[Text, Cap("query_characters")]


class SearchManyRequest(SearchSettings):
    """The same search for several queries."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": ["how does dough rise", "what is a tide"]}]})
    queries: Annotated[list[Text], Field(min_length=1), Cap("queries"), Cap("query_characters", each=True)]


class ArmReply(Reply):
    """Rank and raw score in one arm of the first stage."""

    rank: int
    score: float


class HitReply(Reply):
    """One hit, with what both stages made of it."""

    rank: int = Field(description="final rank, from 1")
    score: float = Field(description="final score, falling with the rank")
    document_id: str
    passage_id: str
    text: str
    title: str
    headings: list[str]
    start: int = Field(description="first character of the passage in the document")
    end: int
    source: str
    metadata: dict[str, Any]
    first_stage_rank: int
    first_stage_score: float
    rerank_score: float | None = Field(description="logit of the cross-encoder; null when it did not read the passage")
    read: tuple[int, int] | None = Field(description="what it read: first character of text and one past the last")
    probability: float | None = Field(
        description="calibrated probability that the passage answers the query; null when it was not read, or when the "
        "cross-encoder has no calibration"
    )
    arms: dict[Arm, ArmReply] = Field(description="the arms that returned it")


class TimingsReply(Reply):
    """Milliseconds of each stage."""

    encode: float
    retrieve: float
    rerank: float
    total: float


class ResultsReply(Reply):
    """The hits of one query, best first."""

    query: str
    hits: list[HitReply]
    timings: TimingsReply
    reranked: int = Field(description="candidates that the cross-encoder read")
    stopped: Stopped = Field(description="why it stopped reading")
    candidates: int = Field(description="passages that the first stage returned")
    warnings: list[str]
    settled: bool = Field(
        description="false when hits differ only by a negation, an opposite, a number or the order of their words, and "
        "the cross-encoder is not sure which comes first; the warnings name them"
    )
    answered: bool | None = Field(
        description="whether a hit reaches the threshold that is stored with the index; null without a threshold"
    )


class SearchReply(ResultsReply):
    """The answer to a search for one query."""

    request_id: str


class SearchManyReply(Reply):
    """The answer to a search for several queries, in their order."""

    results: list[ResultsReply]
    request_id: str


def _kind(value: Any) -> Literal["@one", "@many"]:
    many = "queries" in value if isinstance(value, Mapping) else isinstance(value, SearchManyRequest)
    return "@many" if many else "@one"


AnySearch = Annotated[
    Annotated[SearchRequest, Tag("@one")] | Annotated[SearchManyRequest, Tag("@many")], Discriminator(_kind)
]


@router.post("/v1/search", response_model=SearchReply | SearchManyReply, responses=problems(404, 409, 415))
async def search(
    body: AnySearch, service: ServiceOf, context: ContextOf, principal: Annotated[Principal, Depends(requires("read"))]
) -> Response:
    """Find the passages that answer a query, or each of several."""
    check_caps(body, service.config.limits)
    queries = [body.query] if isinstance(body, SearchRequest) else body.queries

    def work(pipeline: TwoStagePipeline) -> list[Results]:
        return _search(pipeline, queries, body, service, context, principal)

    found = await service.run(work, context)
    for results in found:
        service.metrics.stages(results.timings)
    reply: Reply
    if isinstance(body, SearchRequest):
        reply = SearchReply(**_fields(found[0]), request_id=context.request_id)
    else:
        replies = [ResultsReply(**_fields(results)) for results in found]
        reply = SearchManyReply(results=replies, request_id=context.request_id)
    return Response(reply.model_dump_json(), media_type="application/json")


def _search(
    pipeline: TwoStagePipeline,
    queries: list[str],
    body: SearchSettings,
    service: Service,
    context: RequestContext,
    principal: Principal,
) -> list[Results]:
    # The wait in the queue has taken its part of the time; reranking may have the rest.
    left_ms = context.remaining() * 1000 * _SHARE_FOR_RERANKING / len(queries)
    configured = pipeline.config.rerank.budget_ms if body.budget_ms is None else body.budget_ms
    try:
        return pipeline.search_many(
            queries,
            body.top_k,
            candidates=body.candidates,
            depth=body.depth,
            budget_ms=max(1.0, left_ms if configured is None else min(configured, left_ms)),
            rerank=body.rerank,
            first_stage=body.first_stage,
            where=service.visible(body.where, principal, pipeline),
            group_by=body.group_by,
            min_score=body.min_score,
            exact=body.exact,
        )
    except ValueError as error:
        if isinstance(error, RetrievalError):
            raise
        # What cannot be seen from the body alone: a threshold that the index or the cross-encoder does not have.
        raise ServiceError(409, "not_possible", str(error)) from error


def _fields(results: Results) -> dict[str, Any]:
    timings = results.timings
    return {
        "query": results.query,
        "hits": [_hit(hit) for hit in results],
        "timings": TimingsReply(
            encode=timings.encode, retrieve=timings.retrieve, rerank=timings.rerank, total=timings.total
        ),
        "reranked": results.reranked,
        "stopped": results.stopped,
        "candidates": results.candidates,
        "warnings": list(results.warnings),
        "settled": results.settled,
        "answered": results.answered,
    }


def _hit(hit: Hit) -> HitReply:
    return HitReply(
        rank=hit.rank,
        score=hit.score,
        document_id=hit.document_id,
        passage_id=hit.passage_id,
        text=hit.text,
        title=hit.title,
        headings=list(hit.headings),
        start=hit.start,
        end=hit.end,
        source=hit.source,
        metadata=dict(hit.metadata),
        first_stage_rank=hit.first_stage_rank,
        first_stage_score=hit.first_stage_score,
        rerank_score=hit.rerank_score,
        read=hit.read,
        probability=hit.probability,
        arms={arm: ArmReply(rank=score.rank, score=score.score) for arm, score in hit.arms.items()},
    )
