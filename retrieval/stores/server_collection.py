"""One collection of a server: made, checked, and its metadata and payload indexes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from qdrant_client import QdrantClient, models

from retrieval.config import Config, ServerStoreConfig
from retrieval.datatypes import Quantization
from retrieval.errors import IndexMismatchError, StoreCorruptError
from retrieval.stores.filters import parse_path
from retrieval.stores.json_files import check_schema, encode_manifest
from retrieval.stores.matching import scalars_at
from retrieval.stores.server_connection import Connection
from retrieval.stores.server_models import server_quantization
from retrieval.stores.ties import MARGIN, close_tie, most_frequent

_SAMPLE = 256
_KEYWORDS = ("document", "document_id", "source")
_FACET_KINDS = {
    str: models.PayloadSchemaType.KEYWORD,
    int: models.PayloadSchemaType.INTEGER,
    bool: models.PayloadSchemaType.BOOL,
}


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

    def create(self, config: Config, dim: int) -> None:
        """Make the collection and its payload indexes, unless it is there."""
        store = config.store
        assert isinstance(store, ServerStoreConfig)
        kilobytes = max(config.hnsw.threshold * dim * 4 // 1024, 1)
        quantization = config.quantization.record()

        def create(client: QdrantClient) -> None:
            # A repeated request may find what the first one made before its answer was lost.
            if client.collection_exists(self.name):
                return
            client.create_collection(
                self.name,
                vectors_config={"dense": models.VectorParams(size=dim, distance=models.Distance.COSINE)},
                sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
                shard_number=store.shard_number,
                replication_factor=store.replication_factor,
                write_consistency_factor=store.write_consistency_factor,
                hnsw_config=models.HnswConfigDiff(m=config.hnsw.m, ef_construct=config.hnsw.ef_construct),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes),
                quantization_config=server_quantization(quantization),
                metadata={"quantization": encode_manifest(asdict(quantization))},
            )

        self._connection.call("create collection", create)
        for field in _KEYWORDS:
            self._create_index(field, models.PayloadSchemaType.KEYWORD)

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
        metadata = {key: encode_manifest(value) for key, value in values.items()}
        action = f"write {', '.join(values)}"
        self._connection.call(action, lambda c: c.update_collection(self.name, metadata=metadata))

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
        except (TypeError, ValueError) as error:
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

    def index_covers(self, key: str) -> bool:
        """Whether a payload index knows every value of a field, made now if need be."""
        if self._connection.in_process:
            return True
        filled = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))])
        schema = self.info().payload_schema
        if key not in schema:
            path = parse_path(key)
            records, _ = self.scroll(scroll_filter=filled, limit=_SAMPLE, with_payload=True, with_vectors=False)
            kinds = {type(value) for record in records for value in scalars_at(path, record.payload or {})}
            if len(kinds) != 1 or (kind := _FACET_KINDS.get(kinds.pop())) is None:
                return False
            self._create_index(key, kind)
            schema = self.info().payload_schema
        return key in schema and schema[key].points == self.count(filled)

    def facet(self, key: str, limit: int, condition: models.Filter | None) -> list[tuple[Any, int]]:
        """Most frequent values of an indexed field with their counts, most frequent first."""

        def fetch(window: int) -> list[models.FacetValueHit]:
            return self._connection.call(
                "facet", lambda c: c.facet(self.name, key, facet_filter=condition, limit=window, exact=True).hits
            )

        hits = close_tie(fetch, fetch(limit + MARGIN), limit, lambda hit: float(hit.count))
        return most_frequent(((hit.value, hit.count) for hit in hits), limit)

    def _create_index(self, key: str, kind: models.PayloadSchemaType) -> None:
        if not self._connection.in_process:
            self._connection.call("create index", lambda c: c.create_payload_index(self.name, key, kind, wait=True))
