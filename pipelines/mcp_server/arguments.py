"""What the tools take; the JSON schemas that clients see are made from these models."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipelines.mcp_server import limits


class _Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    collection: Annotated[str, Field(max_length=limits.NAME_CHARACTERS)] | None = Field(
        default=None, description="Name of the collection, from list_collections; not needed where there is only one."
    )


def _object(value: Any) -> Any:
    """Some clients send an object as a string of JSON."""
    if isinstance(value, str) and len(value) <= limits.FILTER_CHARACTERS:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


class SearchCall(_Arguments):
    """Arguments of ``search``."""

    query: str = Field(
        min_length=1, max_length=limits.QUERY_CHARACTERS, description="A question or keywords, in plain language."
    )
    top_k: int = Field(default=5, ge=1, le=limits.TOP_K, description="How many hits.")
    where: Annotated[dict[str, Any] | None, BeforeValidator(_object)] = Field(
        default=None,
        description=(
            "Qdrant filter over metadata, such as "
            '{"must": [{"key": "metadata.year", "range": {"gte": 2020}}]}; leave it out to search everything.'
        ),
    )
    budget_ms: float | None = Field(
        default=None,
        gt=0,
        le=limits.BUDGET_MS,
        description="Milliseconds for the cross-encoder to read in; less is faster, more may be better ordered.",
    )
    rerank: bool | None = Field(default=None, description="false keeps the order of the first stage: fastest.")
    first_stage: Literal["hybrid", "dense", "bm25"] | None = Field(
        default=None, description="Which arms fetch candidates: by meaning (dense), by words (bm25), or both (hybrid)."
    )
    candidates: int | None = Field(
        default=None, ge=1, le=limits.CANDIDATES, description="How many passages the first stage fetches."
    )
    depth: int | None = Field(
        default=None, ge=0, le=limits.DEPTH, description="How many of them the cross-encoder may read."
    )
    group_by: Literal["document", "passage"] | None = Field(
        default=None, description="'document' for the best passage of each document, 'passage' for all passages."
    )
    min_score: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] | None = Field(
        default=None,
        description="Leave out hits whose probability to answer the query is lower; 'auto' for the index's threshold.",
    )


class GetDocumentCall(_Arguments):
    """Arguments of ``get_document``."""

    id: str = Field(min_length=1, max_length=limits.NAME_CHARACTERS, description="document_id of a hit.")
    source: Annotated[str, Field(max_length=limits.PATH_CHARACTERS)] | None = Field(
        default=None, description="Which of several documents with this id, from other_sources."
    )
    offset: int = Field(
        default=0,
        ge=0,
        le=2**40,
        description="First character to read; start and end of hits are such characters, next_offset goes on.",
    )
    length: int = Field(
        default=limits.DEFAULT_DOCUMENT_CHARACTERS,
        ge=1,
        le=limits.DOCUMENT_CHARACTERS,
        description="How many characters at most.",
    )


class IngestCall(_Arguments):
    """Arguments of ``ingest``."""

    paths: list[Annotated[str, Field(min_length=1, max_length=limits.PATH_CHARACTERS)]] = Field(
        min_length=1,
        max_length=limits.PATHS,
        description="Files or folders, relative to one of the allowed folders, or absolute inside one.",
    )


class ListCollectionsCall(BaseModel):
    """Arguments of ``list_collections``: none."""

    model_config = ConfigDict(frozen=True, extra="forbid")
