"""The default store: Qdrant Edge, the vector engine of Qdrant inside this process, in one folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as engine

from retrieval.config import Config, EdgeStoreConfig
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
from retrieval.errors import StoreCorruptError, StoreError
from retrieval.stores.edge_engine import KEYWORDS, Engine, search_params
from retrieval.stores.edge_filters import edge_filter
from retrieval.stores.filters import Clause, parse_path
from retrieval.stores.index_folder import IndexFolder, Settings
from retrieval.stores.json_files import REMEDY, ids_digest
from retrieval.stores.matching import scalars_at
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
from retrieval.stores.ties import MARGIN, best_first, close_tie, count_values, most_frequent

_BATCH = 512
_SAMPLE = 256
_FACET_KINDS = {
    str: engine.PayloadSchemaType.Keyword,
    int: engine.PayloadSchemaType.Integer,
    bool: engine.PayloadSchemaType.Bool,
}


class EdgeStore:
    """Keeps an index in a folder, created when absent.

    Acknowledged writes survive the death of the process; after `flush` also a power loss. One process and one handle
    at a time. Thread-safe, one call at a time. Dense search is exact below ``hnsw.threshold`` points. Equal scores
    are ordered by id, also at the cut (see `retrieval.stores.ties.close_tie`).

    Args:
        config: Takes ``store.path``, ``store.min_free_mb``, ``hnsw`` and ``quantization`` (for a new index).
        dim: Dimensions of dense vectors.
        path: Folder, before ``store.path``.
        verify: Whether the number of points must be the one in the manifest; false to look at a damaged index.
        fresh: Whether to erase the index that is there.

    Raises:
        StoreError: No folder is given, or it cannot be made.
        StoreBusyError: Another process or handle has the index open.
        StoreCorruptError: Files are damaged or missing.
        StoreFullError: Too little disk is left to create an index.
        IndexMismatchError: The index has vectors of another size or was written by a newer version.
    """

    def __init__(
        self, config: Config, *, dim: int, path: str | Path | None = None, verify: bool = True, fresh: bool = False
    ) -> None:
        store = config.store if isinstance(config.store, EdgeStoreConfig) else EdgeStoreConfig()
        if path is None and store.path is None:
            raise StoreError("the embedded store needs a folder: set store.path or pass --index DIR")
        self._dim = dim
        self._hnsw = config.hnsw
        self._writing = threading.RLock()
        self._folder = IndexFolder(
            Path(path if path is not None else str(store.path)), quantization=config.quantization.record(), fresh=fresh
        )
        try:
            self._engine = Engine(
                self._folder.engine,
                dim=dim,
                hnsw=config.hnsw,
                quantization=self.quantization,
                min_free_mb=store.min_free_mb,
            )
        except BaseException:
            self._folder.release()
            raise
        try:
            if verify:
                self._verify_count()
        except BaseException:
            self.close()
            raise

    @property
    def location(self) -> str:
        """The folder of the index."""
        return str(self._folder.root)

    @property
    def quantization(self) -> Quantization:
        """How dense vectors are compressed at present."""
        return self._folder.settings.quantization

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; see `Store.upsert`.

        Raises:
            StoreInputError: A point is not usable; nothing was written.
            StoreFullError: Too little disk is left.
        """
        checked = checked_points(points, self._dim)
        with self._writes():
            for start in range(0, len(checked), _BATCH):
                batch = checked[start : start + _BATCH]
                self._engine.require_disk()
                self._note_replaced([point.id for point in batch])
                self._update("upsert", engine.UpdateOperation.upsert_points([_edge_point(point) for point in batch]))

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Best points of each request; see `Store.search`."""
        checked = checked_requests(requests, self._dim)
        size = self._engine.call("search", lambda shard: shard.info().points_count)
        exact = self.quantization.kind == "none" and size < self._hnsw.threshold
        queries = [
            None if vector is None else (vector, clause, request.limit, exact or request.exact)
            for request, (vector, clause) in zip(requests, checked, strict=True)
        ]
        asked = [self._query(*query, window=query[2] + MARGIN) for query in queries if query is not None]
        if not asked:
            return [[] for _ in requests]
        answers = iter(self._engine.call("search", lambda shard: shard.query_batch(engine.QueryBatchRequest(asked))))
        return [[] if query is None else self._ranked(query, next(answers)) for query in queries]

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        wanted, select = checked_ids(ids), payload_selector(payload)
        names = ["dense"] if vectors else False
        records = self._engine.call("get", lambda shard: shard.retrieve(list(wanted), payload is not False, names))
        found = {str(record.id): _stored(record, select) for record in records}
        return [found[point_id] for point_id in wanted if point_id in found]

    def scan(
        self,
        where: Filter | None = None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All matching points by id; see `Store.scan`."""
        checked_limit(batch, "batch")
        clause, select = checked_filter(where), payload_selector(payload)
        self._engine.call("scan", lambda shard: None)
        return self._scan(clause, select, payload is not False, vectors, batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; see `Store.delete`."""
        doomed = checked_ids(ids)
        if not doomed:
            return
        with self._writes():
            self._engine.require_disk()
            self._note_deletes()
            self._update("delete", engine.UpdateOperation.delete_points(list(doomed)))

    def delete_where(self, where: Filter) -> int:
        """Remove matching points; see `Store.delete_where`.

        Raises:
            StoreInputError: The filter is not usable or excludes nothing.
        """
        clause = checked_delete_filter(where)
        with self._writes():
            doomed = [point.id for point in self._scan(clause, payload_selector(False), False, False, 10_000)]
            self.delete(doomed)
        return len(doomed)

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        clause = checked_filter(where)
        condition = None if clause is None else edge_filter(clause)
        return int(self._engine.call("count", lambda shard: shard.count(engine.CountRequest(filter=condition))))

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`. The first facet of a field makes an index for it."""
        path, clause = parse_path(key), checked_filter(where)
        checked_limit(limit)
        if not self._index_covers(key):
            rows = (scalars_at(path, point.payload) for point in self.scan(where))
            return most_frequent(count_values(rows), limit)
        condition = None if clause is None else edge_filter(clause)

        def fetch(window: int) -> list[Any]:
            request = engine.FacetRequest(key, limit=window, exact=True, filter=condition)
            return list(self._engine.call("facet", lambda shard: shard.facet(request)))

        hits = close_tie(fetch, fetch(limit + MARGIN), limit, lambda hit: float(hit.count))
        return most_frequent(((hit.value, hit.count) for hit in hits), limit)

    def set_quantization(self, quantization: Quantization) -> None:
        """Compress dense vectors another way, or no more; rebuilds the segments in a process of its own."""
        checked_quantization(quantization)
        with self._writes():
            before = self.quantization
            if (quantization.kind, quantization.bits, quantization.query_bits) != (
                before.kind,
                before.bits,
                before.query_bits,
            ):
                self._engine.set_quantization(quantization)
                self._folder.save(Settings(quantization))
            else:
                self._folder.save(replace(self._folder.settings, quantization=quantization))

    def optimize(self) -> None:
        """Build the graph where due and drop deleted points; runs in a process of its own while this store waits."""
        with self._writes():
            self._engine.optimize()
            self._folder.save(Settings(self.quantization))

    def flush(self) -> None:
        """Make everything acknowledged survive a power loss."""
        self._engine.call("flush", lambda shard: shard.flush())

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written; see `Store.read_manifest`."""
        self._engine.call("read manifest", lambda shard: None)
        return self._folder.read_manifest()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; see `Store.write_manifest`."""
        self._engine.call("write manifest", lambda shard: None)
        self._folder.write_manifest(manifest)

    def verify(self) -> None:
        """Compare the number and the digest of all ids with the manifest; reads every id.

        Raises:
            StoreCorruptError: They differ, although the manifest says that the index is ready.
        """
        self._verify_count()
        manifest = self._folder.read_manifest()
        if manifest is not None and manifest.get("state") == "ready" and "ids_digest" in manifest:
            digest = ids_digest(point.id for point in self.scan(payload=False))
            if digest != manifest["ids_digest"]:
                raise StoreCorruptError(
                    f"index {self.location} holds other points than its manifest says (ids digest {digest}, "
                    f"manifest {manifest['ids_digest']}); {REMEDY}"
                )

    def close(self) -> None:
        """Flush and release the folder; closing twice is fine."""
        try:
            self._engine.close()
        finally:
            self._folder.release()

    def __enter__(self) -> EdgeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _writes(self) -> Iterator[None]:
        self._engine.require_own_process()
        with self._writing:
            yield

    def _update(self, action: str, operation: engine.UpdateOperation) -> None:
        self._engine.call(action, lambda shard: shard.update(operation))

    def _scroll(self, request: engine.ScrollRequest) -> tuple[list[Any], Any]:
        return self._engine.call("scan", lambda shard: shard.scroll(request))

    def _verify_count(self) -> None:
        manifest, count = self._folder.read_manifest(), self.count()
        if manifest is None:
            if count:
                raise StoreCorruptError(f"index {self.location} holds {count} passages and no manifest.json; {REMEDY}")
            return
        expected = manifest.get("passages")
        if manifest.get("state") == "ready" and expected is not None and expected != count:
            raise StoreCorruptError(
                f"index {self.location} holds {count} passages, its manifest says {expected}; "
                f"a segment file was probably deleted or damaged; {REMEDY}"
            )

    def _note_deletes(self) -> None:
        # The engine goes on counting deleted points in document frequencies, in optimized segments even after a
        # reload; from here on every BM25 query asks it to count the living, until optimize() has dropped the dead.
        self._folder.save(replace(self._folder.settings, has_deletes=True))

    def _note_replaced(self, ids: Sequence[str]) -> None:
        if not self._folder.settings.has_deletes and self._engine.call(
            "upsert", lambda shard: shard.retrieve(list(ids), False, False)
        ):
            self._note_deletes()

    def _query(
        self, vector: FloatArray | SparseVector, clause: Clause | None, limit: int, exact: bool, *, window: int
    ) -> Any:
        condition = None if clause is None else edge_filter(clause)
        if isinstance(vector, SparseVector):
            query = engine.Query.Nearest(_edge_sparse(vector), using="bm25")
            living = engine.IdfParams(corpus=engine.Filter()) if self._folder.settings.has_deletes else None
            params = engine.SearchParams(idf=living)
        else:
            query = engine.Query.Nearest(vector.tolist(), using="dense")
            params = search_params(self.quantization, ef=max(self._hnsw.ef, limit), exact=exact)
        return engine.QueryRequest(limit=window, query=query, filter=condition, params=params)

    def _ranked(
        self, query: tuple[FloatArray | SparseVector, Clause | None, int, bool], first: list[Any]
    ) -> list[ScoredPoint]:
        def fetch(window: int) -> list[Any]:
            request = self._query(*query, window=window)
            return self._engine.call("search", lambda shard: shard.query(request))

        hits = close_tie(fetch, first, query[2], lambda hit: float(hit.score))
        return best_first((ScoredPoint(str(hit.id), hit.score + 0.0) for hit in hits), query[2])

    def _scan(
        self, clause: Clause | None, select: Callable[..., dict[str, Any]], payload: bool, vectors: bool, batch: int
    ) -> Iterator[StoredPoint]:
        condition, offset = None if clause is None else edge_filter(clause), None
        while True:
            request = engine.ScrollRequest(
                offset=offset,
                limit=batch,
                filter=condition,
                with_payload=payload,
                with_vector=["dense"] if vectors else False,
            )
            records, offset = self._scroll(request)
            yield from (_stored(record, select) for record in records)
            if offset is None:
                return

    def _index_covers(self, key: str) -> bool:
        """Whether a payload index knows every value of a field, made now if need be."""
        filled = engine.Filter(must_not=[engine.IsEmptyCondition(key)])
        schema = self._engine.call("facet", lambda shard: shard.info().payload_schema)
        if key not in schema:
            path = parse_path(key)
            request = engine.ScrollRequest(limit=_SAMPLE, filter=filled, with_payload=True, with_vector=False)
            records, _ = self._scroll(request)
            kinds = {type(value) for record in records for value in scalars_at(path, record.payload or {})}
            if len(kinds) != 1 or (kind := _FACET_KINDS.get(kinds.pop())) is None:
                return False
            with self._writes():
                self._engine.require_disk()
                self._update("facet", engine.UpdateOperation.create_field_index(key, kind))
            schema = self._engine.call("facet", lambda shard: shard.info().payload_schema)
        count = self._engine.call("facet", lambda shard: shard.count(engine.CountRequest(filter=filled)))
        covers = int(schema[key].points) == count
        if not covers and key not in KEYWORDS:
            # Filters are answered from an index where there is one, and this one misses values of other types.
            self._update("facet", engine.UpdateOperation.delete_field_index(key))
        return covers


def _edge_point(point: Point) -> engine.Point:
    vector: dict[str, Any] = {}
    if point.dense is not None:
        vector["dense"] = point.dense.tolist()
    if point.sparse is not None:
        vector["bm25"] = _edge_sparse(point.sparse)
    return engine.Point(point.id, vector, dict(point.payload))


def _edge_sparse(vector: SparseVector) -> engine.SparseVector:
    return engine.SparseVector(vector.indices.tolist(), vector.values.tolist())


def _stored(record: Any, select: Callable[..., dict[str, Any]]) -> StoredPoint:
    vector = record.vector.get("dense") if isinstance(record.vector, dict) else None
    dense = None if vector is None else np.array(vector, dtype=np.float32)
    return StoredPoint(str(record.id), select(record.payload or {}), dense)
