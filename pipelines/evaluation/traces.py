"""What is kept of a search to tell later where its relevant documents were lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from retrieval.datatypes import Hit, Results
from retrieval.evaluation.losses import Unread, ideal_order
from retrieval.ordering import scale_to_unit

PLACES = 10
"""How long the top is: that of nDCG@10."""


@dataclass(frozen=True, slots=True)
class TracedPassage:
    """A candidate of a relevant document.

    Args:
        id: Point id.
        document: Id of the document.
        rank: In the first stage, from 1.
        first: Score of the first stage, scaled over all candidates as the final score takes it.
        read: Characters that the cross-encoder read; ``None`` where it did not.
    """

    id: str
    document: str
    rank: int
    first: float
    read: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class QueryTrace:
    """One search, as far as its relevant documents and its top are concerned.

    Args:
        ranks: Final rank of each relevant document that is a candidate, documents from 1.
        passages: Its candidates, best first stage first.
        bar: Final score that another document must exceed to be in the top; minus infinity where there is room.
        unread: Why candidates were left unread.
        first_stage: Top documents of the first stage.
        ideal: Top documents, were the candidates in the best order there is.
        ideal_read: The same, were only those that were read.
    """

    ranks: Mapping[str, int]
    passages: tuple[TracedPassage, ...]
    bar: float
    unread: Unread
    first_stage: tuple[str, ...]
    ideal: tuple[str, ...]
    ideal_read: tuple[str, ...]


def trace_of(results: Results, grades: Mapping[str, int], *, depth: int) -> QueryTrace:
    """Keep what is needed of a search.

    Args:
        results: All candidates, passage by passage.
        grades: Grades of the query; those below 1 are not relevant.
        depth: How many candidates the cross-encoder was to read.
    """
    final = _documents(results.hits)
    by_first_stage = sorted(results.hits, key=lambda hit: hit.first_stage_rank)
    scaled = scale_to_unit([hit.first_stage_score for hit in by_first_stage])
    first_stage = list(_documents(by_first_stage))
    read = {hit.document_id for hit in results.hits if hit.rerank_score is not None}
    relevant = {document for document, grade in grades.items() if grade >= 1}
    scores = list(final.values())
    ideal_read = [
        *ideal_order([document for document in first_stage if document in read], grades),
        *(document for document in first_stage if document not in read),
    ]
    return QueryTrace(
        ranks={document: rank for rank, document in enumerate(final, start=1) if document in relevant},
        passages=tuple(
            TracedPassage(hit.passage_id, hit.document_id, hit.first_stage_rank, first, hit.read)
            for hit, first in zip(by_first_stage, scaled, strict=True)
            if hit.document_id in relevant
        ),
        bar=scores[PLACES - 1] if len(scores) >= PLACES else -math.inf,
        unread=_unread(results, depth),
        first_stage=tuple(first_stage[:PLACES]),
        ideal=tuple(ideal_order(first_stage, grades)[:PLACES]),
        ideal_read=tuple(ideal_read[:PLACES]),
    )


def _documents(hits: tuple[Hit, ...] | list[Hit]) -> dict[str, float]:
    """Score of the best passage of each document, in the order given."""
    best: dict[str, float] = {}
    for hit in hits:
        best.setdefault(hit.document_id, hit.score)
    return best


def _unread(results: Results, depth: int) -> Unread:
    if results.stopped == "budget":
        return "budget"
    return "failed" if depth and not results.reranked else "depth"
