"""A Qdrant server or cluster as the store: one collection a generation, with the manifest in its metadata."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from retrieval.stores.filters import Clause, parse_path
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
from retrieval.stores.server_collection import Collection
from retrieval.stores.server_connection import Connection
from retrieval.stores.server_generations import (
    erase_all,
    erase_generations,
    generation_name,
    generation_number,
    generations_of,
    live_collection,
    set_first,
    switch,
)
from retrieval.stores.server_models import (
    server_filter,
    server_point,
    server_quantization,
    server_query,
    stored_point,
)
from retrieval.stores.ties import count_values, most_frequent

OPTIMIZE_WAIT_S = 3600.0
_POLL_S = 0.5
_sleep = time.sleep


class ServerStore:
    """Keeps an index in a collection of a Qdrant server, created when absent.

    Every write waits until the server has applied it. Passing failures are repeated (see
    `retrieval.stores.server_connection.Connection`). Equal scores are ordered by id, also at the cut. The server counts
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
        self, config: Config, connection: Connection, collection: str, dim: int, *, replaces: str | None
    ) -> None:
        assert isinstance(config.store, ServerStoreConfig)
        self._config, self._store, self._hnsw, self._dim = config, config.store, config.hnsw, dim
        self._connection = connection
        self._name = collection
        self._replaces = replaces
        self._collection = Collection(connection, collection, self.location)
        if not connection.call("open", lambda c: c.collection_exists(collection)):
            self._collection.create(config, dim)
        self._collection.check(dim)
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
        return search_engine(requests, self._dim, self._ask)

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool | Sequence[Arm] = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        wanted, select = checked_ids(ids), payload_selector(payload)
        fields = _payload_fields(payload)
        names = vector_names(vectors)
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
        vectors: bool | Sequence[Arm] = False,
        batch: int = 1000,
    ) -> Iterator[StoredPoint]:
        """All matching points by id; see `Store.scan`."""
        checked_limit(batch, "batch")
        clause, select = checked_filter(where), payload_selector(payload)
        self._require_open()
        return self._scan(clause, select, _payload_fields(payload), vector_names(vectors), batch)

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
        doomed = self._collection.count(condition)
        self._delete(models.FilterSelector(filter=condition))
        return doomed

    def count(self, where: Filter | None = None) -> int:
        """Number of matching points."""
        clause = checked_filter(where)
        return self._collection.count(None if clause is None else server_filter(clause))

    def facet(self, key: str, limit: int = 10, where: Filter | None = None) -> list[tuple[Any, int]]:
        """Most frequent values; see `Store.facet`. The first facet of a field makes an index for it."""
        path, clause = parse_path(key), checked_filter(where)
        checked_limit(limit)
        if not self._collection.index_covers(key):
            rows = (scalars_at(path, point.payload) for point in self.scan(where))
            return most_frequent(count_values(rows), limit)
        return self._collection.facet(key, limit, None if clause is None else server_filter(clause))

    def set_quantization(self, quantization: Quantization) -> None:
        """Compress dense vectors another way, or no more; the server rebuilds in the background."""
        checked_quantization(quantization)
        wanted: Any = server_quantization(quantization) or models.Disabled.DISABLED
        self._connection.call("quantize", lambda c: c.update_collection(self._name, quantization_config=wanted))
        self._collection.write_metadata({"quantization": asdict(quantization)})
        self._quantization = quantization

    def optimize(self) -> None:
        """Wait until the server has optimized the collection.

        Raises:
            StoreError: It reports an error, or is not done after `OPTIMIZE_WAIT_S` seconds.
        """
        deadline = time.monotonic() + OPTIMIZE_WAIT_S
        while (status := self._collection.info().status) is not models.CollectionStatus.GREEN:
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

    def start_generation(self, dim: int) -> ServerStore:
        """A new collection; see `Store.start_generation`.

        Raises:
            IndexMismatchError: Another process has switched to another generation since this store was opened.
        """
        self._require_live()
        name = self._store.collection
        # Counted before leftovers go: one of them may be growing in another process, which then finds it gone.
        number = max([*generations_of(self._connection, name), self.generation]) + 1
        self.tidy()
        return self._with(generation_name(name, number), dim, replaces=self._name)

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
        plain = self._replaces == self._store.collection
        previous = None if plain or manifest.get("previous") is None else self._replaces
        number = None if previous is None else manifest["previous"]
        self._collection.write_metadata(
            {
                "manifest": {**manifest, "generation": self.generation, "previous": number},
                "previous_collection": {} if previous is None else {"name": previous},
            }
        )
        switch(self._connection, self._store.collection, self._replaces, self._name)
        self._replaces = None

    def tidy(self) -> None:
        """Remove the collections of generations that the manifest does not name, and the folders of their encoders."""
        manifest = self._collection.read_manifest() or {}
        keep = {self._name}
        if manifest.get("previous") is not None and (previous := self._previous_collection()) is not None:
            keep.add(previous)
        folder = None if self._store.models is None else Path(self._store.models)
        erase_generations(self._connection, self._store.collection, keep=keep, models_folder=folder)

    def abandon(self) -> None:
        """Close and erase a generation that is not live.

        Raises:
            StoreError: It is live.
        """
        if self._replaces is None:
            raise StoreError(f"{self._name} is live at {self.location}; it is not erased")
        try:
            self._connection.call("erase", lambda c: c.delete_collection(self._name))
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

    def _with(self, collection: str, dim: int, *, replaces: str) -> ServerStore:
        quantization = QuantizationConfig.model_validate(asdict(self._quantization))
        config = self._config.model_copy(update={"quantization": quantization})
        store = ServerStore.__new__(ServerStore)
        store._serve(config, self._connection.shared(), collection, dim, replaces=replaces)
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

    def _wake_optimizer(self, client: QdrantClient) -> bool:
        # After a restart optimizations wait for an update; an empty one will do.
        return client.update_collection(self._name, optimizers_config=models.OptimizersConfigDiff())

    def _require_open(self) -> None:
        self._connection.call("use", lambda c: None)

    def _upsert(self, batch: list[models.PointStruct]) -> None:
        self._connection.call("upsert", lambda c: c.upsert(self._name, batch, wait=True))

    def _delete(self, selector: models.PointIdsList | models.FilterSelector) -> None:
        self._connection.call("delete", lambda c: c.delete(self._name, selector, wait=True))

    def _ask(self, queries: list[Query]) -> list[list[models.ScoredPoint]]:
        if not queries:
            self._require_open()
            return []
        # The in-process client has no search parameters.
        quantization = None if self._connection.in_process else self._quantization
        asked = [server_query(query, quantization, ef=self._hnsw.ef) for query in queries]
        answers = self._connection.call("search", lambda c: c.query_batch_points(self._name, requests=asked))
        return [answer.points for answer in answers]

    def _retrieve(
        self, ids: list[str], fields: bool, names: list[str], select: Callable[..., dict[str, Any]]
    ) -> dict[str, StoredPoint]:
        records = self._connection.call(
            "get", lambda c: c.retrieve(self._name, list(ids), with_payload=fields, with_vectors=names or False)
        )
        return {str(record.id): stored_point(record, select) for record in records}

    def _scan(
        self,
        clause: Clause | None,
        select: Callable[..., dict[str, Any]],
        fields: bool,
        names: list[str],
        batch: int,
    ) -> Iterator[StoredPoint]:
        condition, offset = None if clause is None else server_filter(clause), None
        while True:
            records, offset = self._collection.scroll(
                scroll_filter=condition,
                limit=batch,
                offset=offset,
                with_payload=fields,
                with_vectors=names or False,
            )
            yield from (stored_point(record, select) for record in records)
            if offset is None:
                return


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


def _payload_fields(payload: bool | Sequence[str]) -> bool:
    # Named keys are picked here: the server reads names as paths, where a dot descends.
    return payload is not False
