"""What the tools answer: compact records for programs; `readable` has the same for people and models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class HitReply(_Reply):
    """One hit."""

    rank: int = Field(description="final rank, from 1")
    document_id: str
    title: str
    headings: list[str]
    source: str
    text: str = Field(description="the passage, or the part of it that was read where it is long")
    start: int = Field(description="first character of text in the document")
    end: int
    cut: bool = Field(description="whether text is only a part of the passage")
    score: float = Field(description="final score, higher is better")
    probability: float | None = Field(description="calibrated probability that it answers the query")
    first_stage_rank: int
    first_stage_score: float
    rerank_score: float | None = Field(description="logit of the cross-encoder; null when it did not read the passage")
    dense_rank: int | None = Field(description="rank by meaning; null when that arm did not find it")
    bm25_rank: int | None = Field(description="rank by words; null when that arm did not find it")
    metadata: dict[str, Any]


class SearchReply(_Reply):
    """Answer of ``search``."""

    collection: str
    query: str
    hits: list[HitReply]
    candidates: int = Field(description="passages that the first stage fetched")
    reranked: int = Field(description="how many of them the cross-encoder read")
    stopped: str = Field(description="why it stopped reading: complete, budget, settled, likely or off")
    settled: bool = Field(description="false when the order of close hits is not sure")
    total_ms: float
    warnings: list[str]


class DocumentReply(_Reply):
    """Answer of ``get_document``."""

    collection: str
    id: str
    title: str
    source: str
    metadata: dict[str, Any]
    text: str
    offset: int
    end: int
    length: int = Field(description="characters of the whole document")
    next_offset: int | None = Field(description="where to go on; null at the end")
    other_sources: list[str]


class Refusal(_Reply):
    """Something that could not be used, and why."""

    source: str
    reason: str


class IngestReply(_Reply):
    """Answer of ``ingest``."""

    collection: str
    added: int
    changed: int
    unchanged: int
    passages: int
    rejected: int
    rejections: list[Refusal] = Field(description="the first of them")
    seconds: float


class CollectionReply(_Reply):
    """One collection."""

    name: str
    location: str
    documents: int | None = Field(default=None, description="null when it cannot be searched")
    passages: int | None = None
    encoder: str | None = None
    quantization: str | None = None
    updated: str | None = Field(default=None, description="ISO 8601 UTC")
    problem: str | None = Field(default=None, description="why it cannot be searched; null when it can")


class CollectionsReply(_Reply):
    """Answer of ``list_collections``."""

    collections: list[CollectionReply]
    ingest_roots: list[str] = Field(description="folders that ingest may read; none when ingest is off")
