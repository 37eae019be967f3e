"""A Qdrant server or cluster as the store: one collection, with the manifest in its metadata."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from retrieval.config import Config, ServerStoreConfig
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
from retrieval.errors import IndexMismatchError, StoreCorruptError, StoreError
from retrieval.stores.filters import Clause, parse_path
from retrieval.stores.json_files import check_schema, encode_manifest
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
from retrieval.stores.server_connection import Connection
from retrieval.stores.server_models import (
    server_filter,
    server_point,
    server_quantization,
    server_search_params,
    server_vector,
)
from retrieval.stores.ties import MARGIN, best_first, close_tie, count_values, most_frequent

OPTIMIZE_WAIT_S = 3600.0
_POLL_S = 0.5
_sleep = time.sleep
_SAMPLE = 256
_KEYWORDS = ("document", "document_id", "source")
_FACET_KINDS = {
    str: models.PayloadSchemaType.KEYWORD,
    int: models.PayloadSchemaType.INTEGER,
    bool: models.PayloadSchemaType.BOOL,
}


class ServerStore:
    """Keeps an index in a collection of a Qdrant server, created when absent.

    Every write waits until the server has applied it. Passing failures are repeated (see
    `retrieval.stores.server_connection.Connection`). Equal scores are ordered by id, also at the cut. The server counts
    deleted points in BM25 statistics until it has optimized their segments, which it does by itself.

    Args:
        config: Takes ``store``, ``hnsw`` and ``quantization`` (for a new collection; an existing one keeps its own).
        dim: Dimensions of dense vectors.
        client: A client to use, which stays open at `close`; ``None`` makes one.
        fresh: Whether to erase the collection that is there.

    Raises:
        ConfigError: The URL or the environment variable of the key cannot be used.
        StoreError: The server cannot be reached or refuses.
        IndexMismatchError: The collection has other vectors, or a newer version has written it.
    """

    def __init__(self, config: Config, *, dim: int, client: QdrantClient | None = None, fresh: bool = False) -> None:
        store = config.store if isinstance(config.store, ServerStoreConfig) else ServerStoreConfig()
        self._store, self._name = store, store.collection
        self._hnsw = config.hnsw
        self._dim = dim
        self._connection = Connection(store, client)
        try:
            if fresh:
                self._connection.call("erase", lambda c: c.delete_collection(self._name))
            if not self._connection.call("open", lambda c: c.collection_exists(self._name)):
                self._create(config.quantization.record())
            self._quantization = self._open(config.quantization.record())
        except BaseException:
            self._connection.close()
            raise

    @property
    def location(self) -> str:
        """URL of the collection."""
        return f"{self._store.url.rstrip('/')}/collections/{self._name}"

    @property
    def quantization(self) -> Quantization:
        """How dense vectors are compressed at present."""
        return self._quantization

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; see `Store.upsert`."""
        checked = [server_point(point) for point in checked_points(points, self._dim)]
        self._require_open()
        for start in range(0, len(checked), self._store.batch_size):
            batch = checked[start : start + self._store.batch_size]
            self._upsert(batch)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Best points of each request; see `Store.search`."""
        checked = checked_requests(requests, self._dim)
        queries = [
            None if vector is None else (vector, clause, request.limit, request.exact)
            for request, (vector, clause) in zip(requests, checked, strict=True)
        ]
        asked = [self._query(*query, window=query[2] + MARGIN) for query in queries if query is not None]
        answers = iter(self._answers(asked))
        return [[] if query is None else self._ranked(query, next(answers)) for query in queries]

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        wanted, select = checked_ids(ids), payload_selector(payload)
        fields = _payload_fields(payload)
        names = ["dense"] if vectors else False
        self._require_open()
        found: dict[str, StoredPoint] = {}
        for start in range(0, len(wanted), self._store.batch_size):
            found.update(self._retrieve(wanted[start : start + self._store.batch_size], fields, names, select))
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
        self._require_open()
        return self._scan(clause, select, _payload_fields(payload), vectors, batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; see `Store.delete`."""
        doomed = checked_ids(ids)
        self._require_open()
        for start in range(0, len(doomed), self._store.batch_size):
            self._delete(models.PointIdsList(points=list(doomed[start : start + self._store.batch_size])))

    def delete_where(self, where: Filter) -> int:
        """Remove matching points; see `Store.delete_where`.

        Raises:
            StoreInputError: The filter is not usable or excludes nothing.
        """
        condition = server_filter(checked_delete_filter(where))
        doomed = self._count(condition)
        self._delete(models.FilterSelector(filter=condition))
        return doomed

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        clause = checked_filter(where)
        return self._count(None if clause is None else server_filter(clause))

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`. The first facet of a field makes an index for it."""
        path, clause = parse_path(key), checked_filter(where)
        checked_limit(limit)
        if not self._index_covers(key):
            rows = (scalars_at(path, point.payload) for point in self.scan(where))
            return most_frequent(count_values(rows), limit)
        condition = None if clause is None else server_filter(clause)

        def fetch(window: int) -> list[models.FacetValueHit]:
            return self._connection.call(
                "facet",
                lambda c: c.facet(self._name, key, facet_filter=condition, limit=window, exact=True).hits,
            )

        hits = close_tie(fetch, fetch(limit + MARGIN), limit, lambda hit: float(hit.count))
        return most_frequent(((hit.value, hit.count) for hit in hits), limit)

    def set_quantization(self, quantization: Quantization) -> None:
        """Compress dense vectors another way, or no more; the server rebuilds in the background."""
        checked_quantization(quantization)
        wanted: Any = server_quantization(quantization) or models.Disabled.DISABLED
        self._connection.call("quantize", lambda c: c.update_collection(self._name, quantization_config=wanted))
        self._write_metadata("quantization", asdict(quantization))
        self._quantization = quantization

    def optimize(self) -> None:
        """Wait until the server has optimized the collection.

        Raises:
            StoreError: It reports an error, or is not done after `OPTIMIZE_WAIT_S` seconds.
        """
        deadline = time.monotonic() + OPTIMIZE_WAIT_S
        while (status := self._info().status) is not models.CollectionStatus.GREEN:
            if status is models.CollectionStatus.RED:
                raise StoreError(f"the optimizer of {self.location} reports an error; see the log of the server")
            if status is models.CollectionStatus.GREY:
                self._connection.call("optimize", self._wake_optimizer)
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.location} is still {status.value} after {OPTIMIZE_WAIT_S:.0f} s; it goes on there"
                )
            _sleep(_POLL_S)

    def flush(self) -> None:
        """Nothing to send: an acknowledged write is in the log of the server."""
        self._require_open()

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written; see `Store.read_manifest`."""
        manifest = self._read_metadata("manifest")
        if manifest is not None:
            check_schema(manifest, self.location)
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; see `Store.write_manifest`."""
        check_schema(manifest, self.location)
        self._write_metadata("manifest", manifest)

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> ServerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self, quantization: Quantization) -> None:
        kilobytes = max(self._hnsw.threshold * self._dim * 4 // 1024, 1)

        def create(client: QdrantClient) -> None:
            # A repeated request may find what the first one made before its answer was lost.
            if client.collection_exists(self._name):
                return
            client.create_collection(
                self._name,
                vectors_config={"dense": models.VectorParams(size=self._dim, distance=models.Distance.COSINE)},
                sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
                shard_number=self._store.shard_number,
                replication_factor=self._store.replication_factor,
                write_consistency_factor=self._store.write_consistency_factor,
                hnsw_config=models.HnswConfigDiff(m=self._hnsw.m, ef_construct=self._hnsw.ef_construct),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes),
                quantization_config=server_quantization(quantization),
                metadata={"quantization": encode_manifest(asdict(quantization))},
            )

        self._connection.call("create collection", create)
        for field in _KEYWORDS:
            self._create_index(field, models.PayloadSchemaType.KEYWORD)

    def _open(self, wanted: Quantization) -> Quantization:
        params = self._info().config.params
        dense = params.vectors.get("dense") if isinstance(params.vectors, dict) else None
        if dense is None or "bm25" not in (params.sparse_vectors or {}):
            raise IndexMismatchError(
                f"collection {self.location} has no vectors 'dense' and 'bm25'; something else made it: "
                "name another one in store.collection"
            )
        if dense.size != self._dim:
            raise IndexMismatchError(
                f"collection {self.location} has vectors of {dense.size} dimensions, the encoder gives {self._dim}; "
                "open it with the encoder that it was built with, or re-encode with 'retrieval ingest --rebuild'"
            )
        if dense.distance is not models.Distance.COSINE:
            raise IndexMismatchError(
                f"collection {self.location} compares vectors by {dense.distance.value}, not Cosine; "
                "name another one in store.collection"
            )
        self.read_manifest()
        saved = self._read_metadata("quantization")
        try:
            return wanted if saved is None else Quantization(**saved)
        except TypeError as error:
            raise StoreCorruptError(
                f"the metadata of {self.location} are damaged: quantization is {saved!r}"
            ) from error

    def _wake_optimizer(self, client: QdrantClient) -> bool:
        # After a restart optimizations wait for an update; an empty one will do.
        return client.update_collection(self._name, optimizers_config=models.OptimizersConfigDiff())

    def _require_open(self) -> None:
        self._connection.call("use", lambda c: None)

    def _info(self) -> models.CollectionInfo:
        return self._connection.call("read collection", lambda c: c.get_collection(self._name))

    # Metadata are merged key by key, values and all; as text a mapping is replaced as a whole.
    def _write_metadata(self, key: str, value: Mapping[str, Any]) -> None:
        metadata = {key: encode_manifest(value)}
        self._connection.call(f"write {key}", lambda c: c.update_collection(self._name, metadata=metadata))

    def _read_metadata(self, key: str) -> dict[str, Any] | None:
        text = (self._info().config.metadata or {}).get(key)
        if text is None:
            return None
        try:
            value = json.loads(text)
        except (TypeError, ValueError) as error:
            raise StoreCorruptError(f"the {key} in the metadata of {self.location} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise StoreCorruptError(f"the {key} in the metadata of {self.location} is damaged: {text[:80]!r}")
        return value

    def _upsert(self, batch: list[models.PointStruct]) -> None:
        self._connection.call("upsert", lambda c: c.upsert(self._name, batch, wait=True))

    def _delete(self, selector: models.PointIdsList | models.FilterSelector) -> None:
        self._connection.call("delete", lambda c: c.delete(self._name, selector, wait=True))

    def _count(self, condition: models.Filter | None) -> int:
        return self._connection.call("count", lambda c: c.count(self._name, count_filter=condition, exact=True).count)

    def _create_index(self, key: str, kind: models.PayloadSchemaType) -> None:
        if not self._connection.in_process:
            self._connection.call("create index", lambda c: c.create_payload_index(self._name, key, kind, wait=True))

    def _query(
        self, vector: FloatArray | SparseVector, clause: Clause | None, limit: int, exact: bool, *, window: int
    ) -> models.QueryRequest:
        sparse = isinstance(vector, SparseVector)
        params = None
        if not sparse and not self._connection.in_process:
            params = server_search_params(self._quantization, ef=max(self._hnsw.ef, limit), exact=exact)
        return models.QueryRequest(
            query=server_vector(vector),
            using="bm25" if sparse else "dense",
            filter=None if clause is None else server_filter(clause),
            params=params,
            limit=window,
            with_payload=False,
            with_vector=False,
        )

    def _answers(self, asked: list[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        if not asked:
            self._require_open()
            return []
        answers = self._connection.call("search", lambda c: c.query_batch_points(self._name, requests=asked))
        return [answer.points for answer in answers]

    def _ranked(
        self, query: tuple[FloatArray | SparseVector, Clause | None, int, bool], first: list[models.ScoredPoint]
    ) -> list[ScoredPoint]:
        def fetch(window: int) -> list[models.ScoredPoint]:
            return self._answers([self._query(*query, window=window)])[0]

        hits = close_tie(fetch, first, query[2], lambda hit: float(hit.score))
        return best_first((ScoredPoint(str(hit.id), float(hit.score) + 0.0) for hit in hits), query[2])

    def _retrieve(
        self, ids: list[str], fields: bool | list[str], names: list[str] | bool, select: Callable[..., dict[str, Any]]
    ) -> dict[str, StoredPoint]:
        records = self._connection.call(
            "get", lambda c: c.retrieve(self._name, list(ids), with_payload=fields, with_vectors=names)
        )
        return {str(record.id): _stored(record, select) for record in records}

    def _scroll(self, **arguments: Any) -> tuple[list[models.Record], Any]:
        return self._connection.call("scan", lambda c: c.scroll(self._name, **arguments))

    def _scan(
        self,
        clause: Clause | None,
        select: Callable[..., dict[str, Any]],
        fields: bool | list[str],
        vectors: bool,
        batch: int,
    ) -> Iterator[StoredPoint]:
        condition, offset = None if clause is None else server_filter(clause), None
        while True:
            records, offset = self._scroll(
                scroll_filter=condition,
                limit=batch,
                offset=offset,
                with_payload=fields,
                with_vectors=["dense"] if vectors else False,
            )
            yield from (_stored(record, select) for record in records)
            if offset is None:
                return

    def _index_covers(self, key: str) -> bool:
        """Whether a payload index knows every value of a field, made now if need be."""
        if self._connection.in_process:
            return True
        filled = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
        schema = self._info().payload_schema
        if key not in schema:
            path = parse_path(key)
            records, _ = self._scroll(scroll_filter=filled, limit=_SAMPLE, with_payload=True, with_vectors=False)
            kinds = {type(value) for record in records for value in scalars_at(path, record.payload or {})}
            if len(kinds) != 1 or (kind := _FACET_KINDS.get(kinds.pop())) is None:
                return False
            self._create_index(key, kind)
            schema = self._info().payload_schema
        return key in schema and schema[key].points == self._count(filled)


def _payload_fields(payload: bool | Sequence[str]) -> bool:
    # Named keys are picked here: the server reads names as paths, where a dot descends.
    return payload is not False


def _stored(record: models.Record, select: Callable[..., dict[str, Any]]) -> StoredPoint:
    vector = record.vector.get("dense") if isinstance(record.vector, dict) else None
    dense = None if vector is None else np.array(vector, dtype=np.float32)
    return StoredPoint(str(record.id), select(record.payload or {}), dense)
