"""One collection of a server: made, checked, its settings and its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from qdrant_client import QdrantClient, models

from retrieval.config import Config, ServerStoreConfig
from retrieval.datatypes import Quantization
from retrieval.errors import IndexMismatchError, StoreCorruptError
from retrieval.stores.json_files import check_schema, encode_manifest
from retrieval.stores.server.connection import ADMIN_TIMEOUT_S, Connection
from retrieval.stores.server.failures import FAILURES
from retrieval.stores.server.wire import server_quantization


def index_threshold_kb(config: Config, dim: int) -> int:
    """Size of the vectors of a segment, in KiB, from which it gets a graph."""
    assert isinstance(config.store, ServerStoreConfig)
    stated = config.store.optimizers.indexing_threshold_kb
    if stated is not None:
        return stated
    return max(config.hnsw.threshold * dim * 4 // 1024, 1)


def _optimizers(config: Config, dim: int) -> models.OptimizersConfigDiff:
    assert isinstance(config.store, ServerStoreConfig)
    wanted = config.store.optimizers
    return models.OptimizersConfigDiff(
        indexing_threshold=index_threshold_kb(config, dim),
        default_segment_number=wanted.default_segment_number,
        max_segment_size=wanted.max_segment_size_kb,
        deleted_threshold=wanted.deleted_threshold,
        vacuum_min_vector_number=wanted.vacuum_min_vectors,
        flush_interval_sec=wanted.flush_interval_s,
        max_optimization_threads=wanted.max_optimization_threads,
    )


def _sparse_index(on_disk: bool | None) -> models.SparseIndexParams | None:
    return None if on_disk is None else models.SparseIndexParams(on_disk=on_disk)


class Collection:
    """A collection that exists or that `create` makes.

    Args:
        connection: To the server.
        name: Its own name, not an alias.
        location: What messages call it.
    """

    def __init__(self, connection: Connection, name: str, location: str) -> None:
        self.name = name
        self._connection = connection
        self._location = location

    def create(self, config: Config, dim: int, origin: str = "") -> None:
        """Make the collection, unless it is there.

        Args:
            config: Settings of the collection.
            dim: Dimensions of dense vectors.
            origin: What it will be a copy of; see `Store.start_generation`.
        """
        noted: dict[str, dict[str, Any]] = {"quantization": asdict(config.quantization.record())}
        if origin:
            noted["origin"] = {"name": origin, "growing": True}

        def create(client: QdrantClient) -> None:
            if client.collection_exists(self.name):
                return
            try:
                self._create(client, config, dim, noted)
            except FAILURES:
                # The answer was lost on the way, or another process was faster.
                if not client.collection_exists(self.name):
                    raise

        self._connection.call("create collection", create)

    def _create(self, client: QdrantClient, config: Config, dim: int, noted: dict[str, dict[str, Any]]) -> None:
        store = config.store
        assert isinstance(store, ServerStoreConfig)
        on_disk = store.on_disk
        client.create_collection(
            self.name,
            vectors_config={
                "dense": models.VectorParams(size=dim, distance=models.Distance.COSINE, on_disk=on_disk.vectors)
            },
            sparse_vectors_config={
                "bm25": models.SparseVectorParams(modifier=models.Modifier.IDF, index=_sparse_index(on_disk.sparse))
            },
            shard_number=store.shard_number,
            replication_factor=store.replication_factor,
            write_consistency_factor=store.write_consistency_factor,
            on_disk_payload=on_disk.payload,
            hnsw_config=models.HnswConfigDiff(
                m=config.hnsw.m, ef_construct=config.hnsw.ef_construct, on_disk=on_disk.graph
            ),
            optimizers_config=_optimizers(config, dim),
            quantization_config=server_quantization(config.quantization.record()),
            metadata={key: encode_manifest(value) for key, value in noted.items()},
            timeout=ADMIN_TIMEOUT_S,
        )

    def dimensions(self) -> int:
        """Dimensions of its dense vectors.

        Raises:
            IndexMismatchError: Something else made the collection.
        """
        params = self.info().config.params
        dense = params.vectors.get("dense") if isinstance(params.vectors, dict) else None
        if dense is None or "bm25" not in (params.sparse_vectors or {}):
            raise IndexMismatchError(
                f"collection {self._location} has no vectors 'dense' and 'bm25'; something else made it: "
                "name another one in store.collection"
            )
        if dense.distance is not models.Distance.COSINE:
            raise IndexMismatchError(
                f"collection {self._location} compares vectors by {dense.distance.value}, not Cosine; "
                "name another one in store.collection"
            )
        return dense.size

    def check(self, dim: int) -> None:
        """Refuse a collection that something else has made.

        Raises:
            IndexMismatchError: It has other vectors.
        """
        if (size := self.dimensions()) != dim:
            raise IndexMismatchError(
                f"collection {self._location} has vectors of {size} dimensions, the encoder gives {dim}; "
                "open it with the encoder that it was built with, or re-encode with 'retrieval ingest --rebuild'"
            )

    def info(self) -> models.CollectionInfo:
        """What the server says about it."""
        return self._connection.call("read collection", lambda c: c.get_collection(self.name))

    # Metadata are merged key by key, values and all; as text a mapping is replaced as a whole.
    def write_metadata(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the given metadata, each a mapping.

        Raises:
            StoreInputError: One is not JSON.
        """
        self.update(f"write {', '.join(values)}", values)

    def update(self, action: str, values: Mapping[str, Mapping[str, Any]], **changes: Any) -> None:
        """Replace metadata and change settings in one request.

        Args:
            action: What is being done, for messages.
            values: Metadata to replace, each a mapping.
            changes: Arguments of the client's ``update_collection``.

        Raises:
            StoreInputError: A mapping is not JSON.
        """
        metadata = {key: encode_manifest(value) for key, value in values.items()}
        self._connection.call(
            action,
            lambda c: c.update_collection(self.name, metadata=metadata, timeout=ADMIN_TIMEOUT_S, **changes),
        )

    def read_metadata(self, key: str) -> dict[str, Any] | None:
        """One of the metadata, ``None`` where it was not written.

        Raises:
            StoreCorruptError: It is not a mapping.
        """
        text = (self.info().config.metadata or {}).get(key)
        if text is None:
            return None
        try:
            value = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise StoreCorruptError(f"the {key} in the metadata of {self._location} is damaged: {error}") from error
        if not isinstance(value, dict):
            raise StoreCorruptError(f"the {key} in the metadata of {self._location} is damaged: {text[:80]!r}")
        return value

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, ``None`` where none was written.

        Raises:
            StoreCorruptError: It is damaged.
            IndexMismatchError: A newer version has written it.
        """
        manifest = self.read_metadata("manifest")
        if manifest is not None:
            check_schema(manifest, self._location)
        return manifest

    def read_quantization(self) -> Quantization | None:
        """How its dense vectors are compressed, ``None`` where that was not noted.

        Raises:
            StoreCorruptError: The note is damaged.
        """
        saved = self.read_metadata("quantization")
        try:
            return None if saved is None else Quantization(**saved)
        except TypeError as error:
            raise StoreCorruptError(
                f"the metadata of {self._location} are damaged: quantization is {saved!r}"
            ) from error

    def count(self, condition: models.Filter | None) -> int:
        """Number of points that match."""
        return self._connection.call("count", lambda c: c.count(self.name, count_filter=condition, exact=True).count)

    def scroll(self, **arguments: Any) -> tuple[list[models.Record], Any]:
        """A page of points, and where the next one starts."""
        return self._connection.call("scan", lambda c: c.scroll(self.name, **arguments))
