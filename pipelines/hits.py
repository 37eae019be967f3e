"""From candidates to hits: payloads, groups, what became of each candidate, and the final order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.confidence import reaches
from pipelines.search_options import SearchOptions
from retrieval.datatypes import Candidate, FloatArray, GroupBy, Hit
from retrieval.ordering import order
from retrieval.protocols import Store
from retrieval.rerankers import Reading


@dataclass(slots=True)
class Fetched:
    """The first stage of one query: candidates in fused order, and the payloads of the first of them."""

    candidates: list[Candidate]
    vector: FloatArray
    payloads: list[Mapping[str, Any]]

    def load(self, store: Store, upto: int) -> None:
        """Have the payloads of the first ``upto`` candidates; one that was deleted since the search is left out."""
        start = len(self.payloads)
        wanted = self.candidates[start:upto]
        points = (
            {point.id: point.payload for point in store.get([candidate.id for candidate in wanted])} if wanted else {}
        )
        kept = [candidate for candidate in wanted if candidate.id in points]
        self.candidates[start:upto] = kept
        self.payloads += [points[candidate.id] for candidate in kept]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Final score of a candidate, and what the cross-encoder made of it, if it read it."""

    score: float
    logit: float | None
    probability: float | None
    read: tuple[int, int] | None


def groups_of(found: Fetched, group_by: GroupBy) -> list[str]:
    """The group of each candidate whose payload is loaded."""
    if group_by == "document":
        return [str(payload["document"]) for payload in found.payloads]
    return [candidate.id for candidate, _ in zip(found.candidates, found.payloads, strict=False)]


def outcomes_of(
    found: Fetched,
    reading: Reading,
    ranges: Mapping[int, tuple[int, int]],
    probabilities: Sequence[float | None],
) -> dict[str, Outcome]:
    """What became of each candidate, by id: positions move when a candidate turns out to be deleted."""
    rows = zip(found.candidates, reading.scores, reading.logits, probabilities, strict=True)
    return {
        candidate.id: Outcome(score, logit, probability, None if logit is None else ranges[position])
        for position, (candidate, score, logit, probability) in enumerate(rows)
    }


def best_hits(
    found: Fetched, outcomes: Mapping[str, Outcome], options: SearchOptions, least: float | None = None
) -> tuple[Hit, ...]:
    """The best loaded candidate of each group, best first.

    What is not loaded was not read and ranked behind all that is, so it cannot come before any of these.

    Args:
        found: Candidates with their payloads.
        outcomes: By id.
        options: How many and how grouped.
        least: Probability that a candidate needs; one without a probability does not have it. ``None`` for all.
    """
    groups = groups_of(found, options.group_by)
    loaded = found.candidates[: len(groups)]
    scores = [outcomes[candidate.id].score for candidate in loaded]
    best: dict[str, int] = {}
    for position in order(scores, [candidate.rank for candidate in loaded], [candidate.id for candidate in loaded]):
        if least is None or reaches(outcomes[loaded[position].id].probability, least):
            best.setdefault(groups[position], position)
    chosen = list(best.values())[: options.top_k]
    return tuple(
        _hit(rank, loaded[at], found.payloads[at], outcomes[loaded[at].id]) for rank, at in enumerate(chosen, start=1)
    )


def _hit(rank: int, candidate: Candidate, payload: Mapping[str, Any], outcome: Outcome) -> Hit:
    return Hit(
        rank=rank,
        score=outcome.score,
        document_id=payload["document_id"],
        passage_id=candidate.id,
        text=payload["text"],
        title=payload["title"],
        headings=tuple(payload.get("headings", ())),
        start=payload["start"],
        end=payload["end"],
        source=payload["source"],
        metadata=payload.get("metadata", {}),
        first_stage_rank=candidate.rank,
        first_stage_score=candidate.score,
        rerank_score=outcome.logit,
        read=outcome.read,
        arms=candidate.arms,
        probability=outcome.probability,
    )
