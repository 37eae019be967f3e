"""Stores: where points live and are searched.

`open_store` makes the one that the configuration names; its engine is imported then and not before.
"""

from __future__ import annotations

from pathlib import Path

from retrieval.config import Config, MemoryStoreConfig, ServerStoreConfig
from retrieval.protocols import Store

__all__ = ["open_store"]


def open_store(
    config: Config, *, dim: int, path: str | Path | None = None, verify: bool = True, fresh: bool = False
) -> Store:
    """Open the store that ``config.store.kind`` names, creating it when absent.

    Args:
        config: Its ``store``, ``hnsw`` and ``quantization`` are used; an existing index keeps its own quantization.
        dim: Dimensions of dense vectors.
        path: Folder of the embedded store, before ``store.path``; not used by the others.
        verify: Whether the embedded store compares the number of points with the manifest; false to look at a
            damaged index.
        fresh: Whether to erase what is there first.

    Raises:
        StoreError: The store cannot be reached or made.
        StoreBusyError: Another process or handle has the index open.
        StoreCorruptError: Files of the index are damaged or missing.
        IndexMismatchError: The index has vectors of another size, or a newer version has written it.
    """
    if isinstance(config.store, MemoryStoreConfig):
        from retrieval.stores.memory import MemoryStore

        return MemoryStore(dim)
    if isinstance(config.store, ServerStoreConfig):
        from retrieval.stores.server import ServerStore

        return ServerStore(config, dim=dim, fresh=fresh)
    from retrieval.stores.edge import EdgeStore

    return EdgeStore(config, dim=dim, path=path, verify=verify, fresh=fresh)
