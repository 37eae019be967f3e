"""Is there an index? Asked without making one."""

from __future__ import annotations

from pathlib import Path

from retrieval.config import Config, ServerStoreConfig
from retrieval.datatypes import IndexManifest
from retrieval.errors import ConfigError, StoreCorruptError, StoreError
from retrieval.manifest import peek_manifest

DEFAULT_INDEX = Path("index")
"""Folder of the index when none is named."""


def require_index(config: Config, folder: Path | None) -> IndexManifest | None:
    """The manifest of an embedded index, read without opening it.

    Returns:
        The manifest; ``None`` for an index on a server.

    Raises:
        StoreError: There is no index in the folder or on the server.
        ConfigError: The store keeps nothing.
        StoreCorruptError: The manifest is missing or cannot be read.
    """
    if folder is None:
        _require_collection(config)
        return None
    manifest = peek_manifest(folder)
    if manifest is None and has_points(folder):
        raise StoreCorruptError(
            f"{folder.absolute()} has no manifest.json; run 'retrieval repair', or make the index again with "
            "'retrieval ingest --rebuild PATH'"
        )
    if manifest is None:
        option = "" if folder == DEFAULT_INDEX else f" --index {folder}"
        raise StoreError(f"there is no index in {folder.absolute()}; make one with 'retrieval ingest PATH{option}'")
    return manifest


def has_points(folder: Path) -> bool:
    """Whether a folder holds a generation that is or was live, whatever the state of its manifest."""
    engines = (folder / "generations").glob("*/engine")
    return any(not (engine.parent / "growing.json").exists() for engine in engines)


def _require_collection(config: Config) -> None:
    store = config.store
    if not isinstance(store, ServerStoreConfig):
        raise ConfigError("store.kind 'memory' keeps nothing from one command to the next; use edge or server")
    from retrieval.stores.server.generations import has_collection

    if not has_collection(store):
        raise StoreError(
            f"there is no collection {store.collection!r} on {store.url}; make it with 'retrieval ingest PATH' "
            "and the same configuration"
        )
