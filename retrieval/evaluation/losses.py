"""Where relevant documents are lost on their way to the top of a two-stage result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal[
    "found",
    "no place",
    "not ingested",
    "encoder and BM25",
    "quantization",
    "approximate search",
    "fusion cut",
    "rerank depth",
    "rerank budget",
    "passage window",
    "cross-encoder",
]
"""What became of a relevant document: found in the top, or the stage that lost it."""

STAGES: tuple[Stage, ...] = get_args(Stage)
FIRST_STAGE: tuple[Stage, ...] = STAGES[2:7]
READING: tuple[Stage, ...] = ("rerank depth", "rerank budget")
ORDERING: tuple[Stage, ...] = ("passage window", "cross-encoder")

Unread = Literal["depth", "budget", "failed"]
"""Why the cross-encoder left candidates of a query unread: where it stops, its time was spent, or it gave an error."""

_UNREAD: dict[Unread, Stage] = {"depth": "rerank depth", "budget": "rerank budget", "failed": "cross-encoder"}
# How far a document came, for those that compete for the last places; a window is a matter of the same reading.
_PROGRESS = {stage: place for place, stage in enumerate(STAGES)} | {
    "rerank budget": STAGES.index("rerank depth"),
    "passage window": STAGES.index("cross-encoder"),
}


@dataclass(frozen=True, slots=True)
class Trail:
    """How far a passage came, or, merged, the best passage of a document.

    Args:
        dense_rank: Rank in the exact search over the whole vectors, passages from 1; ``None`` where it is further down
            than was looked.
        bm25_rank: The same for BM25; ``None`` also where no word is shared.
        with_exact: Whether it would be a candidate if the static arm searched exactly.
        near_by_codes: Whether its compressed vector alone is near enough to be fetched; ``None`` where vectors are not
            compressed.
        first_stage_rank: Rank after fusion, passages from 1; ``None`` where it is no candidate.
        read: Whether the cross-encoder read it.
        elsewhere: Whether another window of it, had it been read there, would have scored enough for the top.
    """

    dense_rank: int | None = None
    bm25_rank: int | None = None
    with_exact: bool = False
    near_by_codes: bool | None = None
    first_stage_rank: int | None = None
    read: bool = False
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class RelevantDocument:
    """A judged document and how far it came for one query.

    Args:
        query: Id of the query.
        document: Id of the document.
        grade: Its grade, at least 1.
        ingested: Whether the index holds a passage of it.
        rank: Rank in the final result, documents from 1; ``None`` where it is not there.
        trail: That of its best passages.
    """

    query: str
    document: str
    grade: int
    ingested: bool
    rank: int | None
    trail: Trail


@dataclass(frozen=True, slots=True)
class Fate:
    """A relevant document and what became of it."""

    relevant: RelevantDocument
    stage: Stage


def merge_trails(trails: Iterable[Trail]) -> Trail:
    """The trail of a document: in every stage its best passage counts.

    Args:
        trails: Those of its passages; none give the trail of a document that nothing has seen.
    """
    rows = list(trails)
    by_codes = [row.near_by_codes for row in rows if row.near_by_codes is not None]
    return Trail(
        dense_rank=_best(row.dense_rank for row in rows),
        bm25_rank=_best(row.bm25_rank for row in rows),
        with_exact=any(row.with_exact for row in rows),
        near_by_codes=any(by_codes) if by_codes else None,
        first_stage_rank=_best(row.first_stage_rank for row in rows),
        read=any(row.read for row in rows),
        elsewhere=any(row.elsewhere for row in rows),
    )


def stage_of(document: RelevantDocument, *, candidates: int, unread: Unread, places: int = 10) -> Stage:
    """The first stage on the way that lost a document, or ``found``.

    * No candidate: ``not ingested``; else ``quantization`` or ``approximate search`` where an exact static arm would
      have made it one (by its codes: were they not near enough, it is quantization); else ``fusion cut`` where an arm
      has it among its first ``candidates``; else ``encoder and BM25``: both arms missed it.
    * A candidate that was not read: ``rerank depth`` or ``rerank budget``; ``cross-encoder`` where that failed.
    * Read and too low: ``passage window`` where another window would have been enough, else ``cross-encoder``.

    Args:
        document: The document.
        candidates: How many passages each arm fetches and fusion keeps.
        unread: Why candidates of this query were left unread.
        places: How long the top is.
    """
    trail = document.trail
    if document.rank is not None and document.rank <= places:
        return "found"
    if trail.first_stage_rank is None:
        return _lost_before_reading(document, candidates)
    if not trail.read:
        return _UNREAD[unread]
    return "passage window" if trail.elsewhere else "cross-encoder"


def fates_of(
    documents: Sequence[RelevantDocument], *, candidates: int, unread: Mapping[str, Unread], places: int = 10
) -> tuple[Fate, ...]:
    """What became of every relevant document, each counted once.

    A query with more relevant documents than places loses only as many as would have had a place: those of the highest
    grade, and among equals those that came furthest. The rest gets ``no place``.

    Args:
        documents: All relevant documents of all queries.
        candidates: As for `stage_of`.
        unread: As for `stage_of`, by query; ``depth`` for queries that are left out.
        places: How long the top is.

    Returns:
        Fates in the order of ``documents``.
    """
    stages = {
        (one.query, one.document): stage_of(
            one, candidates=candidates, unread=unread.get(one.query, "depth"), places=places
        )
        for one in documents
    }
    missed: dict[str, list[RelevantDocument]] = {}
    free: dict[str, int] = {}
    for one in documents:
        free.setdefault(one.query, places)
        if stages[one.query, one.document] == "found":
            free[one.query] -= 1
        else:
            missed.setdefault(one.query, []).append(one)
    for query, rows in missed.items():
        rows.sort(key=lambda one: _claim(one, stages[one.query, one.document]))
        for one in rows[max(0, free[query]) :]:
            stages[one.query, one.document] = "no place"
    return tuple(Fate(one, stages[one.query, one.document]) for one in documents)


def count_stages(fates: Iterable[Fate]) -> dict[Stage, int]:
    """How many documents each stage has, all stages in their order; the counts add up to the number of fates."""
    counts = dict.fromkeys(STAGES, 0)
    for fate in fates:
        counts[fate.stage] += 1
    return counts


def ideal_order(documents: Iterable[str], grades: Mapping[str, int]) -> list[str]:
    """The best order there is of some documents: by grade, highest first, and as they came among equals.

    Args:
        documents: Ids, each once.
        grades: Grade of each judged document; others count 0.
    """
    return sorted(documents, key=lambda document: -max(0, grades.get(document, 0)))


def _lost_before_reading(document: RelevantDocument, candidates: int) -> Stage:
    trail = document.trail
    if not document.ingested:
        return "not ingested"
    if trail.with_exact:
        return "quantization" if trail.near_by_codes is False else "approximate search"
    if any(rank is not None and rank <= candidates for rank in (trail.dense_rank, trail.bm25_rank)):
        return "fusion cut"
    return "encoder and BM25"


def _claim(document: RelevantDocument, stage: Stage) -> tuple[float, ...]:
    """Smaller for those that have more of a claim to a place."""
    far = math.inf if document.rank is None else float(document.rank)
    before = document.trail.first_stage_rank
    return -document.grade, -_PROGRESS[stage], far, math.inf if before is None else float(before)


def _best(ranks: Iterable[int | None]) -> int | None:
    return min((rank for rank in ranks if rank is not None), default=None)
