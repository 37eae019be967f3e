"""Stores: where points live and are searched.

`open_store` makes the one that the configuration names, `peek_index` looks at what is there; an engine is imported
then and not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrieval.config import Config, EdgeStoreConfig, MemoryStoreConfig, ServerStoreConfig
from retrieval.datatypes import IndexManifest, Quantization
from retrieval.manifest import manifest_from_json, peek_manifest
from retrieval.protocols import Store
from retrieval.stores.read_only import ReadOnlyStore

__all__ = ["StoredIndex", "grow_store", "indexed_fields", "open_store", "peek_index", "peek_order", "peek_quantization"]


@dataclass(frozen=True, slots=True)
class StoredIndex:
    """What can be known of an index before its encoder is open.

    Args:
        location: Folder, or URL and collection.
        manifest: Its manifest.
        encoder_folder: Where its adapted encoder is, if it has one; ``None`` where the configuration names no place.
        origin: What the live generation was copied from; empty where it was not (see `Store.start_generation`).
    """

    location: str
    manifest: IndexManifest
    encoder_folder: Path | None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """How far an embedded index is prepared for fast search; see `retrieval.stores.upkeep`.

    Args:
        graph: Whether there is a graph; without one every vector is compared.
        automatic: Whether the store chooses the compression by the number of passages.
        written: Passages written since the index was put in order; these are compared one by one.
    """

    graph: bool
    automatic: bool
    written: int


def peek_index(config: Config, path: str | Path | None = None) -> StoredIndex | None:
    """Look at an index without opening it.

    Args:
        config: Its ``store`` is used.
        path: Folder of the embedded store, before ``store.path``.

    Returns:
        What is there; ``None`` where there is no index, or one without a manifest.

    Raises:
        StoreError: The server cannot be reached.
        StoreCorruptError: The manifest cannot be read.
        IndexMismatchError: It was written by a later version.
    """
    store = config.store
    if isinstance(store, EdgeStoreConfig):
        from retrieval.stores.generation_folder import origin_of
        from retrieval.stores.index_layout import encoder_folder

        folder = Path(path if path is not None else store.path or ".")
        manifest = peek_manifest(folder)
        if manifest is None:
            return None
        number = manifest.generation
        return StoredIndex(str(folder), manifest, encoder_folder(folder, number), origin_of(folder, number))
    if isinstance(store, ServerStoreConfig):
        from retrieval.stores.server.generations import peek_collection

        found = peek_collection(store)
        if found is None:
            return None
        location, collection, values, origin = found
        models = None if store.models is None else Path(store.models) / collection
        return StoredIndex(location, manifest_from_json(values, location), models, origin)
    return None


def peek_quantization(folder: str | Path, generation: int) -> tuple[Quantization, bool]:
    """How the vectors of an embedded index are compressed, read without opening it.

    Args:
        folder: Folder of the index.
        generation: Number of the live generation, from its manifest.

    Returns:
        The quantization that searches use, and whether a change of it was interrupted, or is under way.

    Raises:
        StoreCorruptError: The settings of the store cannot be read.
    """
    from retrieval.stores.generation_settings import settings_of

    settings = settings_of(Path(folder), generation)
    return (Quantization(), False) if settings is None else (settings.quantization, settings.switching)


def peek_order(folder: str | Path, generation: int) -> StoredOrder:
    """What an embedded index is searched with, read without opening it.

    Args:
        folder: Folder of the index.
        generation: Number of the live generation, from its manifest.

    Raises:
        StoreCorruptError: The settings of the store cannot be read.
    """
    from retrieval.stores.generation_settings import settings_of

    settings = settings_of(Path(folder), generation)
    if settings is None:
        return StoredOrder(graph=False, automatic=False, written=0)
    return StoredOrder(settings.graph, settings.automatic, settings.written)


def open_store(
    config: Config,
    *,
    dim: int,
    path: str | Path | None = None,
    verify: bool = True,
    fresh: bool = False,
    read_only: bool = False,
) -> Store:
    """Open the store that ``config.store.kind`` names, creating it when absent.

    Args:
        config: Its ``store``, ``hnsw`` and ``quantization`` are used; an existing index keeps its own quantization.
        dim: Dimensions of dense vectors.
        path: Folder of the embedded store, before ``store.path``; not used by the others.
        verify: Whether the embedded store compares the number of points with the manifest; false to look at a
            damaged index.
        fresh: Whether to erase what is there first.
        read_only: Whether changes are refused; an embedded index is read through `retrieval.stores.reading`.

    Raises:
        StoreError: The store cannot be reached or made.
        StoreBusyError: Another process or handle has the index open.
        StoreCorruptError: Files of the index are damaged or missing.
        IndexMismatchError: The index has vectors of another size, or a newer version has written it.
    """
    if isinstance(config.store, MemoryStoreConfig):
        from retrieval.stores.memory import MemoryStore

        memory = MemoryStore(dim)
        return ReadOnlyStore(memory, memory.location) if read_only else memory
    if isinstance(config.store, ServerStoreConfig):
        from retrieval.stores.server import ServerStore

        server = ServerStore(config, dim=dim, fresh=fresh)
        return ReadOnlyStore(server, server.location) if read_only else server
    from retrieval.stores.edge import EdgeStore

    return EdgeStore(config, dim=dim, path=path, verify=verify, fresh=fresh)


def indexed_fields(store: Store) -> tuple[str, ...]:
    """Payload fields that an open embedded store answers filters and facets for from an index, sorted; else none."""
    from retrieval.stores.edge import EdgeStore

    read = store.inner if isinstance(store, ReadOnlyStore) else store
    return read.indexed_fields() if isinstance(read, EdgeStore) else ()


def grow_store(config: Config, *, dim: int, path: str | Path, origin: str = "") -> Store:
    """The next generation of the embedded index in a folder, made when absent, whatever state it is in.

    The index is locked until the store is closed; `Store.make_live` puts the new generation in its place.

    Args:
        config: Its ``store``, ``hnsw`` and ``quantization`` are used.
        dim: Dimensions of dense vectors.
        path: Folder of the index.
        origin: What it will be a copy of; see `Store.start_generation`.

    Raises:
        StoreError: The folder cannot be made.
        StoreBusyError: Another process or handle has the index open.
        StoreFullError: Too little disk is left.
    """
    from retrieval.stores.edge import grow
    from retrieval.stores.index_folder import IndexFolder

    index = IndexFolder(Path(path))
    try:
        return grow(config, index, dim, origin)
    finally:
        index.release()
