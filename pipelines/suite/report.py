"""What a suite of minimal pairs gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from retrieval.evaluation.contrast import ContrastResult, Order
from retrieval.evaluation.permutation import PermutationResult

CROSS_ENCODER = "cross-encoder"
SYSTEMS = ("BM25", "static", "hybrid", CROSS_ENCODER, "two-stage")
"""What is compared: the searches, and the cross-encoder with nothing but the two twins to read."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class KindResult:
    """What was measured over the pairs of one kind, or all of them.

    Shares come with 95 % bootstrap intervals over topics. A tie, and a query for which neither twin was found, is not
    right.

    Args:
        kind: Kind of the pairs, ``all`` for all.
        pairs: How many pairs.
        queries: How many queries.
        kept: Share of queries that have both twins among the candidates of the first stage, for each arm.
        kept_intervals: Low and high.
        read: Share of queries with both twins read by the cross-encoder within its depth and budget.
        systems: Shares of right orders of each of `SYSTEMS`.
        ties: Share of queries whose twins have the same score, for each system.
    """

    kind: str
    pairs: int
    queries: int
    kept: Mapping[str, float]
    kept_intervals: Mapping[str, tuple[float, float]]
    read: float
    systems: Mapping[str, ContrastResult]
    ties: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """Measurements on a suite with everything needed to repeat them.

    Args:
        suite: Name of the suite.
        digest: Digest of its content.
        texts: Different texts of the suite.
        distractors: Other documents in the index.
        passages: Passages in the index; a long text has several, and its best one counts.
        source: Where the distractors come from, empty without any.
        candidates: Candidates of the first stage.
        depth: Candidates that the cross-encoder may read; twice as many for a query that negates.
        chance: What guessing reaches: right orders of queries, and of both queries of a pair.
        kinds: One result for each kind, and last one for ``all`` where there are several.
        permutation: What shuffling the words of the texts changes.
        orders: Order of each query for each system, in the order of `retrieval.evaluation.minimal_pairs.Suite.queries`.
        kept: Whether the hybrid first stage kept both twins of each query.
        names: Pair and number (1 or 2) of each query: ``negation-001/1``.
        kind_of: Kind of each query.
        topics: Topic of each query.
        encoder: Fingerprint of the static encoder.
        reranker: Name of the cross-encoder.
        config: All settings.
        seconds: Time of the whole measurement.
        date: ISO 8601 UTC.
    """

    suite: str
    digest: str
    texts: int
    distractors: int
    passages: int
    source: str
    candidates: int
    depth: int
    chance: Mapping[str, float]
    kinds: tuple[KindResult, ...]
    permutation: PermutationResult
    orders: Mapping[str, tuple[Order, ...]] = field(repr=False)
    kept: tuple[bool, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    kind_of: tuple[str, ...] = field(repr=False)
    topics: tuple[str, ...] = field(repr=False)
    encoder: str
    reranker: str
    config: Mapping[str, object] = field(repr=False)
    seconds: float
    date: str

    def couples(self, places: Sequence[int]) -> list[tuple[int, int]]:
        """Positions in ``places``, which rise, of the two queries of each pair that has both."""
        pairs = [self.names[place].rpartition("/")[0] for place in places]
        return [(number, number + 1) for number in range(len(pairs) - 1) if pairs[number] == pairs[number + 1]]
