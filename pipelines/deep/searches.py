"""Do searches of both arms give what comparing with every stored vector gives?

Searches read other files than a walk over the points does: the inverted index of BM25, the codes of compressed vectors
and the graph. A sample of queries asks for the best passages and is compared with scores that are computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.index_checks import REPAIR, Check, Finding, Findings, is_complete
from pipelines.points import passage_from_payload
from pipelines.progress import StepCallback
from retrieval.datatypes import FloatArray, SearchRequest, SparseVector, StoredPoint
from retrieval.protocols import SparseEncoder, Store

_QUERIES = 32
_QUERY_CHARACTERS = 120
_TOP = 10
_BATCH = 1000
_ROUNDING = 1e-4
_LEAST_FOUND = 0.5


class SearchChecks:
    """Keeps the queries of a sample, and asks them when all points have been seen.

    Args:
        store: Open store.
        sparse: BM25 encoder of the index; ``None`` leaves BM25 out.
    """

    def __init__(self, store: Store, sparse: SparseEncoder | None) -> None:
        self._store, self._sparse = store, sparse
        self._dense: list[FloatArray] = []
        self._bm25: list[SparseVector] = []

    def add(self, batch: Sequence[StoredPoint]) -> None:
        """Take queries from the first points; ids are digests, so these are a fair sample."""
        for point in batch:
            if len(self._dense) < _QUERIES and point.dense is not None and np.isfinite(point.dense).all():
                self._dense.append(point.dense)
            asks = len(self._bm25) < _QUERIES and point.sparse is not None and is_complete(point.payload)
            if asks and self._sparse is not None:
                text = passage_from_payload(point.payload).indexed_text[:_QUERY_CHARACTERS]
                (query,) = self._sparse.encode_queries([text])
                if len(query.indices):
                    self._bm25.append(query)

    def results(self, on_progress: StepCallback, passages: int) -> Iterator[Check]:
        """Ask, and walk over all vectors once more for what the answers should be."""
        dense, bm25 = _BestDense(self._dense), _BestBm25(self._bm25)
        batch: list[StoredPoint] = []
        for number, point in enumerate(self._store.scan(payload=False, vectors=["dense", "bm25"]), start=1):
            batch.append(point)
            if len(batch) == _BATCH:
                dense.add(batch)
                bm25.add(batch)
                batch = []
                on_progress("searching", number, passages)
        dense.add(batch)
        bm25.add(batch)
        yield self._compare(dense.best(), bm25.best())

    def _compare(self, dense: list[FloatArray], bm25: list[FloatArray]) -> Check:
        found = Findings()
        exact = self._scores([SearchRequest(vector, _TOP, exact=True) for vector in self._dense])
        words = self._scores([SearchRequest(query, _TOP) for query in self._bm25])
        for arm, told, expected in (("dense", exact, dense), ("bm25", words, bm25)):
            wrong = sum(
                len(one) != len(other) or not np.allclose(one, other, rtol=_ROUNDING, atol=_ROUNDING)
                for one, other in zip(told, expected, strict=True)
            )
            if wrong:
                problem = f"{wrong} of {len(told)} {arm} searches do not give the best passages"
                found.add(Finding("index", arm, problem))
        near = self._scores([SearchRequest(vector, _TOP) for vector in self._dense])
        shares = [
            float((one >= other[-1] - _ROUNDING).sum()) / len(other)
            for one, other in zip(near, dense, strict=True)
            if len(other)
        ]
        share = float(np.mean(shares)) if shares else 1.0
        if share < _LEAST_FOUND:
            problem = f"dense search as it is configured finds {share:.0%} of the {_TOP} nearest passages"
            found.add(Finding("index", "dense", problem))
        asked = f"{len(self._dense)} dense and {len(self._bm25)} BM25 searches give the best passages"
        return found.check("searches", f"{asked}; as configured, {share:.0%} of the nearest {_TOP} are found", REPAIR)

    def _scores(self, requests: list[SearchRequest]) -> list[FloatArray]:
        return [
            np.array([hit.score for hit in hits], np.float32)
            for hits in (self._store.search(requests) if requests else [])
        ]


class _BestDense:
    """The highest scores of dense queries over all points."""

    def __init__(self, queries: Sequence[FloatArray]) -> None:
        self._queries = np.array(queries, np.float32) if queries else None
        self._best: list[FloatArray] = [np.empty(0, np.float32) for _ in queries]

    def add(self, batch: Sequence[StoredPoint]) -> None:
        rows = [point.dense for point in batch if point.dense is not None]
        if rows and self._queries is not None:
            for number, scores in enumerate(self._queries @ np.array(rows, np.float32).T):
                self._best[number] = _highest(np.concatenate([self._best[number], scores]))

    def best(self) -> list[FloatArray]:
        return self._best


class _BestBm25:
    """The highest scores of BM25 queries over all points: rare terms count more, which is known at the end."""

    def __init__(self, queries: Sequence[SparseVector]) -> None:
        self._queries = queries
        self._terms = np.unique(np.concatenate([query.indices for query in queries])) if queries else np.empty(0)
        self._rows: list[NDArray[np.int64]] = []
        self._columns: list[NDArray[np.int64]] = []
        self._weights: list[FloatArray] = []
        self._points = 0

    def add(self, batch: Sequence[StoredPoint]) -> None:
        rows = [point.sparse for point in batch if point.sparse is not None]
        if not rows or not len(self._terms):
            return
        indices = np.concatenate([row.indices for row in rows])
        places = np.searchsorted(self._terms, indices).clip(max=len(self._terms) - 1)
        known = self._terms[places] == indices
        numbers = np.repeat(np.arange(len(rows)) + self._points, [len(row.indices) for row in rows])
        self._rows.append(numbers[known])
        self._columns.append(places[known])
        self._weights.append(np.concatenate([row.values for row in rows])[known])
        self._points += len(rows)

    def best(self) -> list[FloatArray]:
        if not self._rows:
            return [np.empty(0, np.float32) for _ in self._queries]
        rows, columns = np.concatenate(self._rows), np.concatenate(self._columns)
        weights = np.concatenate(self._weights)
        holding = np.bincount(columns, minlength=len(self._terms))
        rarity = np.log((self._points - holding + 0.5) / (holding + 0.5) + 1)
        scored = weights * rarity[columns]
        best = []
        for query in self._queries:
            asked = np.isin(self._terms, query.indices)[columns]
            matching = np.bincount(rows[asked], minlength=self._points) > 0
            scores = np.bincount(rows[asked], scored[asked], minlength=self._points)
            best.append(_highest(scores[matching].astype(np.float32)))
        return best


def _highest(scores: FloatArray) -> FloatArray:
    return -np.sort(-scores)[:_TOP]
