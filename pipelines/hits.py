"""From candidates to hits: payloads, groups, what became of each candidate, and the final order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.confidence import reaches
from pipelines.search_options import SearchOptions
from retrieval.datatypes import Candidate, FloatArray, GroupBy, Hit
from retrieval.errors import StoreCorruptError
from retrieval.ordering import Candidates, order
from retrieval.protocols import Store
from retrieval.rerankers import Reading

_SHOWN = frozenset(("document", "document_id", "text", "title", "start", "end", "source"))


@dataclass(slots=True)
class Fetched:
    """The first stage of one query: candidates in fused order, and the payloads of the first of them."""

    candidates: Candidates
    vector: FloatArray
    payloads: list[Mapping[str, Any]]

    def load(self, store: Store, upto: int) -> None:
        """Have the payloads of the first ``upto`` candidates; one that was deleted since the search is left out.

        Raises:
            StoreCorruptError: A payload lacks what a hit shows.
        """
        wanted = self.candidates.ids[len(self.payloads) : upto]
        points = {point.id: point.payload for point in store.get(wanted)} if wanted else {}
        if len(points) < len(wanted):
            self.candidates = self.candidates.without({name for name in wanted if name not in points})
        for name, payload in points.items():
            if not payload.keys() >= _SHOWN:
                lacking = ", ".join(sorted(_SHOWN - payload.keys()))
                raise StoreCorruptError(
                    f"passage {name} of {store.location} has no {lacking}: it is damaged, or another program has "
                    "written it; run 'retrieval doctor --deep'"
                )
        self.payloads += [points[name] for name in wanted if name in points]

    def load_groups(self, store: Store, wanted: int, group_by: GroupBy) -> None:
        """Have the payloads of the first candidates, so many that they are of ``wanted`` groups, or all.

        A payload costs more than ranking its candidate, a call of the store as much as some payloads: at first as many
        as there would be if every group had one, then half of that, and twice as many each time.
        """
        more, later = wanted, -(-wanted // 2)
        while len(self.payloads) < len(self.candidates):
            lacking = wanted - len(set(groups_of(self, group_by)))
            if lacking <= 0:
                return
            self.load(store, len(self.payloads) + max(lacking, more))
            more, later = later, 2 * later


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
    return list(found.candidates.ids[: len(found.payloads)])


class Outcomes(dict[str, Outcome]):
    """What became of each candidate, by id, put together when it is asked for.

    Args:
        ids: Of the candidates, in the order of what was read.
        reading: What came of reading.
        ranges: What was read of each text, by position.
        probabilities: Of the logits.
    """

    def __init__(
        self,
        ids: Sequence[str],
        reading: Reading,
        ranges: Mapping[int, tuple[int, int]],
        probabilities: Sequence[float | None],
    ) -> None:
        super().__init__()
        self._rows = dict(zip(ids, range(len(ids)), strict=True))
        self._reading = reading
        self._ranges = ranges
        self._probabilities = probabilities

    def __missing__(self, name: str) -> Outcome:
        at = self._rows[name]
        logit = self._reading.logits[at]
        read = None if logit is None else self._ranges[at]
        outcome = self[name] = Outcome(self._reading.scores[at], logit, self._probabilities[at], read)
        return outcome


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
    names, ranks = found.candidates.ids[: len(groups)], found.candidates.ranks[: len(groups)]
    best: dict[str, int] = {}
    for at in order([outcomes[name].score for name in names], ranks, names):
        if least is None or reaches(outcomes[names[at]].probability, least):
            best.setdefault(groups[at], at)
    chosen = list(best.values())[: options.top_k]
    return tuple(
        _hit(rank, found.candidates[at], found.payloads[at], outcomes[names[at]])
        for rank, at in enumerate(chosen, start=1)
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
