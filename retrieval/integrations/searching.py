"""What every adapter needs of a pipeline, and what it tells about a hit."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import Any, Literal, Protocol, TypedDict, Unpack, runtime_checkable

from retrieval.datatypes import Filter, FirstStage, GroupBy, Hit, Results

DETAILS = "two_stage"
"""Key of the metadata under which everything about the search stands."""


class SearchSettings(TypedDict, total=False):
    """Keyword arguments of a search, as `TwoStagePipeline.search` documents them; ``None`` takes the configured value.

    Args:
        top_k: How many hits, at least 1.
        candidates: How many passages the first stage fetches.
        depth: How many of them the cross-encoder may read.
        budget_ms: Milliseconds after which it stops reading.
        rerank: ``False`` keeps the order of the first stage.
        first_stage: Arms that fetch candidates: ``hybrid``, ``dense`` or ``bm25``.
        where: Qdrant REST filter; metadata stands under ``metadata.``.
        group_by: ``document`` for the best passage of each document, ``passage`` for all.
        min_score: Hits with a lower probability are left out; ``auto`` takes the threshold stored with the index.
        exact: Search without the graph and over the original vectors.
    """

    top_k: int | None
    candidates: int | None
    depth: int | None
    budget_ms: float | None
    rerank: bool | None
    first_stage: FirstStage | None
    where: Filter | None
    group_by: GroupBy | None
    min_score: float | Literal["auto"] | None
    exact: bool | None


@runtime_checkable
class SearchPipeline(Protocol):
    """What an adapter needs: `TwoStagePipeline` and `LazyPipeline` have it. Safe to call from several threads."""

    def search(self, query: str, /, **settings: Unpack[SearchSettings]) -> Results:
        """The hits of a query, best first."""
        ...

    async def asearch(self, query: str, /, **settings: Unpack[SearchSettings]) -> Results:
        """`search` without blocking the event loop."""
        ...


@runtime_checkable
class AddressedPipeline(SearchPipeline, Protocol):
    """A pipeline that knows its address, opens itself and can be written down: `LazyPipeline`."""

    def open_once(self) -> object:
        """Open it, if it is not open."""
        ...

    def close(self) -> None:
        """Release it; the next search opens it again."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Its class as ``type`` and what `from_dict` of that class takes as ``init_parameters``."""
        ...


def merged(settings: SearchSettings, call: Mapping[str, Any]) -> SearchSettings:
    """The settings of a retriever with those of one call over them.

    Args:
        settings: Of the retriever.
        call: Of the call; a value of ``None`` takes the configured one.

    Raises:
        TypeError: ``call`` has a name that no search setting has.
    """
    names = SearchSettings.__annotations__
    if unknown := [name for name in call if name not in names]:
        raise TypeError(f"there is no search setting {unknown[0]!r}; there are {', '.join(names)}")
    return {**settings, **call}  # type: ignore[typeddict-item]


def hit_metadata(hit: Hit, results: Results) -> dict[str, Any]:
    """The metadata of the document, its id, title and source, and what the search found under `DETAILS`.

    Values are JSON values and belong to the caller. Metadata that the document brought keeps its place: ``title`` and
    ``source`` are added only where it has none.
    """
    known = {"document_id": hit.document_id, "title": hit.title, "source": hit.source}
    return {
        **{name: value for name, value in known.items() if value},
        **deepcopy(dict(hit.metadata)),
        DETAILS: hit_details(hit, results),
    }


def hit_details(hit: Hit, results: Results) -> dict[str, Any]:
    """Ranks, scores and place of a hit, and how the search went, as JSON values."""
    arms = {arm: {"rank": found.rank, "score": float(found.score)} for arm, found in hit.arms.items()}
    return {
        "rank": hit.rank,
        "score": float(hit.score),
        "probability": _number(hit.probability),
        "rerank_score": _number(hit.rerank_score),
        "first_stage_rank": hit.first_stage_rank,
        "first_stage_score": float(hit.first_stage_score),
        "dense": arms.get("dense"),
        "bm25": arms.get("bm25"),
        "document_id": hit.document_id,
        "passage_id": hit.passage_id,
        "title": hit.title,
        "headings": list(hit.headings),
        "source": hit.source,
        "start": hit.start,
        "end": hit.end,
        "read": None if hit.read is None else list(hit.read),
        "search": search_details(results),
    }


def search_details(results: Results) -> dict[str, Any]:
    """How a search went, as JSON values: timings in milliseconds, what was read, warnings."""
    return {
        "query": results.query,
        "candidates": results.candidates,
        "reranked": results.reranked,
        "stopped": results.stopped,
        "settled": results.settled,
        "answered": results.answered,
        "warnings": list(results.warnings),
        "timings_ms": asdict(results.timings),
    }


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
