"""A Qdrant server or cluster as the store: one collection a generation, with the manifest in its metadata."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from retrieval.config import Config, QuantizationConfig, ServerStoreConfig
from retrieval.datatypes import (
    Arm,
    Filter,
    Point,
    Quantization,
    ScoredPoint,
    SearchRequest,
    StoredPoint,
)
from retrieval.errors import ConfigError, IndexMismatchError, StoreError
from retrieval.stores.filters import parse_path
from retrieval.stores.json_files import check_schema
from retrieval.stores.matching import scalars_at
from retrieval.stores.points import (
    checked_delete_filter,
    checked_filter,
    checked_ids,
    checked_limit,
    checked_points,
    checked_quantization,
    payload_selector,
    vector_names,
)
from retrieval.stores.searching import Query, search_engine
from retrieval.stores.server.collection import Collection, index_threshold_kb
from retrieval.stores.server.connection import ADMIN_TIMEOUT_S, Connection
from retrieval.stores.server.generations import (
    erase_all,
    erase_generations,
    generation_name,
    generation_number,
    generations_of,
    go_live,
    growing_copies,
    live_collection,
    set_first,
)
from retrieval.stores.server.indexing import BulkLoad, Indexing
from retrieval.stores.server.payload_indexes import PayloadIndexes, wanted_indexes
from retrieval.stores.server.points import Points
from retrieval.stores.server.wire import server_filter, server_point, server_quantization
from retrieval.stores.ties import count_values, most_frequent


class ServerStore:
    """Keeps an index in a collection of a Qdrant server, created when absent.

    Every write waits until the server has applied it. Passing failures are repeated (see
    `retrieval.stores.server.connection.Connection`). Equal scores are ordered by id, also at the cut. The server counts
    deleted points in BM25 statistics until it has optimized their segments, which it does by itself.

    Args:
        config: Takes ``store``, ``hnsw`` and ``quantization`` (for a new collection; an existing one keeps its own).
        dim: Dimensions of dense vectors.
        client: A client to use, which stays open at `close`; ``None`` makes one.
        fresh: Whether to erase the index that is there.

    Raises:
        ConfigError: The URL or the environment variable of the key cannot be used.
        StoreError: The server cannot be reached or refuses.
        IndexMismatchError: The collection has other vectors, or a newer version has written it.
    """

    def __init__(self, config: Config, *, dim: int, client: QdrantClient | None = None, fresh: bool = False) -> None:
        store = config.store if isinstance(config.store, ServerStoreConfig) else ServerStoreConfig()
        connection = Connection(store, client)
        try:
            if fresh:
                erase_all(connection, store.collection)
            live = live_collection(connection, store.collection)
            self._serve(config, connection, live or generation_name(store.collection, 1), dim, replaces=None)
            if live is None:
                set_first(connection, store.collection, self._name)
        except BaseException:
            connection.close()
            raise

    def _serve(
        self,
        config: Config,
        connection: Connection,
        collection: str,
        dim: int,
        *,
        replaces: str | None,
        copy_of: str = "",
    ) -> None:
        assert isinstance(config.store, ServerStoreConfig)
        self._config, self._store, self._hnsw, self._dim = config, config.store, config.hnsw, dim
        self._connection = connection
        self._name = collection
        self._replaces = replaces
        self._copy_of = copy_of
        self._collection = Collection(connection, collection, self.location)
        self._indexing = Indexing(connection, self._collection, self.location, index_threshold_kb(config, dim))
        self._load: BulkLoad | None = None
        self._points = Points(connection, collection, self._store.batch_size)
        self._indexes = PayloadIndexes(connection, self._collection)
        self._collection.create(config, dim, copy_of)
        self._collection.check(dim)
        self._indexes.ensure(wanted_indexes(config.store))
        self._collection.read_manifest()
        self._quantization = self._collection.read_quantization() or config.quantization.record()

    @property
    def location(self) -> str:
        """URL of the collection under its name in the configuration."""
        return f"{self._store.url.rstrip('/')}/collections/{self._store.collection}"

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return generation_number(self._store.collection, self._name)

    @property
    def origin(self) -> str:
        """What this generation was started from; see `Store.origin`."""
        return self._copy_of or str((self._collection.read_metadata("origin") or {}).get("name", ""))

    @property
    def quantization(self) -> Quantization:
        """How dense vectors are compressed at present."""
        return self._quantization

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; see `Store.upsert`."""
        checked = [server_point(point) for point in checked_points(points, self._dim)]
        self._require_open()
        self._points.upsert(checked, self._announce)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Best points of each request; see `Store.search`."""
        return search_engine(requests, self._dim, self._ask)

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool | Sequence[Arm] = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        wanted, select = checked_ids(ids), payload_selector(payload)
        names = vector_names(vectors)
        self._require_open()
        return self._points.get(wanted, payload, names, select)

    def scan(
        self,
        where: Filter | None = None,
        *,
        payload: bool | Sequence[str] = True,
        vectors: bool | Sequence[Arm] = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All matching points by id; see `Store.scan`."""
        checked_limit(batch, "batch")
        clause, select = checked_filter(where), payload_selector(payload)
        self._require_open()
        return self._points.scan(clause, payload, vector_names(vectors), select, batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; see `Store.delete`."""
        doomed = checked_ids(ids)
        self._require_open()
        self._points.delete(doomed)

    def delete_where(self, where: Filter) -> int:
        """Remove matching points; see `Store.delete_where`.

        Raises:
            StoreInputError: The filter is not usable or excludes nothing.
        """
        condition = server_filter(checked_delete_filter(where))
        doomed = self._collection.count(condition)
        self._points.delete_where(condition)
        return doomed

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        clause = checked_filter(where)
        return self._collection.count(None if clause is None else server_filter(clause))

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`. The first facet of a field makes an index for it."""
        path, clause = parse_path(key), checked_filter(where)
        checked_limit(limit)
        if not self._indexes.cover(key):
            rows = (scalars_at(path, point.payload) for point in self.scan(where))
            return most_frequent(count_values(rows), limit)
        return self._indexes.facet(key, limit, None if clause is None else server_filter(clause))

    def set_quantization(self, quantization: Quantization) -> None:
        """Compress dense vectors another way, or no more; the server rebuilds in the background."""
        checked_quantization(quantization)
        wanted: Any = server_quantization(quantization) or models.Disabled.DISABLED
        self._collection.update("quantize", {"quantization": asdict(quantization)}, quantization_config=wanted)
        self._quantization = quantization

    @contextmanager
    def bulk(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Many points come within the block; see `Store.bulk` and ``store.bulk`` of the configuration."""
        if self._load is not None:
            yield
            return
        self._load = load = BulkLoad(self._indexing, self._collection, self._store.bulk)
        try:
            yield
        except BaseException:
            load.give_up()
            raise
        finally:
            self._load = None
        load.finish(on_wait)

    def defer_indexing(self) -> None:
        """Build no vector index until `resume_indexing`, for writers in several processes; safe to repeat."""
        self._indexing.defer()

    def resume_indexing(self) -> None:
        """Build vector indexes again, where that was put off, and wait until they are complete.

        Raises:
            StoreError: The server reports an error, or stands still.
        """
        self._indexing.resume()
        self._indexing.wait(seen=2)

    def optimize(self) -> None:
        """Wait until the server has optimized the collection, also where an ingest was killed that had put it off.

        Raises:
            StoreError: The server reports an error, or stands still.
        """
        self._indexing.resume()
        self._indexing.wait()

    def flush(self) -> None:
        """Nothing to send: an acknowledged write is in the log of the server."""
        self._require_open()

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written; see `Store.read_manifest`."""
        return self._collection.read_manifest()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; see `Store.write_manifest`.

        Raises:
            IndexMismatchError: Another process has switched to another generation since this store was opened.
        """
        check_schema(manifest, self.location)
        if self._replaces is None:
            self._require_live()
        self._collection.write_metadata({"manifest": manifest})

    def encoder_folder(self) -> Path:
        """A folder in ``store.models``; see `Store.encoder_folder`.

        Raises:
            ConfigError: ``store.models`` is not set.
        """
        return encoder_folder(self._store, self._name)

    def start_generation(self, dim: int, *, origin: str = "") -> ServerStore:
        """A collection for the next generation; see `Store.start_generation`.

        Raises:
            IndexMismatchError: Another process has switched to another generation since this store was opened.
        """
        self._require_live()
        name = self._store.collection
        # Counted before leftovers go: one of them may be growing in another process, which then finds it gone.
        number = max([*generations_of(self._connection, name), self.generation]) + 1
        left = self._erase_leftovers(lambda copy_of: bool(origin) and copy_of == origin)
        collection = left[0] if left else generation_name(name, number)
        return self._with(collection, dim, replaces=self._name, copy_of=origin)

    def open_generation(self, number: int) -> ServerStore:
        """The store of the previous generation; see `Store.open_generation`."""
        previous = self._previous_collection()
        if previous is None or generation_number(self._store.collection, previous) != number:
            raise StoreError(f"{self.location} has no generation {number}")
        dim = Collection(self._connection, previous, self.location).dimensions()
        return self._with(previous, dim, replaces=self._name)

    def make_live(self, manifest: Mapping[str, Any]) -> None:
        """Switch the alias to this collection; see `Store.make_live`.

        A collection that is not behind an alias cannot be kept; then the manifest has no ``previous``.

        Raises:
            StoreError: Another process has switched meanwhile.
        """
        assert self._replaces is not None
        noted = {"origin": {"name": self._copy_of, "growing": False}} if self._copy_of else None
        go_live(
            self._connection,
            self._store.collection,
            self._name,
            replaces=self._replaces,
            manifest=manifest,
            noted=noted,
        )
        self._replaces = None

    def tidy(self) -> None:
        """Remove the collections of generations that the manifest does not name, and the folders of their encoders.

        A copy that is growing stays: it can be continued.
        """
        self._erase_leftovers(bool)

    def _erase_leftovers(self, spare: Callable[[str], bool]) -> list[str]:
        """As `tidy`, but of the copies that are growing only those stay whose origin is spared; these are returned."""
        manifest = self._collection.read_manifest() or {}
        keep = {self._name}
        if manifest.get("previous") is not None and (previous := self._previous_collection()) is not None:
            keep.add(previous)
        copies = growing_copies(self._connection, self._store.collection, keep)
        spared = sorted(collection for collection, origin in copies.items() if spare(origin))
        folder = None if self._store.models is None else Path(self._store.models)
        erase_generations(self._connection, self._store.collection, keep=keep.union(spared), models_folder=folder)
        return spared

    def abandon(self) -> None:
        """Close and erase a generation that is not live.

        Raises:
            StoreError: It is live.
        """
        if self._replaces is None:
            raise StoreError(f"{self._name} is live at {self.location}; it is not erased")
        try:
            self._connection.call("erase", lambda c: c.delete_collection(self._name, timeout=ADMIN_TIMEOUT_S))
            if self._store.models is not None:
                shutil.rmtree(self.encoder_folder(), ignore_errors=True)
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> ServerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with(self, collection: str, dim: int, *, replaces: str, copy_of: str = "") -> ServerStore:
        quantization = QuantizationConfig.model_validate(asdict(self._quantization))
        config = self._config.model_copy(update={"quantization": quantization})
        store = ServerStore.__new__(ServerStore)
        store._serve(config, self._connection.shared(), collection, dim, replaces=replaces, copy_of=copy_of)
        return store

    def _previous_collection(self) -> str | None:
        name = (self._collection.read_metadata("previous_collection") or {}).get("name")
        return str(name) if name is not None else None

    def _require_live(self) -> None:
        live = live_collection(self._connection, self._store.collection)
        if live != self._name:
            raise IndexMismatchError(
                f"{self.location} was switched from {self._name} to {live} by another process; open the index again"
            )

    def _require_open(self) -> None:
        self._connection.call("use", lambda c: None)

    def _announce(self, points: int) -> None:
        if self._load is not None:
            self._load.announce(points)

    def _ask(self, queries: list[Query]) -> list[list[models.ScoredPoint]]:
        if not queries:
            self._require_open()
            return []
        return self._points.search(queries, self._quantization, ef=self._hnsw.ef)


def encoder_folder(store: ServerStoreConfig, collection: str) -> Path:
    """Where the encoder that was adapted to a collection is kept.

    Raises:
        ConfigError: ``store.models`` is not set.
    """
    if store.models is None:
        raise ConfigError(
            f"an encoder adapted to collection {store.collection} needs a folder that every machine that searches it "
            "can read: name one in store.models"
        )
    return Path(store.models) / collection
