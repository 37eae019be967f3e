"""Exact search in numpy: the oracle of the tests, and a store for small or passing collections."""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import (
    Arm,
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
    vector_names,
)
from retrieval.stores.ties import best_first, count_values, most_frequent

_ROWS = 8192


@dataclass(slots=True, eq=False)
class _Contents:
    """One generation."""

    dim: int
    points: dict[str, Point] = field(default_factory=dict)
    postings: dict[int, dict[str, float]] = field(default_factory=dict)
    sparse_count: int = 0
    manifest: dict[str, Any] | None = None
    origin: str = ""
    growing: bool = False


class _Index:
    """The generations of an index in memory, shared by the stores that serve them."""

    def __init__(self, dim: int) -> None:
        self.generations = {1: _Contents(dim)}
        self.live = 1
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """For adapted encoders; gone with the index."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="retrieval-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


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
        self._serve(_Index(dim), 1)

    def _serve(self, index: _Index, number: int) -> None:
        self._index = index
        self._number = number
        self._contents = index.generations[number]
        self._dense: tuple[list[str], FloatArray] | None = None
        self._closed = False

    @property
    def location(self) -> str:
        """``memory``."""
        return "memory"

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self._number

    @property
    def origin(self) -> str:
        """What this generation was started from; see `Store.origin`."""
        return self._contents.origin

    @property
    def quantization(self) -> Quantization:
        """Always none: search is exact."""
        return Quantization()

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; see `Store.upsert`."""
        self._require_open()
        for point in checked_points(points, self._contents.dim):
            self._remove(point.id)
            self._contents.points[point.id] = point
            self._dense = None
            if point.sparse is not None:
                self._contents.sparse_count += 1
                for index, value in zip(point.sparse.indices.tolist(), point.sparse.values.tolist(), strict=True):
                    self._contents.postings.setdefault(index, {})[point.id] = value

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Exact search; see `Store.search`."""
        self._require_open()
        results: list[list[ScoredPoint]] = []
        for request, (vector, clause) in zip(requests, checked_requests(requests, self._contents.dim), strict=True):
            if vector is None:
                results.append([])
                continue
            ids, scores = self._score_sparse(vector) if isinstance(vector, SparseVector) else self._score_dense(vector)
            keep = self._matcher(clause)
            found = (ScoredPoint(i, s) for i, s in zip(ids, scores.tolist(), strict=True) if keep(i))
            results.append(best_first(found, request.limit))
        return results

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool | Sequence[Arm] = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        self._require_open()
        select, names = payload_selector(payload), vector_names(vectors)
        return [
            self._stored(self._contents.points[i], select, names)
            for i in checked_ids(ids)
            if i in self._contents.points
        ]

    def scan(
        self,
        where: Filter | None = None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool | Sequence[Arm] = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All matching points by id; see `Store.scan`."""
        self._require_open()
        checked_limit(batch, "batch")
        select, keep = payload_selector(payload), self._matcher(checked_filter(where))
        return self._scan(sorted(self._contents.points), keep, select, vector_names(vectors))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; see `Store.delete`."""
        self._require_open()
        for point_id in checked_ids(ids):
            self._remove(point_id)

    def delete_where(self, where: Filter) -> int:
        """Remove matching points; see `Store.delete_where`."""
        self._require_open()
        keep = self._matcher(checked_delete_filter(where))
        doomed = [point_id for point_id in self._contents.points if keep(point_id)]
        self.delete(doomed)
        return len(doomed)

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        self._require_open()
        return sum(map(self._matcher(checked_filter(where)), self._contents.points))

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`."""
        self._require_open()
        path, keep = parse_path(key), self._matcher(checked_filter(where))
        payloads = (point.payload for point_id, point in self._contents.points.items() if keep(point_id))
        return most_frequent(count_values(scalars_at(path, payload) for payload in payloads), checked_limit(limit))

    def set_quantization(self, quantization: Quantization) -> None:
        """Check the settings; search stays exact."""
        self._require_open()
        checked_quantization(quantization)

    def bulk(self, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Nothing to put off; see `Store.bulk`."""
        return nullcontext()

    def optimize(self) -> None:
        """Nothing to do."""
        self._require_open()

    def flush(self) -> None:
        """Nothing to do: memory does not survive."""
        self._require_open()

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written; see `Store.read_manifest`."""
        self._require_open()
        return copy.deepcopy(self._contents.manifest)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; see `Store.write_manifest`."""
        self._require_open()
        encode_manifest(manifest)
        check_schema(manifest, self.location)
        self._contents.manifest = copy.deepcopy(dict(manifest))

    def encoder_folder(self) -> Path:
        """A temporary folder; see `Store.encoder_folder`."""
        return self._index.folder / str(self._number)

    def start_generation(self, dim: int, *, origin: str = "") -> MemoryStore:
        """A store for the next generation; see `Store.start_generation`."""
        self._require_open()
        for number, contents in list(self._index.generations.items()):
            if contents.growing and contents.origin:
                if (contents.origin, contents.dim) == (origin, dim):
                    return self._of(number)
                self._forget(number)
        number = max(self._index.generations) + 1
        self._index.generations[number] = _Contents(dim, origin=origin, growing=True)
        return self._of(number)

    def open_generation(self, number: int) -> MemoryStore:
        """The store of another generation; see `Store.open_generation`."""
        self._require_open()
        if number not in self._index.generations:
            raise StoreError(f"the memory store has no generation {number}")
        return self._of(number)

    def make_live(self, manifest: Mapping[str, Any]) -> None:
        """Switch to this generation; see `Store.make_live`."""
        self.write_manifest({**manifest, "generation": self._number})
        self._index.live = self._number
        self._contents.growing = False

    def tidy(self) -> None:
        """Forget the generations that the manifest does not name, but not a copy that can be continued."""
        manifest = self._index.generations[self._index.live].manifest or {}
        kept = {self._index.live, manifest.get("previous")}
        for number in self._index.generations.keys() - kept:
            contents = self._index.generations[number]
            if not (contents.growing and contents.origin):
                self._forget(number)

    def abandon(self) -> None:
        """Forget a generation that is not live.

        Raises:
            StoreError: It is live.
        """
        if self._number == self._index.live:
            raise StoreError(f"generation {self._number} is live and is not erased")
        self._forget(self._number)
        self.close()

    def close(self) -> None:
        """Forget everything, unless another store serves the same index."""
        self._closed = True
        self._contents = _Contents(self._contents.dim)
        self._index = _Index(self._contents.dim)
        self._dense = None

    def _of(self, number: int) -> MemoryStore:
        store = MemoryStore.__new__(MemoryStore)
        store._serve(self._index, number)
        return store

    def _forget(self, number: int) -> None:
        self._index.generations.pop(number, None)
        shutil.rmtree(self._index.folder / str(number), ignore_errors=True)

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError("the memory store is closed")

    def _remove(self, point_id: str) -> None:
        point = self._contents.points.pop(point_id, None)
        if point is None:
            return
        self._dense = None
        if point.sparse is not None:
            self._contents.sparse_count -= 1
            for index in point.sparse.indices.tolist():
                del self._contents.postings[index][point_id]

    def _matcher(self, clause: Clause | None) -> Callable[[str], bool]:
        if clause is None:
            return lambda _: True
        return lambda point_id: matches(clause, self._contents.points[point_id].payload, point_id)

    def _scan(
        self, ids: list[str], keep: Callable[[str], bool], select: Callable[..., dict[str, Any]], names: list[str]
    ) -> Iterator[StoredPoint]:
        for point_id in ids:
            self._require_open()
            if point_id in self._contents.points and keep(point_id):
                yield self._stored(self._contents.points[point_id], select, names)

    def _stored(self, point: Point, select: Callable[..., dict[str, Any]], names: list[str]) -> StoredPoint:
        dense = point.dense.copy() if "dense" in names and point.dense is not None else None
        sparse = copy.deepcopy(point.sparse) if "bm25" in names else None
        return StoredPoint(point.id, copy.deepcopy(select(point.payload)), dense, sparse)

    def _score_dense(self, query: FloatArray) -> tuple[list[str], NDArray[np.float32]]:
        if self._dense is None:
            ids = [point_id for point_id, point in self._contents.points.items() if point.dense is not None]
            rows = [self._contents.points[point_id].dense for point_id in ids]
            self._dense = (ids, np.array(rows, dtype=np.float32).reshape(len(ids), self._contents.dim))
        ids, matrix = self._dense
        # float64 sums: equal rows get equal scores wherever they stand, which float32 BLAS does not promise.
        parts = [matrix[i : i + _ROWS].astype(np.float64) @ query.astype(np.float64) for i in range(0, len(ids), _ROWS)]
        return ids, (np.concatenate(parts) if parts else np.zeros(0)).astype(np.float32) + np.float32(0)

    def _score_sparse(self, query: SparseVector) -> tuple[list[str], NDArray[np.float32]]:
        scores: dict[str, float] = {}
        for index, weight in zip(query.indices.tolist(), query.values.tolist(), strict=True):
            posting = self._contents.postings.get(index, {})
            idf = math.log((self._contents.sparse_count - len(posting) + 0.5) / (len(posting) + 0.5) + 1)
            for point_id, value in posting.items():
                scores[point_id] = scores.get(point_id, 0.0) + weight * idf * value
        return list(scores), np.fromiter(scores.values(), np.float32, len(scores))
