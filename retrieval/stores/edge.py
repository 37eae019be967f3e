"""The default store: Qdrant Edge, the vector engine of Qdrant inside this process, in one folder."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import qdrant_edge as engine

from retrieval.config import Config, EdgeStoreConfig, QuantizationConfig
from retrieval.datatypes import (
    Arm,
    Filter,
    Point,
    Quantization,
    ScoredPoint,
    SearchRequest,
    StoredPoint,
)
from retrieval.errors import StoreBusyError, StoreCorruptError, StoreError
from retrieval.stores.edge_engine import Engine, engine_dimensions
from retrieval.stores.edge_facets import indexed_facet
from retrieval.stores.edge_filters import edge_filter
from retrieval.stores.edge_records import edge_point, edge_query, hit_names, stored_point
from retrieval.stores.edge_sealing import Sealing
from retrieval.stores.filters import Clause, parse_path
from retrieval.stores.generation_folder import GenerationFolder
from retrieval.stores.generation_settings import Settings
from retrieval.stores.index_folder import IndexFolder
from retrieval.stores.json_files import REMEDY, ids_digest
from retrieval.stores.matching import scalars_at
from retrieval.stores.plain_files import require_plain_files
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
from retrieval.stores.published import tidy_publications
from retrieval.stores.publisher import Publisher
from retrieval.stores.room import require_room
from retrieval.stores.searching import Query, search_engine
from retrieval.stores.ties import count_values, most_frequent
from retrieval.stores.upkeep import AUTOMATIC, is_due, wants_codes, wants_graph

_BATCH = 512
_log = logging.getLogger(__name__)


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
        generation: An open generation, which the store then owns, before the live one of ``path``.

    Raises:
        StoreError: No folder is given, or it cannot be made.
        StoreBusyError: Another process or handle has the index open.
        StoreCorruptError: Files are damaged or missing.
        StoreFullError: Too little disk is left to create an index.
        IndexMismatchError: The index has vectors of another size or was written by a newer version.
    """

    def __init__(
        self,
        config: Config,
        *,
        dim: int,
        path: str | Path | None = None,
        verify: bool = True,
        fresh: bool = False,
        generation: GenerationFolder | None = None,
    ) -> None:
        store = config.store if isinstance(config.store, EdgeStoreConfig) else EdgeStoreConfig()
        self._config = config
        self._dim = dim
        self._hnsw = config.hnsw
        self._writing = threading.RLock()
        self._blocks = 0
        self._written = 0
        self._folder = generation or _open_live(path if path is not None else store.path, tidy=verify, fresh=fresh)
        try:
            chosen, automatic = config.quantization.record(), config.quantization.kind == "auto"
            self._settings = self._folder.open_settings(chosen, automatic=automatic)
            self._sealing = Sealing(self._folder.path)
            require_plain_files(self._folder.engine, self._folder.index.root)
            require_room(self._folder.path, self._folder.index.root)
            self._engine = Engine(
                self._folder.engine,
                place=self._folder.index.root,
                dim=dim,
                hnsw=config.hnsw,
                # Codes cost little while they are not searched, and making them later would be a rebuild.
                quantization=AUTOMATIC if self._settings.automatic else self.quantization,
                min_free_mb=store.min_free_mb,
                sealing=self._sealing,
            )
            self._publisher = Publisher(self._folder, self.flush, self._engine.require_disk, enabled=store.publish)
        except BaseException:
            self._folder.release()
            raise
        try:
            if verify or generation is not None:
                count = self.count()
                if verify:
                    self._verify_count(count)
                self._drop_doubles(count)
        except BaseException:
            self.close()
            raise

    @property
    def location(self) -> str:
        """The folder of the index."""
        return str(self._folder.index.root)

    @property
    def generation(self) -> int:
        """Number of the generation."""
        return self._folder.number

    @property
    def origin(self) -> str:
        """What this generation was started from; see `Store.origin`."""
        return self._folder.origin

    @property
    def quantization(self) -> Quantization:
        """How dense vectors are compressed at present."""
        return self._settings.quantization

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; see `Store.upsert`.

        Raises:
            StoreInputError: A point is not usable; nothing was written.
            StoreFullError: Too little disk is left.
        """
        checked = checked_points(points, self._dim, copy=False)
        with self._writes():
            for start in range(0, len(checked), _BATCH):
                batch = checked[start : start + _BATCH]
                self._engine.require_disk()
                self._note_replaced([point.id for point in batch])
                self._update("upsert", engine.UpdateOperation.upsert_points([edge_point(point) for point in batch]))
                self._written += len(batch)

    def search(self, requests: Sequence[SearchRequest]) -> list[list[ScoredPoint]]:
        """Best points of each request; see `Store.search`."""
        exact = self.quantization.kind == "none" and self._size() < self._hnsw.threshold
        return search_engine(requests, self._dim, self._ask, exact=exact, names=hit_names)

    def get(
        self, ids: Sequence[str], *, payload: bool | Sequence[str] = True, vectors: bool | Sequence[Arm] = False
    ) -> list[StoredPoint]:
        """Read points by id; see `Store.get`."""
        wanted, select = checked_ids(ids), payload_selector(payload)
        names = vector_names(vectors) or False
        records = self._engine.call("get", lambda shard: shard.retrieve(list(wanted), payload is not False, names))
        found = {point.id: point for point in (stored_point(record, select) for record in records)}
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
        self._engine.call("scan", lambda shard: None)
        return self._scan(clause, select, payload is not False, vector_names(vectors), batch)

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
            doomed = [point.id for point in self._scan(clause, payload_selector(False), False, [], 10_000)]
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
        with self._writes():
            values = indexed_facet(self._engine, key, limit, clause)
        if values is None:
            rows = (scalars_at(path, point.payload) for point in self.scan(where))
            values = most_frequent(count_values(rows), limit)
        return values

    def indexed_fields(self) -> tuple[str, ...]:
        """Payload fields that filters and facets are answered for from an index, sorted."""
        return tuple(sorted(self._engine.call("look at", lambda shard: shard.info().payload_schema)))

    def set_quantization(self, quantization: Quantization) -> None:
        """Compress dense vectors another way, or no more; rebuilds the segments in a process of its own.

        Searches wait meanwhile. Where this process is killed, or the rebuild fails, the store has no quantization from
        then on and compares vectors as they were given, until this is called again.
        """
        checked_quantization(quantization)
        with self._writes():
            if not self._settings.switching and _same_codes(quantization, self.quantization):
                self._save(replace(self._settings, quantization=quantization, automatic=False))
                return
            self._engine.require_disk(extra=self._engine.size_on_disk())
            graph = wants_graph(self._config, self.count())
            self._save(replace(self._settings, quantization=Quantization(), switching=True, automatic=False))
            self._engine.set_quantization(quantization, graph=graph)
            self._written = 0
            self._save(Settings(quantization, graph=graph))
            self._publisher.after()

    @contextmanager
    def bulk(self, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Writes of which the last puts the index in order where that is due (`retrieval.stores.upkeep`).

        Everything can be searched before. Where the order cannot be made, a warning is logged and the index stays as it
        is: the next block tries again.
        """
        self._blocks += 1
        try:
            yield
        except BaseException:
            self._blocks -= 1
            raise
        self._blocks -= 1
        if not self._blocks:
            self._put_in_order(on_wait)

    def optimize(self) -> None:
        """Make one segment of all points, with a graph where they are many, and drop deleted ones for good.

        Runs in a process of its own while this store waits. Where that is killed the index is as it was.
        """
        with self._writes():
            passages = self.count()
            self._choose_codes(passages)
            graph = wants_graph(self._config, passages)
            self._engine.optimize(graph=graph)
            self._written = 0
            self._save(replace(self._settings, has_deletes=False, graph=graph, written=0))
            self._publisher.after()

    def flush(self) -> None:
        """Make everything acknowledged survive a power loss."""
        self._engine.call("flush", lambda shard: shard.flush())
        self._note_written()

    def read_manifest(self) -> Mapping[str, Any] | None:
        """The mapping last written; see `Store.read_manifest`."""
        self._engine.call("read manifest", lambda shard: None)
        return self._folder.read_manifest()

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest; see `Store.write_manifest`."""
        self._engine.call("write manifest", lambda shard: None)
        with self._writes():
            self._publisher.before(manifest)
            self._folder.write_manifest(manifest)
            self._publisher.after()

    def publish(self) -> None:
        """Let readers see the index as it stands, where they do not yet; see `retrieval.stores.published`.

        Does nothing where ``store.publish`` is false.

        Raises:
            StoreError: Changes are under way, or the copy cannot be made; readers keep the state before.
        """
        with self._writes():
            self._publisher.publish_if_new()

    def verify(self) -> None:
        """Compare the number and the digest of all ids with the manifest; reads every id.

        Raises:
            StoreCorruptError: They differ, although the manifest says that the index is ready.
        """
        self._verify_count(self.count())
        manifest = self._folder.read_manifest()
        if manifest is not None and manifest.get("state") == "ready" and "ids_digest" in manifest:
            digest = ids_digest(point.id for point in self.scan(payload=False))
            if digest != manifest["ids_digest"]:
                raise StoreCorruptError(
                    f"index {self.location} holds other points than its manifest says (ids digest {digest}, "
                    f"manifest {manifest['ids_digest']}); {REMEDY}"
                )

    def renew_seal(self) -> None:
        """Have the files sealed at the next `close`, as after a write."""
        self._sealing.lift()

    def encoder_folder(self) -> Path:
        """Folder of the encoder that was adapted for this generation; see `Store.encoder_folder`."""
        return self._folder.encoder

    def start_generation(self, dim: int, *, origin: str = "") -> EdgeStore:
        """A store for the next generation in the same folder; see `Store.start_generation`.

        Raises:
            StoreFullError: There is no room for a second copy of the segments.
        """
        self._engine.require_disk(extra=self._engine.size_on_disk())
        return grow(self._inherited(), self._folder.index, dim, origin)

    def open_generation(self, number: int) -> EdgeStore:
        """The store of another generation; see `Store.open_generation`."""
        generation = GenerationFolder(self._folder.index, number)
        try:
            dim = engine_dimensions(generation.engine)
            return EdgeStore(self._inherited(), dim=dim, verify=False, generation=generation)
        except BaseException:
            generation.release()
            raise

    def make_live(self, manifest: Mapping[str, Any]) -> None:
        """Switch to this generation by one rename; see `Store.make_live`."""
        self.flush()
        self._folder.index.switch(self._folder, manifest)
        self._publisher.after()

    def tidy(self) -> None:
        """Erase the generations that the manifest does not name."""
        self._folder.index.tidy()

    def abandon(self) -> None:
        """Close and erase a generation that is not live.

        Raises:
            StoreError: It is live.
        """
        if not self._folder.growing:
            raise StoreError(f"generation {self.generation} of index {self.location} is or was live; it is not erased")
        try:
            self._engine.close()
        finally:
            self._folder.erase()
            self._folder.release()

    def close(self) -> None:
        """Flush, seal what was written, and release the folder; closing twice is fine."""
        try:
            self._engine.close()
            self._seal()
        finally:
            self._folder.release()

    def __enter__(self) -> EdgeStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _inherited(self) -> Config:
        chosen = self._config.quantization
        if not (self._settings.automatic and chosen.kind == "auto"):
            chosen = QuantizationConfig.model_validate(asdict(self.quantization))
        return self._config.model_copy(update={"quantization": chosen})

    def _put_in_order(self, on_wait: Callable[[], None] | None) -> None:
        with self._writes():
            self._note_written()
            passages = self.count()
            self._choose_codes(passages)
            if not is_due(self._config, self._settings, passages):
                return
            if on_wait is not None:
                on_wait()
            self._try_to_optimize("the index is complete, but it was not put in order for fast search")

    def _drop_doubles(self, count: int) -> None:
        """Drop what an optimization that was killed may have left: points in two segments, which BM25 counts twice."""
        held = int(self._engine.call("open", lambda shard: shard.info().points_count))
        if held > count:
            self._try_to_optimize("BM25 counts some passages twice until the index is optimized")

    def _try_to_optimize(self, otherwise: str) -> None:
        try:
            self.optimize()
        except (StoreCorruptError, StoreBusyError):
            raise
        except StoreError as error:
            _log.warning("%s: %s", otherwise, error)

    def _choose_codes(self, passages: int) -> None:
        if wants_codes(self._config, self._settings, passages):
            self._save(replace(self._settings, quantization=AUTOMATIC))

    def _note_written(self) -> None:
        with self._writing:
            written, self._written = self._written, 0
            self._save(replace(self._settings, written=self._settings.written + written))

    def _seal(self) -> None:
        if not self._sealing.is_lifted or self._folder.growing or not self._engine.is_own_process:
            return
        try:
            require_room(self._folder.path, self._folder.index.root)
            self._engine.settle()
            self._sealing.make(asdict(self._settings))
        except (StoreError, OSError) as error:
            self._sealing.give_up()
            _log.warning("the index was closed, but damage to its files would not be noticed: %s", error)

    def _save(self, settings: Settings) -> None:
        if settings != self._settings:
            self._sealing.lift()
            self._folder.save_settings(settings)
            self._settings = settings

    @contextmanager
    def _writes(self) -> Iterator[None]:
        self._engine.require_own_process()
        with self._writing:
            yield

    def _update(self, action: str, operation: engine.UpdateOperation) -> None:
        self._engine.write(action, lambda shard: shard.update(operation))

    def _scroll(self, request: engine.ScrollRequest) -> tuple[list[Any], Any]:
        return self._engine.call("scan", lambda shard: shard.scroll(request))

    def _verify_count(self, count: int) -> None:
        manifest = self._folder.read_manifest()
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
        self._save(replace(self._settings, has_deletes=True))

    def _note_replaced(self, ids: Sequence[str]) -> None:
        if not self._settings.has_deletes and self._engine.call(
            "upsert", lambda shard: shard.retrieve(list(ids), False, False)
        ):
            self._note_deletes()

    def _size(self) -> int:
        return int(self._engine.call("search", lambda shard: shard.info().points_count))

    def _ask(self, queries: list[Query]) -> list[list[Any]]:
        if not queries:
            self._engine.call("search", lambda shard: None)
            return []
        ef, living = self._hnsw.ef, self._settings.has_deletes
        asked = [edge_query(query, self.quantization, ef=ef, count_living=living) for query in queries]
        return self._engine.call("search", lambda shard: shard.query_batch(engine.QueryBatchRequest(asked)))

    def _scan(
        self, clause: Clause | None, select: Callable[..., dict[str, Any]], payload: bool, names: list[str], batch: int
    ) -> Iterator[StoredPoint]:
        condition, offset = None if clause is None else edge_filter(clause), None
        while True:
            request = engine.ScrollRequest(
                offset=offset,
                limit=batch,
                filter=condition,
                with_payload=payload,
                with_vector=names or False,
            )
            records, offset = self._scroll(request)
            yield from (stored_point(record, select) for record in records)
            if offset is None:
                return


def grow(config: Config, index: IndexFolder, dim: int, origin: str = "") -> EdgeStore:
    """A store for the next generation of an index folder; see `Store.start_generation`."""
    generation = index.start(origin)
    try:
        return EdgeStore(config, dim=dim, verify=False, generation=generation)
    except BaseException as error:
        # The files of a copy that cannot be continued are no loss; those of one that can be stay.
        if not origin or isinstance(error, StoreCorruptError):
            generation.erase()
        if not origin or not isinstance(error, StoreCorruptError):
            raise
    return EdgeStore(config, dim=dim, verify=False, generation=index.start(origin))


def _same_codes(one: Quantization, other: Quantization) -> bool:
    """Whether both compress a vector to the same bits, however these are searched."""
    return (one.kind, one.bits, one.query_bits) == (other.kind, other.bits, other.query_bits)


def _open_live(path: str | Path | None, *, tidy: bool, fresh: bool) -> GenerationFolder:
    if path is None:
        raise StoreError("the embedded store needs a folder: set store.path or pass --index DIR")
    index = IndexFolder(Path(path), fresh=fresh)
    try:
        if tidy:
            index.tidy()
            tidy_publications(index.root)
        return GenerationFolder(index, index.live())
    finally:
        index.release()
