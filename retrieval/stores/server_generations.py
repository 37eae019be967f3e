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
from retrieval.stores.server_collection import Collection
from retrieval.stores.server_connection import Connection


def live_collection(connection: Connection, name: str) -> str | None:
    """The collection behind a name, ``None`` when there is none."""
    aliases = connection.call("open", lambda c: c.get_aliases().aliases)
    for alias in aliases:
        if alias.alias_name == name:
            return alias.collection_name
    if connection.call("open", lambda c: c.collection_exists(name)):
        return name
    complete = [
        collection
        for _, collection in sorted(generations_of(connection, name).items())
        if Collection(connection, collection, collection).read_metadata("manifest") is not None
    ]
    if complete:
        _move_alias(connection, name, complete[-1])
        return complete[-1]
    return None


def peek_collection(config: ServerStoreConfig) -> tuple[str, str, Mapping[str, Any]] | None:
    """Look at an index without opening it: location, collection and manifest; ``None`` where there is none."""
    connection = Connection(config)
    try:
        collection = live_collection(connection, config.collection)
        if collection is None:
            return None
        location = f"{config.url.rstrip('/')}/collections/{config.collection}"
        manifest = Collection(connection, collection, location).read_manifest()
        return None if manifest is None else (location, collection, manifest)
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
        connection.call("switch", lambda c: c.delete_collection(name))
    _move_alias(connection, name, new)


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
    connection.call("erase", lambda c: c.delete_collection(collection))


def _move_alias(connection: Connection, name: str, collection: str) -> None:
    def move(client: QdrantClient) -> None:
        there = any(alias.alias_name == name for alias in client.get_aliases().aliases)
        steps: list[models.AliasOperations] = []
        if there:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
        steps.append(
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=name))
        )
        client.update_collection_aliases(steps)

    connection.call("switch", move)
