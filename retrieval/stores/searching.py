"""What the engines' searches have in common: requests are checked, asked with a margin, and cut in our order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrieval.datatypes import FloatArray, Quantization, ScoredPoint, SearchRequest, SparseVector
from retrieval.stores.filters import Clause
from retrieval.stores.points import checked_requests
from retrieval.stores.ties import MARGIN, close_tie


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A checked request.

    Args:
        vector: Dense or sparse.
        clause: Parsed filter, ``None`` for all points.
        limit: How many points are wanted.
        exact: Whether approximate search and quantization are bypassed.
        window: How many points are asked for.
        rescore: As `SearchRequest.rescore`.
    """

    vector: FloatArray | SparseVector
    clause: Clause | None
    limit: int
    exact: bool
    window: int
    rescore: bool | None = None

    def compression(self, quantization: Quantization) -> Quantization:
        """How this query is scored where vectors are compressed in that way."""
        return quantization if self.rescore is None else replace(quantization, rescore=self.rescore)


Ask = Callable[[list[Query]], Sequence[Sequence[Any]]]
"""Puts queries to the engine: hits with ``id`` and ``score`` for each, best first, at most ``window``."""
Names = Callable[[Sequence[Any]], Sequence[str]]
"""The ids of hits, as strings."""


def hit_names(hits: Sequence[Any]) -> list[str]:
    """The ids of hits, as strings."""
    return [str(hit.id) for hit in hits]


def search_engine(
    requests: Sequence[SearchRequest], dim: int, ask: Ask, *, exact: bool = False, names: Names = hit_names
) -> list[list[ScoredPoint]]:
    """Best points of each request by score descending, then id, also at the cut.

    Args:
        requests: As given by the caller.
        dim: Dimensions of dense vectors.
        ask: Puts queries to the engine.
        exact: Whether all of them are exact.
        names: Reads the ids of hits, where the engine has a quicker way.

    Raises:
        StoreInputError: A request is not usable; nothing was asked.
    """
    queries = [
        None
        if vector is None
        else Query(
            vector, clause, request.limit, exact or request.exact, request.limit + MARGIN, rescore=request.rescore
        )
        for request, (vector, clause) in zip(requests, checked_requests(requests, dim), strict=True)
    ]
    answers = iter(ask([query for query in queries if query is not None]))
    return [[] if query is None else _ranked(query, next(answers), ask, names) for query in queries]


def _ranked(query: Query, first: Sequence[Any], ask: Ask, names: Names) -> list[ScoredPoint]:
    def fetch(window: int) -> Sequence[Any]:
        return ask([replace(query, window=window)])[0]

    hits = close_tie(fetch, first, query.limit, lambda hit: float(hit.score))
    scores = [float(hit.score) + 0.0 for hit in hits]
    # An id costs more than all else here: only those are read that may be among the best.
    if len(hits) > query.limit:
        least = sorted(scores, reverse=True)[query.limit - 1]
        hits = [hit for hit, score in zip(hits, scores, strict=True) if score >= least]
        scores = [score for score in scores if score >= least]
    # As tuples, and not by a key: engines give hits nearly in order.
    ranked = sorted(zip((-score for score in scores), names(hits), strict=True))[: query.limit]
    return [ScoredPoint(name, -score) for score, name in ranked]
