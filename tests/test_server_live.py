"""What a server makes of our requests, beyond the contract of stores: settings, bulk loads, snapshots, switches.

Runs against a double over HTTP, and against the real server of ``QDRANT_URL`` where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from pipelines import TwoStagePipeline
from retrieval.config import Config, ServerStoreConfig, parse_config
from retrieval.datatypes import Point, SearchRequest
from retrieval.errors import StoreError
from retrieval.stores.server import ServerStore
from retrieval.stores.server.access import open_client
from retrieval.stores.server.snapshots import (
    create_snapshot,
    delete_snapshot,
    download_snapshot,
    list_snapshots,
    restore_snapshot,
)
from tests.adapt_corpus import write_model
from tests.live_server import HAS_SERVER, LIVE_KINDS, NO_SERVER, live_config
from tests.qdrant_double import QdrantDouble

DIM = 64
NewConfig = Callable[..., Config]


@pytest.fixture(params=["double", *LIVE_KINDS])
def new_config(request: pytest.FixtureRequest) -> Iterator[NewConfig]:
    """Configurations of new collections, all of them on one server."""
    with ExitStack() as stack:
        if request.param != "double":
            yield lambda **store: live_config(request.param, stack, **store)
        else:
            url = stack.enter_context(QdrantDouble()).url
            yield lambda **store: parse_config(
                {"store": {"kind": "server", "url": url, "collection": f"books{len(store)}", **store}}
            )


def settings_of(config: Config) -> ServerStoreConfig:
    assert isinstance(config.store, ServerStoreConfig)
    return config.store


def collection_info(config: Config) -> models.CollectionInfo:
    client: QdrantClient = open_client(settings_of(config))
    try:
        return client.get_collection(f"{settings_of(config).collection}-g1")
    finally:
        client.close()


def random_points(count: int, seed: int = 3) -> list[Point]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        Point(f"00000000-0000-4000-8000-{number:012d}", vector, None, {"n": number, "tenant": f"t{number % 3}"})
        for number, vector in enumerate(vectors)
    ]


@pytest.mark.skipif(not HAS_SERVER, reason=NO_SERVER)
def test_the_server_is_of_a_line_that_the_client_knows() -> None:
    from importlib.metadata import version

    with ExitStack() as stack:
        client = open_client(settings_of(live_config("server-at-url", stack)))
        stack.callback(client.close)
        server, ours = (text.split(".")[:2] for text in (client.info().version, version("qdrant-client")))
        assert server[0] == ours[0]
        assert abs(int(server[1]) - int(ours[1])) <= 1


def test_the_collection_is_as_configured(new_config: NewConfig) -> None:
    config = new_config(
        shard_number=2,
        replication_factor=1,
        write_consistency_factor=1,
        on_disk={"vectors": True, "graph": True, "payload": True, "sparse": True},
        optimizers={"indexing_threshold_kb": 12_345, "default_segment_number": 3, "deleted_threshold": 0.15},
        payload_indexes=[{"field": "n", "type": "integer"}],
        tenant_field="tenant",
    )
    ServerStore(config, dim=DIM).close()
    info = collection_info(config)
    params, optimizer = info.config.params, info.config.optimizer_config
    assert (params.shard_number, params.replication_factor, params.write_consistency_factor) == (2, 1, 1)
    assert isinstance(params.vectors, dict)
    dense = params.vectors["dense"]
    assert (dense.size, dense.distance) == (DIM, models.Distance.COSINE)
    assert dense.on_disk is True or dense.memory is models.Memory.COLD
    assert (params.sparse_vectors or {})["bm25"].modifier is models.Modifier.IDF
    assert (optimizer.indexing_threshold, optimizer.default_segment_number) == (12_345, 3)
    assert optimizer.deleted_threshold == pytest.approx(0.15)
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct) == (16, 100)
    kinds = {field: index.data_type for field, index in info.payload_schema.items()}
    keyword = models.PayloadSchemaType.KEYWORD
    fields = dict.fromkeys(("document", "document_id", "source", "tenant"), keyword)
    assert kinds == {**fields, "n": models.PayloadSchemaType.INTEGER}
    tenant = info.payload_schema["tenant"].params
    assert isinstance(tenant, models.KeywordIndexParams)
    assert tenant.is_tenant is True


def test_a_bulk_load_is_indexed_at_its_end(new_config: NewConfig) -> None:
    # 4,000 vectors of 64 float32 are 1,000 KiB, in two segments or so.
    config = new_config(bulk=True, optimizers={"indexing_threshold_kb": 100, "default_segment_number": 2})
    points = random_points(4000)
    with ServerStore(config, dim=DIM) as store:
        with store.bulk():
            store.upsert(points)
            during = collection_info(config)
            assert during.config.optimizer_config.indexing_threshold == 0
            assert during.indexed_vectors_count == 0
            assert store.count() == 4000
        after = collection_info(config)
        assert after.config.optimizer_config.indexing_threshold == 100
        assert after.status is models.CollectionStatus.GREEN
        assert (after.indexed_vectors_count or 0) > 0
        query = points[17].dense
        assert query is not None
        exact, fast = store.search([SearchRequest(query, 10, exact=True), SearchRequest(query, 10)])
        assert exact[0].id == fast[0].id == points[17].id
        assert len({hit.id for hit in exact} & {hit.id for hit in fast}) >= 8


def test_a_killed_bulk_load_is_taken_up_by_the_next_store(new_config: NewConfig) -> None:
    config = new_config(optimizers={"indexing_threshold_kb": 77})
    killed = ServerStore(config, dim=DIM)
    killed.defer_indexing()
    killed.upsert(random_points(10))
    killed.close()
    with ServerStore(config, dim=DIM) as store:
        assert collection_info(config).config.optimizer_config.indexing_threshold == 0
        with store.bulk():
            pass
        assert collection_info(config).config.optimizer_config.indexing_threshold == 77


def test_tenants_are_told_apart_by_a_filter(new_config: NewConfig) -> None:
    config = new_config(tenant_field="tenant")
    points = random_points(30)
    with ServerStore(config, dim=DIM) as store:
        store.upsert(points)
        query = points[0].dense
        assert query is not None
        where = {"must": [{"key": "tenant", "match": {"value": "t1"}}]}
        (found,) = store.search([SearchRequest(query, 30, where)])
        assert sorted(int(hit.id[-12:]) for hit in found) == list(range(1, 30, 3))
        assert store.facet("tenant", 5) == [("t0", 10), ("t1", 10), ("t2", 10)]
        assert store.delete_where(where) == 10
        assert store.count(where) == 0
        assert store.count() == 20


def test_a_snapshot_brings_back_what_was_deleted(new_config: NewConfig, tmp_path: Path) -> None:
    config = parse_config(
        {
            **new_config().model_dump(),
            "encoder": {"model": str(write_model(tmp_path / "tiny"))},
            "rerank": {"enabled": False},
        }
    )
    store = settings_of(config)
    documents = [(f"d{number}", f"word{number} and some others") for number in range(20)]
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest(documents)
        before = [(hit.document_id, hit.score) for hit in pipeline.search("word7", 5)]
        taken = create_snapshot(store)
        pipeline.delete([f"d{number}" for number in range(20)])
        assert pipeline.store.count() == 0
    assert [info.name for info in list_snapshots(store)] == [taken.name]
    assert download_snapshot(store, taken.name, tmp_path / "books.snapshot").bytes == taken.bytes
    assert (tmp_path / "books.snapshot").stat().st_size == taken.bytes
    for generation, source in ((2, tmp_path / "books.snapshot"), (3, taken.name)):
        restored = restore_snapshot(store, source)
        assert (restored.generation, restored.points) == (generation, 20)
        with TwoStagePipeline.open(config=config) as pipeline:
            again = [(hit.document_id, hit.score) for hit in pipeline.search("word7", 5)]
            assert [name for name, _ in again] == [name for name, _ in before]
            assert [score for _, score in again] == pytest.approx([score for _, score in before], abs=1e-5)
            assert pipeline.ingest(documents).unchanged == 20
    delete_snapshot(store, taken.name)
    assert taken.name not in [info.name for info in list_snapshots(store)]
    with pytest.raises(StoreError, match="there is no snapshot"):
        delete_snapshot(store, taken.name)


def test_a_damaged_snapshot_changes_nothing(new_config: NewConfig, tmp_path: Path) -> None:
    config = new_config()
    (tmp_path / "broken.snapshot").write_bytes(b"no snapshot at all")
    with ServerStore(config, dim=DIM) as store:
        store.upsert(random_points(3))
        with pytest.raises(StoreError, match="upload snapshot failed"):
            restore_snapshot(settings_of(config), tmp_path / "broken.snapshot")
        with pytest.raises(StoreError, match=r"upload snapshot failed .*hecksum"):
            restore_snapshot(settings_of(config), tmp_path / "broken.snapshot", checksum="0" * 64)
    with ServerStore(config, dim=DIM) as store:
        assert (store.generation, store.count()) == (1, 3)


def test_several_who_open_a_new_collection_at_once_get_the_same(new_config: NewConfig) -> None:
    config, points = new_config(), random_points(40)

    def write(part: int) -> int:
        with ServerStore(config, dim=DIM) as store:
            store.upsert(points[part::4])
            return store.generation

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(write, range(4))) == [1] * 4
    with ServerStore(config, dim=DIM) as store:
        assert (store.count(), store.generation) == (40, 1)


def test_a_switch_is_seen_by_the_next_who_opens(new_config: NewConfig) -> None:
    config = new_config()
    first: dict[str, Any] = {"schema_version": 1, "generation": 1, "previous": None}
    with ServerStore(config, dim=DIM) as live:
        live.upsert(random_points(3))
        live.write_manifest(first)
        grown = live.start_generation(DIM)
        grown.upsert(random_points(5))
        with ServerStore(config, dim=DIM) as other:
            assert (other.generation, other.count()) == (1, 3)
        grown.make_live({**first, "previous": 1})
        grown.close()
        assert live.count() == 3
    with ServerStore(config, dim=DIM) as other:
        assert (other.generation, other.count()) == (2, 5)
        assert other.read_manifest() == {**first, "generation": 2, "previous": 1}


@pytest.mark.skipif(
    not (HAS_SERVER and os.environ.get("QDRANT_API_KEY")), reason="the server of the tests asks for no key"
)
def test_a_wrong_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in LIVE_KINDS:
        with ExitStack() as stack:
            config = live_config(kind, stack, api_key_env="WRONG_KEY")
            stack.pop_all()  # nothing was made
            monkeypatch.setenv("WRONG_KEY", "not the key")
            with pytest.raises(StoreError, match="check the key in the environment variable WRONG_KEY"):
                ServerStore(config, dim=DIM)
