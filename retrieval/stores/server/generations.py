"""Which collection of a server stands behind the name in the configuration.

The name is an alias. The collections behind it are ``NAME-g1``, ``NAME-g2`` and so on, one for each generation, and
moving the alias, one request, switches from one to the other. A store keeps to the collection that it has found when
it was opened: with another one it would need another encoder.

A collection that has the name itself, made by hand or restored from a snapshot, works as well. An alias cannot have
its name while it exists, so the first switch removes it, after the next generation is complete, and then sets the
alias. Between these two requests the name is unknown to others; `live_collection` completes a switch that was
interrupted there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from retrieval.config import ServerStoreConfig
from retrieval.errors import StoreError
from retrieval.stores.server.collection import Collection
from retrieval.stores.server.connection import ADMIN_TIMEOUT_S, Connection


def live_collection(connection: Connection, name: str) -> str | None:
    """The collection behind a name, ``None`` when there is none; completes a switch that was interrupted."""
    if (found := named_collection(connection, name)) is not None:
        return found
    complete = [
        collection
        for _, collection in sorted(generations_of(connection, name).items())
        if Collection(connection, collection, collection).read_metadata("manifest") is not None
    ]
    if complete:
        _move_alias(connection, name, complete[-1])
        return complete[-1]
    return None


def named_collection(connection: Connection, name: str) -> str | None:
    """The collection that an alias stands for, or that has the name itself; changes nothing."""
    aliases = connection.call("open", lambda c: c.get_aliases().aliases)
    for alias in aliases:
        if alias.alias_name == name:
            return alias.collection_name
    return name if connection.call("open", lambda c: c.collection_exists(name)) else None


def peek_collection(config: ServerStoreConfig) -> tuple[str, str, Mapping[str, Any], str] | None:
    """Look at an index without opening it: location, collection, manifest and origin; ``None`` where there is none."""
    connection = Connection(config)
    try:
        collection = live_collection(connection, config.collection)
        if collection is None:
            return None
        location = f"{config.url.rstrip('/')}/collections/{config.collection}"
        found = Collection(connection, collection, location)
        manifest, origin = found.read_manifest(), found.read_metadata("origin") or {}
        return None if manifest is None else (location, collection, manifest, str(origin.get("name", "")))
    finally:
        connection.close()


def has_collection(config: ServerStoreConfig) -> bool:
    """Whether there is an index behind the name in the configuration."""
    connection = Connection(config)
    try:
        return live_collection(connection, config.collection) is not None
    finally:
        connection.close()


def generation_name(name: str, number: int) -> str:
    """The collection of a generation."""
    return f"{name}-g{number}"


def generation_number(name: str, collection: str) -> int:
    """The generation that a collection holds; 1 for one that we have not named."""
    found = re.fullmatch(re.escape(name) + r"-g([1-9][0-9]{0,8})", collection)
    return int(found[1]) if found else 1


def generations_of(connection: Connection, name: str) -> dict[int, str]:
    """Collections with names of generations, by number."""
    names = connection.call("open", lambda c: [found.name for found in c.get_collections().collections])
    return {
        number: found for found in names if generation_name(name, number := generation_number(name, found)) == found
    }


def growing_copies(connection: Connection, name: str, known: set[str]) -> dict[str, str]:
    """Collections that are being made from another index, with what that is, except those that are known."""
    found = {}
    for collection in generations_of(connection, name).values():
        if collection not in known:
            origin = Collection(connection, collection, collection).read_metadata("origin") or {}
            if origin.get("growing"):
                found[collection] = str(origin.get("name", ""))
    return found


def set_first(connection: Connection, name: str, collection: str) -> None:
    """Set the alias of an index that has just been made."""
    _move_alias(connection, name, collection)


def switch(connection: Connection, name: str, old: str, new: str) -> None:
    """Let a name stand for another collection.

    Raises:
        StoreError: Another process has switched it meanwhile.
    """
    live = live_collection(connection, name)
    if live not in {old, new}:
        raise StoreError(
            f"{name} was switched to {live} by another process meanwhile; open the index again, and try again"
        )
    if live == name:
        # Its name has to be free before an alias can have it.
        connection.call("switch", lambda c: c.delete_collection(name, timeout=ADMIN_TIMEOUT_S))
    _move_alias(connection, name, new)


def go_live(
    connection: Connection,
    name: str,
    collection: str,
    *,
    replaces: str | None,
    manifest: Mapping[str, Any],
    noted: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Let a name stand for a complete collection.

    A collection that is not behind an alias cannot be kept; then the manifest has no ``previous``.

    Args:
        connection: To the server.
        name: The name in the configuration.
        collection: The collection of a generation.
        replaces: The one that is live; ``None`` where there is none.
        manifest: Written to the collection, with its number.
        noted: Further metadata to write.

    Raises:
        StoreError: Another process has switched meanwhile.
    """
    keeps = replaces not in {None, name} and manifest.get("previous") is not None
    numbers = {"generation": generation_number(name, collection), "previous": manifest["previous"] if keeps else None}
    Collection(connection, collection, collection).write_metadata(
        {
            "manifest": {**manifest, **numbers},
            "previous_collection": {"name": replaces} if keeps else {},
            **(noted or {}),
        }
    )
    if replaces is None:
        set_first(connection, name, collection)
    else:
        switch(connection, name, replaces, collection)


def erase_generations(connection: Connection, name: str, *, keep: set[str], models_folder: Path | None) -> None:
    """Remove the collections of generations, and the folders of their encoders, except some."""
    for collection in generations_of(connection, name).values():
        if collection not in keep:
            _delete(connection, collection)
            if models_folder is not None:
                shutil.rmtree(models_folder / collection, ignore_errors=True)


def erase_all(connection: Connection, name: str) -> None:
    """Remove everything that stands behind a name."""
    live = live_collection(connection, name)
    erase_generations(connection, name, keep=set(), models_folder=None)
    if live is not None:
        _delete(connection, live)


def _delete(connection: Connection, collection: str) -> None:
    connection.call("erase", lambda c: c.delete_collection(collection, timeout=ADMIN_TIMEOUT_S))


def _move_alias(connection: Connection, name: str, collection: str) -> None:
    def move(client: QdrantClient) -> None:
        there = any(alias.alias_name == name for alias in client.get_aliases().aliases)
        steps: list[models.AliasOperations] = []
        if there:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
        steps.append(
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=name))
        )
        client.update_collection_aliases(steps, timeout=ADMIN_TIMEOUT_S)

    connection.call("switch", move)
