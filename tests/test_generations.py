"""Generations of an index, one contract for every store: the next grows beside the live one and replaces it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest, SparseVector
from retrieval.errors import ConfigError, IndexMismatchError, StoreBusyError, StoreCorruptError, StoreError
from retrieval.protocols import Store
from retrieval.stores import grow_store, open_store
from retrieval.stores.json_files import read_json, write_json
from retrieval.stores.memory import MemoryStore
from retrieval.stores.server import ServerStore
from tests.live_server import LIVE_KINDS, live_config
from tests.qdrant_double import QdrantDouble
from tests.qdrant_grpc_double import grpc_double
from tests.store_folders import quick_folder

KINDS = ["memory", "edge", "server-in-process", "server-over-http", "server-over-grpc", *LIVE_KINDS]


def name(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def point(number: int, *vector: float) -> Point:
    weights = SparseVector(np.array([number, 7], np.uint32), np.array([0.5, 1.25], np.float32))
    return Point(name(number), np.array(vector, np.float32), weights, {"n": number})


def manifest(store: Store, previous: int | None = None, **values: Any) -> dict[str, Any]:
    return {"schema_version": 1, "generation": store.generation, "previous": previous, **values}


def first(store: Store, *vector: float) -> str | None:
    hits = store.search([SearchRequest(np.array(vector, np.float32), 1)])[0]
    return hits[0].id if hits else None


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A live store with two points; its adapted encoders would be kept in a temporary folder."""
    with quick_folder() as folder, ExitStack() as stack:
        opened = _open(request.param, folder, stack)
        opened.upsert([point(1, 1, 0), point(2, 0, 1)])
        opened.write_manifest(manifest(opened))
        yield opened
        opened.close()


def _open(kind: str, folder: Path, stack: ExitStack) -> Store:
    if kind == "memory":
        return MemoryStore(2)
    if kind == "edge":
        return open_store(Config(), dim=2, path=folder / "index")
    if kind in LIVE_KINDS:
        return open_store(live_config(kind, stack, models=str(folder)), dim=2)
    settings: dict[str, Any] = {"kind": "server", "collection": "books", "models": str(folder)}
    if kind == "server-over-http":
        settings["url"] = stack.enter_context(QdrantDouble()).url
        return open_store(parse_config({"store": settings}), dim=2)
    if kind == "server-over-grpc":
        settings |= {"url": "http://127.0.0.1:1", "prefer_grpc": True}
        settings["grpc_port"] = stack.enter_context(grpc_double()).port
        return open_store(parse_config({"store": settings}), dim=2)
    client = QdrantClient(":memory:")
    stack.callback(client.close)
    return ServerStore(parse_config({"store": settings}), dim=2, client=client)


def test_the_next_generation_replaces_the_live_one_at_once(store: Store) -> None:
    assert store.generation == 1
    grown = store.start_generation(3)
    assert (grown.generation, grown.count(), grown.read_manifest()) == (2, 0, None)
    grown.upsert([point(1, 0, 1, 0), point(2, 1, 0, 0)])
    # Until it is live, nobody sees it.
    assert first(store, 1, 0) == name(1)
    assert store.read_manifest() == manifest(store)
    grown.make_live(manifest(grown, previous=1, text="new"))
    # The old store goes on answering until it is closed.
    assert first(store, 1, 0) == name(1)
    assert first(grown, 1, 0, 0) == name(2)
    grown.tidy()
    store.close()
    assert first(grown, 1, 0, 0) == name(2)
    assert grown.read_manifest() == manifest(grown, previous=1, text="new")
    old = grown.open_generation(1)
    assert first(old, 1, 0) == name(1)
    assert old.read_manifest() == {"schema_version": 1, "generation": 1, "previous": None}
    old.close()
    grown.write_manifest(manifest(grown, text="newer"))
    grown.tidy()
    with pytest.raises(StoreError):
        grown.open_generation(1)
    grown.close()


def test_a_generation_that_is_given_up_leaves_nothing(store: Store) -> None:
    grown = store.start_generation(2)
    grown.encoder_folder().mkdir(parents=True)
    grown.upsert([point(3, 1, 0)])
    left = grown.encoder_folder()
    grown.abandon()
    assert not left.exists()
    assert first(store, 1, 0) == name(1)
    again = store.start_generation(2)
    assert again.generation == 2
    again.abandon()
    with pytest.raises(StoreError, match="live"):
        store.abandon()


def test_sparse_vectors_are_read_back_as_they_were_written(store: Store) -> None:
    for vectors, dense, sparse in ((True, True, True), (["bm25"], False, True), (["dense"], True, False), ([], 0, 0)):
        (found,) = store.get([name(2)], vectors=vectors)
        assert (found.dense is not None, found.sparse is not None) == (bool(dense), bool(sparse))
        if found.sparse is not None:
            weights = dict(zip(found.sparse.indices.tolist(), found.sparse.values.tolist(), strict=True))
            assert weights == {2: 0.5, 7: 1.25}
        (scanned, _) = sorted(store.scan(vectors=vectors), key=lambda one: one.id, reverse=True)
        assert (scanned.dense is None, scanned.sparse is None) == (found.dense is None, found.sparse is None)
    with pytest.raises(StoreError, match="vectors is true, false or a list of 'dense' and 'bm25'"):
        store.get([name(2)], vectors="dense")
    with pytest.raises(StoreError, match="vectors is true"):
        store.scan(vectors=["sparse"])  # type: ignore[list-item]


def test_a_generation_inherits_the_quantization() -> None:
    config = parse_config({"quantization": {"kind": "turbo", "bits": 2}})
    with quick_folder() as folder:
        store = open_store(config, dim=8, path=folder / "index")
        store.set_quantization(Quantization("turbo", 4))
        grown = store.start_generation(8)
        assert grown.quantization == Quantization("turbo", 4)
        grown.close()
        store.close()


def open_edge(folder: Path, **arguments: Any) -> Store:
    return open_store(Config(), dim=2, path=folder, **arguments)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A closed embedded index whose second generation is live and whose first is kept."""
    with quick_folder() as room:
        store = open_edge(room / "index")
        store.upsert([point(1, 1, 0)])
        store.write_manifest(manifest(store))
        grown = store.start_generation(2)
        grown.upsert([point(1, 0, 1)])
        grown.make_live(manifest(grown, previous=1, passages=1, state="ready"))
        store.close()
        grown.close()
        yield room / "index"


def test_leftovers_are_erased_when_an_index_is_opened(folder: Path) -> None:
    for number in ("3", "12"):
        (folder / "generations" / number / "engine").mkdir(parents=True)
    (folder / "generations" / "2" / "growing.json").write_text("{}")  # killed right after the switch
    (folder / "generations" / "notes").mkdir()
    open_edge(folder, verify=False).close()
    assert (folder / "generations" / "12").exists(), "looking at an index changes nothing"
    open_edge(folder).close()
    assert sorted(path.name for path in (folder / "generations").iterdir()) == ["1", "2", "notes"]
    assert not (folder / "generations" / "2" / "growing.json").exists()


def test_the_lock_is_held_as_long_as_any_generation_is_open(folder: Path) -> None:
    live = open_edge(folder)
    assert (live.generation, first(live, 0, 1)) == (2, name(1))
    old = live.open_generation(1)
    assert first(old, 1, 0) == name(1)
    live.close()
    live.close()
    with pytest.raises(StoreBusyError):
        open_edge(folder)
    old.close()
    open_edge(folder).close()


def test_a_replaced_generation_takes_no_manifest(folder: Path) -> None:
    live = open_edge(folder)
    old = live.open_generation(1)
    with pytest.raises(StoreError, match=r"generation 1 .* was replaced and takes no changes"):
        old.write_manifest(manifest(old))
    for store in (old, live):
        with pytest.raises(StoreError, match="is or was live"):
            store.abandon()
        store.close()


@pytest.mark.parametrize("value", ["2", 0, True, 1.5])
def test_a_manifest_that_names_no_generation_is_refused(folder: Path, value: object) -> None:
    path = folder / "manifest.json"
    write_json(path, {**(read_json(path) or {}), "generation": value})
    with pytest.raises(StoreCorruptError, match="has generation"):
        open_edge(folder)
    assert (folder / "generations" / "1").exists()


def test_a_lost_generation_is_named(folder: Path) -> None:
    (folder / "generations" / "2").rename(folder / "generations" / "5")
    with pytest.raises(StoreCorruptError, match=r"no folder .*generations/2/engine"):
        open_edge(folder, verify=False)


def test_a_new_generation_grows_over_any_state_of_the_folder(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    grown = grow_store(Config(), dim=5, path=folder)
    assert grown.generation == 3
    grown.make_live(manifest(grown))
    grown.tidy()
    grown.close()
    assert sorted(path.name for path in (folder / "generations").iterdir()) == ["3"]
    again = open_store(Config(), dim=5, path=folder)
    assert again.generation == 3
    again.close()


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """The client's in-process mode."""
    made = QdrantClient(":memory:")
    yield made
    made.close()


def server(client: QdrantClient, dim: int = 2, **store: Any) -> ServerStore:
    settings = parse_config({"store": {"kind": "server", "collection": "books", **store}})
    return ServerStore(settings, dim=dim, client=client)


def collections(client: QdrantClient) -> list[str]:
    return sorted(collection.name for collection in client.get_collections().collections)


def aliases(client: QdrantClient) -> dict[str, str]:
    return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}


def test_the_alias_of_a_server_moves_from_one_collection_to_the_next(client: QdrantClient) -> None:
    store = server(client)
    assert (collections(client), aliases(client)) == (["books-g1"], {"books": "books-g1"})
    store.write_manifest(manifest(store))
    grown = store.start_generation(2)
    assert aliases(client) == {"books": "books-g1"}
    grown.make_live(manifest(grown, previous=1))
    grown.tidy()
    assert (collections(client), aliases(client)) == (["books-g1", "books-g2"], {"books": "books-g2"})
    third = grown.start_generation(2)
    third.make_live(manifest(third, previous=2))
    third.tidy()
    assert (collections(client), aliases(client)) == (["books-g2", "books-g3"], {"books": "books-g3"})


def test_a_collection_without_an_alias_gives_its_name_to_the_alias(client: QdrantClient) -> None:
    store = server(client, models="models")
    store.upsert([point(1, 1, 0)])
    store.write_manifest(manifest(store))
    client.delete_collection("books-g1")  # what is left is a collection that somebody made under the name itself
    plain = _plain(client)
    assert (plain.generation, aliases(client)) == (1, {})
    plain.upsert([point(1, 1, 0)])
    grown = plain.start_generation(2)
    grown.upsert([point(1, 0, 1)])
    grown.make_live(manifest(grown, previous=1))
    assert (collections(client), aliases(client)) == (["books-g2"], {"books": "books-g2"})
    # It could not be kept, so there is nothing to return to.
    assert grown.read_manifest() == manifest(grown, previous=None)
    assert first(server(client), 0, 1) == name(1)


def _plain(client: QdrantClient) -> ServerStore:
    from qdrant_client import models

    client.create_collection(
        "books",
        vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    store = server(client)
    store.write_manifest(manifest(store))
    return store


def test_a_switch_that_was_interrupted_is_completed(client: QdrantClient) -> None:
    plain = _plain(client)
    grown = plain.start_generation(2)
    grown.upsert([point(4, 0, 1)])
    grown.write_manifest(manifest(grown))
    client.create_collection("books-g7", vectors_config={})  # never got as far as its manifest
    client.delete_collection("books")  # killed before the alias was set
    again = server(client)
    assert (again.generation, aliases(client)) == (2, {"books": "books-g2"})
    assert first(again, 0, 1) == name(4)


def test_a_store_notices_that_another_process_has_switched(client: QdrantClient) -> None:
    mine, theirs = server(client), server(client)
    mine.upsert([point(1, 1, 0)])
    grown = theirs.start_generation(2)
    grown.make_live(manifest(grown, previous=1))
    # Its encoder belongs to the old vectors, and it goes on searching them; what it wrote would be lost.
    assert first(mine, 1, 0) == name(1)
    with pytest.raises(IndexMismatchError, match="was switched from books-g1 to books-g2 by another process"):
        mine.write_manifest(manifest(mine))
    with pytest.raises(IndexMismatchError, match="switched"):
        mine.start_generation(2)
    late = server(client).start_generation(2)
    other = server(client)
    newer = other.start_generation(2)
    newer.make_live(manifest(newer, previous=2))
    with pytest.raises(StoreError):
        late.make_live(manifest(late, previous=2))
    assert aliases(client) == {"books": newer._name}


def test_an_adapted_collection_needs_a_folder_for_its_encoder(client: QdrantClient, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"every machine that searches it .* store\.models"):
        server(client).encoder_folder()
    assert server(client, models=str(tmp_path)).encoder_folder() == tmp_path / "books-g1"


def test_a_copy_that_was_left_growing_is_continued(store: Store) -> None:
    assert store.origin == ""
    grown = store.start_generation(3, origin="abc")
    assert (grown.generation, grown.origin, grown.count()) == (2, "abc", 0)
    grown.upsert([point(1, 0, 1, 0)])
    grown.flush()
    if store.location != "memory":
        grown.close()
    store.tidy()
    again = store.start_generation(3, origin="abc")
    assert (again.generation, again.origin, again.count()) == (2, "abc", 1)
    assert first(again, 0, 1, 0) == name(1)
    again.make_live(manifest(again, previous=1))
    again.tidy()
    assert (again.generation, again.origin) == (2, "abc")
    # What is live is not continued, whatever it is a copy of; nor is what was live.
    third = again.start_generation(3, origin="abc")
    assert (third.generation, third.count()) == (3, 0)
    third.make_live(manifest(third))
    third.tidy()
    with pytest.raises(StoreError):
        third.open_generation(2)
    for one in (third, again):
        one.close()


@pytest.mark.parametrize("origin", ["xyz", ""])
def test_a_copy_of_something_else_is_not_continued(store: Store, origin: str) -> None:
    grown = store.start_generation(2, origin="abc")
    grown.upsert([point(1, 0, 1)])
    if store.location != "memory":
        grown.close()
    other = store.start_generation(2, origin=origin)
    assert (other.count(), other.origin) == (0, origin)
    if store.location != "memory":
        other.close()
    again = store.start_generation(2, origin="abc")
    assert again.count() == 0
    again.abandon()
    last = store.start_generation(2, origin="abc")
    assert last.count() == 0
    last.abandon()


def test_a_copy_grows_where_there_is_no_index_yet() -> None:
    with quick_folder() as room:
        grown = grow_store(Config(), dim=2, path=room, origin="abc")
        grown.upsert([point(1, 1, 0)])
        grown.close()
        # Whoever starts an index here meanwhile does not find half of the copy in it.
        live = open_edge(room)
        assert (live.generation, live.count()) == (1, 0)
        live.close()
        again = grow_store(Config(), dim=2, path=room, origin="abc")
        assert again.count() == 1
        again.make_live(manifest(again))
        again.tidy()
        again.close()
        reopened = open_edge(room)
        assert (reopened.generation, reopened.count()) == (2, 1)
        reopened.close()


def test_a_copy_that_cannot_be_opened_is_begun_again(folder: Path) -> None:
    grown = grow_store(Config(), dim=2, path=folder, origin="abc")
    grown.upsert([point(1, 1, 0)])
    grown.close()
    (config,) = folder.glob("generations/3/engine/edge_config.json")
    config.write_text("{")
    again = grow_store(Config(), dim=2, path=folder, origin="abc")
    assert (again.generation, again.count()) == (3, 0)
    again.abandon()
