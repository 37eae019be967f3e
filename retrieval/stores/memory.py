"""Exact search in numpy: the oracle of the tests, and a store for small or passing collections."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import (
    Filter,
    FloatArray,
    Point,
    Quantization,
    ScoredPoint,
    SearchRequest,
    SparseVector,
    StoredPoint,
)
from retrieval.errors import StoreError
from retrieval.stores.filters import Clause, parse_path
from retrieval.stores.json_files import check_schema, encode_manifest
from retrieval.stores.matching import matches, scalars_at
from retrieval.stores.points import (
    checked_delete_filter,
    checked_filter,
    checked_ids,
    checked_limit,
    checked_points,
    checked_quantization,
    checked_requests,
    payload_selector,
)
from retrieval.stores.ties import best_first, count_values, most_frequent

_ROWS = 8192


class MemoryStore:
    """Keeps points in dictionaries and scores all of them; gone when closed.

    Dense score: dot product. BM25 score: sum over shared terms of query weight times stored weight times
    ``ln((N - df + 0.5) / (df + 0.5) + 1)``, N the points that have a sparse vector and df those that have the term.
    Quantization and optimization are accepted and change nothing: search is always exact.

    Args:
        dim: Dimensions of dense vectors.

    Raises:
        ValueError: ``dim`` is below 1.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim is at least 1, not {dim}")
        self._dim = dim
        self._points: dict[str, Point] = {}
        self._postings: dict[int, dict[str, float]] = {}
        self._sparse_count = 0
        self._dense: tuple[list[str], FloatArray] | None = None
        self._manifest: dict[str, Any] | None = None
        self._closed = False

    @property
    def location(self) -> str:
        """``memory``."""
        return "memory"

    @property
    def quantization(self) -> Quantization:
        """Always none: search is exact."""
        return Quantization()

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; see `Store.upsert`."""
        self._require_open()
        for point in checked_points(points, self._dim):
            self._remove(point.id)
            self._points[point.id] = point
            self._dense = None
            if point.sparse is not None:
                self._sparse_count += 1
                for index, value in zip(point.sparse.indices.tolist(), point.sparse.values.tolist(), strict=True):
                    self._postings.setdefault(index, {})[point.id] = value

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Exact search; see `Store.search`."""
        self._require_open()
        results: list[list[ScoredPoint]] = []
        for request, (vector, clause) in zip(requests, checked_requests(requests, self._dim), strict=True):
            if vector is None:
                results.append([])
                continue
            ids, scores = self._score_sparse(vector) if isinstance(vector, SparseVector) else self._score_dense(vector)
            keep = self._matcher(clause)
            found = (ScoredPoint(i, s) for i, s in zip(ids, scores.tolist(), strict=True) if keep(i))
            results.append(best_first(found, request.limit))
        return results

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        self._require_open()
        select = payload_selector(payload)
        return [self._stored(self._points[i], select, vectors) for i in checked_ids(ids) if i in self._points]

    def scan(
        self,
        where: Filter | None = None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All matching points by id; see `Store.scan`."""
        self._require_open()
        checked_limit(batch, "batch")
        select, keep = payload_selector(payload), self._matcher(checked_filter(where))
        return self._scan(sorted(self._points), keep, select, vectors)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; see `Store.delete`."""
        self._require_open()
        for point_id in checked_ids(ids):
            self._remove(point_id)

    def delete_where(self, where: Filter) -> int:
        """Remove matching points; see `Store.delete_where`."""
        self._require_open()
        keep = self._matcher(checked_delete_filter(where))
        doomed = [point_id for point_id in self._points if keep(point_id)]
        self.delete(doomed)
        return len(doomed)

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        self._require_open()
        return sum(map(self._matcher(checked_filter(where)), self._points))

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`."""
        self._require_open()
        path, keep = parse_path(key), self._matcher(checked_filter(where))
        payloads = (point.payload for point_id, point in self._points.items() if keep(point_id))
        return most_frequent(count_values(scalars_at(path, payload) for payload in payloads), checked_limit(limit))

    def set_quantization(self, quantization: Quantization) -> None:
        """Check the settings; search stays exact."""
        self._require_open()
        checked_quantization(quantization)

    def optimize(self) -> None:
        """Nothing to do."""
        self._require_open()

    def flush(self) -> None:
        """Nothing to do: memory does not survive."""
        self._require_open()

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written; see `Store.read_manifest`."""
        self._require_open()
        return copy.deepcopy(self._manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; see `Store.write_manifest`."""
        self._require_open()
        encode_manifest(manifest)
        check_schema(manifest, self.location)
        self._manifest = copy.deepcopy(dict(manifest))

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._points.clear()
        self._postings.clear()
        self._dense = None

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError("the memory store is closed")

    def _remove(self, point_id: str) -> None:
        point = self._points.pop(point_id, None)
        if point is None:
            return
        self._dense = None
        if point.sparse is not None:
            self._sparse_count -= 1
            for index in point.sparse.indices.tolist():
                del self._postings[index][point_id]

    def _matcher(self, clause: Clause | None) -> Callable[[str], bool]:
        if clause is None:
            return lambda _: True
        return lambda point_id: matches(clause, self._points[point_id].payload, point_id)

    def _scan(
        self, ids: list[str], keep: Callable[[str], bool], select: Callable[..., dict[str, Any]], vectors: bool
    ) -> Iterator[StoredPoint]:
        for point_id in ids:
            self._require_open()
            if point_id in self._points and keep(point_id):
                yield self._stored(self._points[point_id], select, vectors)

    def _stored(self, point: Point, select: Callable[..., dict[str, Any]], vectors: bool) -> StoredPoint:
        dense = point.dense.copy() if vectors and point.dense is not None else None
        return StoredPoint(point.id, copy.deepcopy(select(point.payload)), dense)

    def _score_dense(self, query: FloatArray) -> tuple[list[str], NDArray[np.float32]]:
        if self._dense is None:
            ids = [point_id for point_id, point in self._points.items() if point.dense is not None]
            rows = [self._points[point_id].dense for point_id in ids]
            self._dense = (ids, np.array(rows, dtype=np.float32).reshape(len(ids), self._dim))
        ids, matrix = self._dense
        # float64 sums: equal rows get equal scores wherever they stand, which float32 BLAS does not promise.
        parts = [matrix[i : i + _ROWS].astype(np.float64) @ query.astype(np.float64) for i in range(0, len(ids), _ROWS)]
        return ids, (np.concatenate(parts) if parts else np.zeros(0)).astype(np.float32) + np.float32(0)

    def _score_sparse(self, query: SparseVector) -> tuple[list[str], NDArray[np.float32]]:
        scores: dict[str, float] = {}
        for index, weight in zip(query.indices.tolist(), query.values.tolist(), strict=True):
            posting = self._postings.get(index, {})
            idf = math.log((self._sparse_count - len(posting) + 0.5) / (len(posting) + 0.5) + 1)
            for point_id, value in posting.items():
                scores[point_id] = scores.get(point_id, 0.0) + weight * idf * value
        return list(scores), np.fromiter(scores.values(), np.float32, len(scores))
