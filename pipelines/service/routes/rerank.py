"""Texts in the order in which they answer a query, as the clients of Cohere (v1 and v2) and Jina ask for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from pipelines.service.auth import requires
from pipelines.service.config import LimitsConfig
from pipelines.service.context import Principal, RequestContext
from pipelines.service.core import ContextOf, Service, ServiceOf
from pipelines.service.errors import ServiceError
from pipelines.service.openapi import problems
from pipelines.service.served_models import require_model
from pipelines.service.strict_json import StrictRoute
from pipelines.service.wire import Cap, Count, Reply, Wire, check_caps
from pipelines.two_stage import TwoStagePipeline
from retrieval.ordering import order
from retrieval.rerankers import choose_windows

_TEXTS_A_TIME = 32
_TEXTS_PER_SEARCH_UNIT = 100
"""Cohere counts a query with up to so many documents as one unit."""

router = APIRouter(route_class=StrictRoute, tags=["models"])

NonEmpty = Annotated[str, Field(min_length=1)]
Fields = dict[str, str]


def _with_text(fields: Fields) -> Fields:
    if "text" not in fields:
        raise ValueError("the object has no field 'text'; rank_fields names others to read")
    return fields


TextObject = Annotated[
    Fields,
    AfterValidator(_with_text),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": {"type": "string"},
        }
    ),
]
_EXAMPLE = ConfigDict(
    json_schema_extra={
        "examples": [
            {
                "model": "starter-reranker",
                "query": "pipe not broken but leaking",
                "documents": ["The pipe is broken.", "Water drips from a sound pipe."],
                "top_n": 1,
            }
        ]
    }
)


class _Request(Wire):
    query: Annotated[NonEmpty, Cap("query_characters")]
    model: str | None = Field(default=None, description="name of the cross-encoder; null for the one that is served")
    top_n: Count | None = Field(default=None, description="how many results, the best; null for all")
    max_tokens_per_doc: Count | None = Field(
        default=None, description="words read of a document, those closest to the query; never more than configured"
    )


class _FirstVersion(_Request):
    return_documents: bool | None = Field(
        default=None, description="whether results carry their documents; null: yes, as Jina does"
    )
    max_chunks_per_doc: Count | None = Field(
        default=None, description="one stretch of a document is read, which is never more than asked for"
    )


class RerankRequest(_FirstVersion):
    """What clients of Cohere's first version and of Jina send."""

    model_config = _EXAMPLE

    documents: Annotated[
        list[str | TextObject],
        Field(min_length=1, description="texts, or objects with a text"),
        Cap("rerank_documents"),
    ]
    rank_fields: None = None


class RerankFieldsRequest(_FirstVersion):
    """The same for objects of which other fields are read."""

    documents: Annotated[
        list[str | Fields],
        Field(min_length=1, description="texts, or objects whose fields are texts"),
        Cap("rerank_documents"),
    ]
    rank_fields: Annotated[list[NonEmpty], Field(min_length=1)] = Field(
        description="fields that are read, in this order, as far as an object has them"
    )


class RerankV2Request(_Request):
    """What clients of Cohere's second version send."""

    model_config = _EXAMPLE

    documents: Annotated[list[str], Field(min_length=1), Cap("rerank_documents")]


def _kind(value: Any) -> Literal["@text", "@fields"]:
    fields = value.get("rank_fields") if isinstance(value, Mapping) else getattr(value, "rank_fields", None)
    return "@text" if fields is None else "@fields"


AnyRerank = Annotated[
    Annotated[RerankRequest, Tag("@text")] | Annotated[RerankFieldsRequest, Tag("@fields")], Discriminator(_kind)
]


class Result(Reply):
    """One document, by its place in the request."""

    index: int = Field(ge=0)
    relevance_score: float = Field(
        ge=0,
        le=1,
        description="calibrated probability that the document answers the query; sigmoid of the logit where the "
        "cross-encoder has no calibration",
    )
    document: Fields | None = None


class ApiVersion(Reply):
    """Version of Cohere's format."""

    version: str


class BilledUnits(Reply):
    """What Cohere would count; nothing is billed."""

    search_units: int = Field(ge=1)


class Meta(Reply):
    """What Cohere's clients look for beside the results."""

    api_version: ApiVersion
    billed_units: BilledUnits


class RerankUsage(Reply):
    """Tokens of the query and of what was read, as the static encoder counts them."""

    prompt_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class RerankReply(Reply):
    """The best documents first; equal ones in the order of the request."""

    id: str
    object: str = "list"
    model: str
    results: list[Result]
    meta: Meta
    usage: RerankUsage


@dataclass(frozen=True, slots=True)
class _Read:
    """What came of reading: logit and score of each text, tokens that were read, and who read."""

    logits: list[float]
    scores: list[float]
    tokens: int
    model: str


@router.post("/v1/rerank", response_model_exclude_none=True, responses=problems(404))
async def rerank(
    body: AnyRerank,
    service: ServiceOf,
    context: ContextOf,
    _: Annotated[Principal, Depends(requires("read"))],
) -> RerankReply:
    """Order documents with the cross-encoder; the wire formats of Cohere's first version and of Jina."""
    texts = [_text_of(document, body.rank_fields or ["text"]) for document in body.documents]
    read = await _read(service, context, body, texts)
    shown: list[Fields] | None = None
    if body.return_documents is not False:
        shown = [{"text": one} if isinstance(one, str) else one for one in body.documents]
    return _reply(read, body.top_n, context.request_id, "1", shown)


@router.post("/v2/rerank", response_model_exclude_none=True, responses=problems(404))
async def rerank_v2(
    body: RerankV2Request,
    service: ServiceOf,
    context: ContextOf,
    _: Annotated[Principal, Depends(requires("read"))],
) -> RerankReply:
    """Order documents with the cross-encoder; the wire format of Cohere's second version."""
    read = await _read(service, context, body, body.documents)
    return _reply(read, body.top_n, context.request_id, "2", None)


async def _read(service: Service, context: RequestContext, body: _Request, texts: list[str]) -> _Read:
    check_caps(body, service.config.limits)
    _check_lengths(texts, service.config.limits)

    def work(pipeline: TwoStagePipeline) -> _Read:
        require_model(body.model, pipeline.reranker().name, service.config.rerank_names)
        return read_texts(pipeline, body.query, texts, body.max_tokens_per_doc, context)

    return await service.run(work, context)


def read_texts(
    pipeline: TwoStagePipeline, query: str, texts: Sequence[str], words: int | None, context: RequestContext
) -> _Read:
    """Let the cross-encoder read the stretch of each text that is closest to the query.

    Raises:
        ServiceError: 504, the time of the request is over.
        ModelError: The cross-encoder is missing or cannot be run.
    """
    encoder, reranker = pipeline.encoder, pipeline.reranker()
    configured = pipeline.config.rerank.window_words
    window = min((bound for bound in (words, configured) if bound is not None), default=None)
    vector = encoder.encode_queries([query])[0]
    logits: list[float] = []
    tokens = encoder.count_tokens(query) * len(texts)
    for start in range(0, len(texts), _TEXTS_A_TIME):
        if context.remaining() <= 0:
            raise ServiceError(504, "timeout", f"{start} of {len(texts)} documents were read in the time there is")
        some = texts[start : start + _TEXTS_A_TIME]
        spans = choose_windows(vector, some, encoder, window)
        stretches = [text[begin:end] for text, (begin, end) in zip(some, spans, strict=True)]
        logits += reranker.score(query, stretches).tolist()
        tokens += sum(map(encoder.count_tokens, stretches))
    probabilities = pipeline.confidence().probabilities(logits)
    scores = [_sigmoid(logit) if one is None else one for logit, one in zip(logits, probabilities, strict=True)]
    return _Read(logits, scores, tokens, reranker.name)


def _reply(read: _Read, top_n: int | None, request_id: str, version: str, shown: list[Fields] | None) -> RerankReply:
    positions = range(len(read.scores))
    best = order(read.logits, positions, [str(position) for position in positions])[:top_n]
    return RerankReply(
        id=request_id,
        model=read.model,
        results=[
            Result(index=at, relevance_score=read.scores[at], document=None if shown is None else shown[at])
            for at in best
        ],
        meta=Meta(
            api_version=ApiVersion(version=version),
            billed_units=BilledUnits(search_units=math.ceil(len(read.scores) / _TEXTS_PER_SEARCH_UNIT)),
        ),
        usage=RerankUsage(prompt_tokens=read.tokens, total_tokens=read.tokens),
    )


def _text_of(document: str | Fields, fields: Sequence[str]) -> str:
    return document if isinstance(document, str) else "\n".join(document[name] for name in fields if name in document)


def _check_lengths(texts: Sequence[str], limits: LimitsConfig) -> None:
    longest = max(range(len(texts)), key=lambda position: len(texts[position]))
    if len(texts[longest]) > limits.document_characters:
        message = f"{len(texts[longest]):,} characters is more than {limits.document_characters:,}"
        raise ServiceError(
            422,
            "too_large",
            "the request asks for more than this service allows",
            errors=[{"loc": ["body", "documents", longest], "message": message}],
        )


def _sigmoid(logit: float) -> float:
    # The form for each sign in which the exponential cannot overflow.
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
