"""Snapshots of the index on a server: made, listed, fetched, removed, and brought back as the next generation.

They go over HTTP, also where ``store.prefer_grpc`` is set. A snapshot on the server belongs to the collection of its
generation and cannot be reached any more when that one is erased: download what is to outlive it. It holds vectors,
payloads, indexes and the manifest, not the encoder of an adapted index, which is in ``store.models``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from retrieval.config import ServerStoreConfig
from retrieval.errors import ConfigError, StoreCorruptError, StoreError
from retrieval.manifest import manifest_from_json
from retrieval.stores.server.access import api_key
from retrieval.stores.server.collection import Collection
from retrieval.stores.server.connection import ADMIN_TIMEOUT_S, Connection
from retrieval.stores.server.generations import (
    generation_name,
    generation_number,
    generations_of,
    go_live,
    live_collection,
    named_collection,
)
from retrieval.stores.server.transfer import Transfer

TransferCallback = Callable[[int, int], None]
"""Called with how many bytes are done, and of how many."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot on the server.

    Args:
        name: Its name there.
        bytes: Size of the file.
        created: When, as the server says; ``None`` where it does not.
        checksum: SHA-256 of the file in hexadecimal; ``None`` where the server has none.
        generation: Number of the generation that it was made of.
    """

    name: str
    bytes: int
    created: str | None
    checksum: str | None
    generation: int


@dataclass(frozen=True, slots=True)
class RestoredSnapshot:
    """What a restore did.

    Args:
        collection: The new collection behind the name.
        generation: Its number.
        points: How many points it holds.
        previous: Number of the generation that was live before and is kept; ``None`` where there was none to keep.
    """

    collection: str
    generation: int
    points: int
    previous: int | None


def create_snapshot(store: ServerStoreConfig) -> SnapshotInfo:
    """Make a snapshot of the live generation; searches and writes go on meanwhile.

    Args:
        store: The server and the name of the index.

    Raises:
        StoreError: There is no such index, a part of it is on other nodes only, or the server refuses.
    """
    with _opened(store) as (connection, transfer):
        live = _live(store, connection)
        cluster = transfer.ask("look at the shards", "GET", f"/collections/{quote(live, safe='')}/cluster")
        here = {shard["shard_id"] for shard in cluster["local_shards"]}
        elsewhere = sorted({shard["shard_id"] for shard in cluster["remote_shards"]} - here)
        if elsewhere:
            raise StoreError(
                f"a snapshot made at {store.url} would lack shards {', '.join(map(str, elsewhere))} of {live}, which "
                "are on other nodes; 'retrieval pull' copies the whole index"
            )
        made = transfer.ask("create snapshot", "POST", _snapshots_of(live), repeat=False, params={"wait": "true"})
        return _info(store, live, made)


def list_snapshots(store: ServerStoreConfig) -> list[SnapshotInfo]:
    """The snapshots of all generations that the server keeps, newest first.

    Args:
        store: The server and the name of the index.

    Raises:
        StoreError: The server cannot be reached or refuses.
    """
    with _opened(store) as (connection, transfer):
        return list(_found(store, connection, transfer).values())


def delete_snapshot(store: ServerStoreConfig, name: str) -> None:
    """Remove a snapshot from the server.

    Args:
        store: The server and the name of the index.
        name: As `list_snapshots` says it.

    Raises:
        StoreError: There is none of that name, or the server refuses.
    """
    with _opened(store) as (connection, transfer):
        _, path = _known(store, connection, transfer, name)
        transfer.ask("delete snapshot", "DELETE", path, params={"wait": "true"})


def download_snapshot(
    store: ServerStoreConfig, name: str, path: str | Path, on_progress: TransferCallback | None = None
) -> SnapshotInfo:
    """Fetch a snapshot into a file, which is there only when it is complete and its checksum is right.

    Args:
        store: The server and the name of the index.
        name: As `list_snapshots` says it.
        path: The file, replaced when it exists; in a folder it gets the name of the snapshot.
        on_progress: Called while it comes.

    Raises:
        StoreError: There is none of that name, the server refuses, or the file cannot be written.
        StoreCorruptError: What came is not what the server has announced.
        StoreFullError: The disk is full.
    """
    with _opened(store) as (connection, transfer):
        info, remote = _known(store, connection, transfer, name)
        target = Path(path)
        if target.is_dir():
            target = target / Path(info.name).name
        transfer.download(remote, target, size=info.bytes, checksum=info.checksum, on_progress=on_progress)
        return info


def restore_snapshot(
    store: ServerStoreConfig,
    source: str | Path,
    *,
    checksum: str | None = None,
    source_key_env: str | None = None,
    on_progress: TransferCallback | None = None,
) -> RestoredSnapshot:
    """Bring a snapshot back as the next generation, check it, and let it take the place of the live one.

    The live generation answers until the switch, and stays as the previous one.

    Args:
        store: The server and the name of the index, which need not exist there.
        source: Name of a snapshot on the server; a URL that the server can reach (``https://``, or ``file://`` in its
            own snapshot folder); or a file on this machine, which is uploaded.
        checksum: SHA-256 of the file in hexadecimal that the server checks; ``None`` takes what it knows itself.
        source_key_env: Environment variable with the API key of the server behind a URL.
        on_progress: Called while a file is uploaded.

    Raises:
        StoreError: There is no such snapshot, the server has several nodes, cannot reach the URL, or refuses.
        StoreCorruptError: The snapshot is not of a complete index.
        IndexMismatchError: It is of something else, or of a newer version.
        ConfigError: The encoder of an adapted index is missing in ``store.models``.
    """
    with _opened(store) as (connection, transfer):
        _require_one_node(store, transfer)
        live = live_collection(connection, store.collection)
        numbers = [*generations_of(connection, store.collection), *([1] if live == store.collection else [])]
        number = max(numbers, default=0) + 1
        collection = generation_name(store.collection, number)
        try:
            _recover(store, connection, transfer, collection, str(source), checksum, source_key_env, on_progress)
            return _go_live(store, connection, collection, live)
        except BaseException:
            with suppress(StoreError):
                if named_collection(connection, store.collection) != collection:
                    connection.call("erase", lambda c: c.delete_collection(collection, timeout=ADMIN_TIMEOUT_S))
            raise


@contextmanager
def _opened(store: ServerStoreConfig) -> Iterator[tuple[Connection, Transfer]]:
    connection = Connection(store)
    try:
        with Transfer(store) as transfer:
            yield connection, transfer
    finally:
        connection.close()


def _live(store: ServerStoreConfig, connection: Connection) -> str:
    live = live_collection(connection, store.collection)
    if live is None:
        raise StoreError(f"there is no collection {store.collection!r} on {store.url}")
    return live


def _snapshots_of(collection: str) -> str:
    return f"/collections/{quote(collection, safe='')}/snapshots"


def _info(store: ServerStoreConfig, collection: str, said: dict[str, Any]) -> SnapshotInfo:
    generation = generation_number(store.collection, collection)
    return SnapshotInfo(said["name"], said["size"], said.get("creation_time"), said.get("checksum"), generation)


def _found(store: ServerStoreConfig, connection: Connection, transfer: Transfer) -> dict[str, SnapshotInfo]:
    """Snapshots by their paths on the server, newest first."""
    collections = set(generations_of(connection, store.collection).values())
    if named_collection(connection, store.collection) == store.collection:
        collections.add(store.collection)
    found = {}
    for collection in collections:
        for said in transfer.ask("list snapshots", "GET", _snapshots_of(collection)):
            found[f"{_snapshots_of(collection)}/{quote(said['name'], safe='')}"] = _info(store, collection, said)
    return dict(sorted(found.items(), key=lambda item: (item[1].created or "", item[1].name), reverse=True))


def _known(store: ServerStoreConfig, connection: Connection, transfer: Transfer, name: str) -> tuple[SnapshotInfo, str]:
    found = _found(store, connection, transfer)
    for path, info in found.items():
        if info.name == name:
            return info, path
    there = ", ".join(info.name for info in found.values()) or "none"
    raise StoreError(f"there is no snapshot {name!r} of {store.collection} on {store.url}; there are: {there}")


def _require_one_node(store: ServerStoreConfig, transfer: Transfer) -> None:
    peers = transfer.ask("look at the cluster", "GET", "/cluster").get("peers") or {}
    if len(peers) > 1:
        raise StoreError(
            f"{store.url} is a cluster of {len(peers)} nodes, where a snapshot is restored node by node with Qdrant's "
            "own tools; 'retrieval push' copies an embedded index to all of them"
        )


def _recover(
    store: ServerStoreConfig,
    connection: Connection,
    transfer: Transfer,
    collection: str,
    source: str,
    checksum: str | None,
    source_key_env: str | None,
    on_progress: TransferCallback | None,
) -> None:
    """Let the server fill a new collection."""
    if "://" not in source and Path(source).is_file():
        path = f"{_snapshots_of(collection)}/upload"
        # Without a priority the empty replicas of the new collection would count, not the snapshot.
        wanted = {"wait": "true", "priority": "snapshot"} | ({"checksum": checksum} if checksum else {})
        transfer.upload(path, Path(source), params=wanted, on_progress=on_progress)
        with suppress(StoreError):  # the server may have kept the file
            kept = f"{_snapshots_of(collection)}/{quote(Path(source).name, safe='')}"
            transfer.ask("delete upload", "DELETE", kept, repeat=False)
        return
    location, key, remedy = source, None, ""
    if "://" not in source:
        info, path = _known(store, connection, transfer, source)
        location, key, checksum = transfer.url(path), api_key(store), checksum or info.checksum
        remedy = f"; the server fetches it from {location}: where it does not know itself by that URL, download the"
        remedy += " snapshot and restore the file"
    elif source_key_env is not None:
        key = os.environ.get(source_key_env)
        if not key:
            raise ConfigError(f"the environment variable {source_key_env} with the key for {source} is not set")
    body = {"location": location, "priority": "snapshot", "checksum": checksum, "api_key": key}
    try:
        transfer.ask(
            "restore snapshot",
            "PUT",
            f"{_snapshots_of(collection)}/recover",
            repeat=False,
            params={"wait": "true"},
            json={name: value for name, value in body.items() if value is not None},
        )
    except StoreError as error:
        if not remedy:
            raise
        raise type(error)(f"{error}{remedy}") from error


def _go_live(store: ServerStoreConfig, connection: Connection, collection: str, live: str | None) -> RestoredSnapshot:
    """Check a collection that was restored, and switch to it."""
    location = f"{store.url.rstrip('/')}/collections/{collection}"
    restored = Collection(connection, collection, location)
    restored.dimensions()
    values = restored.read_manifest()
    if values is None:
        raise StoreCorruptError(
            f"the snapshot has no manifest of an index; it was not made of a complete one: {location}"
        )
    manifest, points = manifest_from_json(values, location), restored.count(None)
    if manifest.state == "ready" and manifest.passages != points:
        raise StoreCorruptError(f"the snapshot has {points} points, and its manifest says {manifest.passages}")
    if manifest.adapted_from is not None:
        _copy_encoder(store, generation_name(store.collection, manifest.generation), collection)
    previous = None if live in {None, store.collection} else generation_number(store.collection, str(live))
    go_live(connection, store.collection, collection, replaces=live, manifest={**values, "previous": previous})
    return RestoredSnapshot(collection, generation_number(store.collection, collection), points, previous)


def _copy_encoder(store: ServerStoreConfig, old: str, new: str) -> None:
    if store.models is None:
        raise ConfigError("the snapshot is of an adapted index: name the folder of its encoder in store.models")
    source, target = Path(store.models) / old, Path(store.models) / new
    if not source.is_dir():
        raise ConfigError(f"the snapshot is of an adapted index, and its encoder is not in {source}; copy it there")
    shutil.copytree(source, target, dirs_exist_ok=True)
