"""The server store over gRPC: every call as a real gRPC server gets it, errors, keys and certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from qdrant_client import grpc as messages

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest, SparseVector
from retrieval.errors import StoreError
from retrieval.stores.server import ServerStore, indexing
from retrieval.stores.server import connection as server_connection
from tests.qdrant_grpc_stub import QdrantGrpc, running

ONE = "00000000-0000-4000-8000-000000000001"
UNIT = np.array([1, 0, 0, 0], np.float32)
TERMS = SparseVector(np.array([3, 5], np.uint32), np.array([1, 0.5], np.float32))
# Nothing listens there: a request that does not go over gRPC fails.
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses of both kinds, recorded and not made."""
    made: list[float] = []
    monkeypatch.setattr(server_connection, "_sleep", made.append)
    monkeypatch.setattr(indexing, "_sleep", made.append)
    return made


@pytest.fixture
def qdrant() -> Iterator[QdrantGrpc]:
    with running(QdrantGrpc()) as script:
        yield script


def settings(qdrant: QdrantGrpc, sections: dict[str, Any] | None = None, url: str = NOWHERE, **store: Any) -> Config:
    store = {"url": url, "collection": "books", "prefer_grpc": True, "grpc_port": qdrant.port, **store}
    return parse_config({"store": {"kind": "server", **store}, **(sections or {})})


@pytest.fixture
def store(qdrant: QdrantGrpc) -> Iterator[ServerStore]:
    with ServerStore(settings(qdrant, batch_size=2), dim=4) as opened:
        qdrant.sent.clear()
        yield opened


def test_a_new_collection_is_created_as_configured(qdrant: QdrantGrpc) -> None:
    qdrant.exists, qdrant.indexed = False, ()
    sections = {"hnsw": {"m": 24}, "quantization": {"kind": "turbo", "bits": 1.5}}
    config = settings(
        qdrant,
        sections,
        shard_number=4,
        replication_factor=3,
        write_consistency_factor=2,
        on_disk={"vectors": True, "graph": True, "sparse": True, "payload": True},
        optimizers={"indexing_threshold_kb": 5000, "default_segment_number": 2, "max_optimization_threads": 3},
        tenant_field="metadata.tenant",
        payload_indexes=[{"field": "metadata.year", "type": "integer"}],
    )
    ServerStore(config, dim=4).close()
    (made,) = qdrant.to("Collections/Create")
    assert made.collection_name == "books-g1"
    assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (4, 3, 2)
    dense = made.vectors_config.params_map.map["dense"]
    assert (dense.size, dense.distance, dense.on_disk) == (4, messages.Distance.Cosine, True)
    sparse = made.sparse_vectors_config.map["bm25"]
    assert (sparse.modifier, sparse.index.on_disk) == (messages.Modifier.Idf, True)
    assert (made.hnsw_config.m, made.hnsw_config.on_disk, made.on_disk_payload) == (24, True, True)
    assert (made.optimizers_config.indexing_threshold, made.optimizers_config.default_segment_number) == (5000, 2)
    assert made.optimizers_config.max_optimization_threads.value == 3
    assert made.quantization_config.turboquant.bits == messages.TurboQuantBitSize.Bits1_5
    assert json.loads(made.metadata["quantization"].string_value)["kind"] == "turbo"
    indexes = {request.field_name: request for request in qdrant.to("Points/CreateFieldIndex")}
    assert set(indexes) == {"document", "document_id", "source", "metadata.year", "metadata.tenant"}
    assert indexes["metadata.year"].field_type == messages.FieldType.FieldTypeInteger
    assert indexes["metadata.tenant"].field_index_params.keyword_index_params.is_tenant is True
    assert all(request.wait for request in indexes.values())
    (switched,) = qdrant.to("Collections/UpdateAliases")
    (action,) = switched.actions
    assert (action.create_alias.alias_name, action.create_alias.collection_name) == ("books", "books-g1")


def test_writes_go_in_batches_and_wait(qdrant: QdrantGrpc, store: ServerStore) -> None:
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(3)]
    store.upsert([Point(name, UNIT, TERMS, {"a": ["ü", None], "n": 7}) for name in ids])
    sent = qdrant.to("Points/Upsert")
    assert [(len(request.points), request.wait, request.collection_name) for request in sent] == [
        (2, True, "books"),
        (1, True, "books"),
    ]
    (point,) = sent[1].points
    vectors = point.vectors.vectors.vectors
    assert point.id.uuid == ids[2]
    assert list(vectors["dense"].dense.data) == [1, 0, 0, 0]
    assert (list(vectors["bm25"].sparse.indices), list(vectors["bm25"].sparse.values)) == ([3, 5], [1, 0.5])
    assert point.payload["a"].list_value.values[0].string_value == "ü"
    assert point.payload["n"].integer_value == 7
    store.delete(ids)
    assert store.delete_where({"must": [{"key": "document", "match": {"value": "a"}}]}) == 5
    first, second, by_filter = qdrant.to("Points/Delete")
    assert [len(request.points.points.ids) for request in (first, second)] == [2, 1]
    assert by_filter.points.filter.must[0].field.key == "document"
    assert first.wait
    assert by_filter.wait


def test_a_search_states_everything_and_is_one_request(qdrant: QdrantGrpc) -> None:
    qdrant.metadata["quantization"] = json.dumps({"kind": "binary", "bits": 1, "oversampling": 4.0})
    hit = messages.ScoredPoint(id=messages.PointId(uuid=ONE), score=0.25, version=1)
    found = [messages.BatchResult(result=[hit]), messages.BatchResult(result=[])]
    qdrant.answers["Points/QueryBatch"] = messages.QueryBatchResponse(result=found)
    where = {"must_not": [{"key": "metadata.year", "range": {"lt": 2000}}]}
    with ServerStore(settings(qdrant), dim=4) as store:
        hits = store.search([SearchRequest(UNIT, 100), SearchRequest(TERMS, 10, where)])
    assert [[(point.id, point.score) for point in points] for points in hits] == [[(ONE, 0.25)], []]
    (sent,) = qdrant.to("Points/QueryBatch")
    first, second = sent.query_points
    assert (first.using, first.params.hnsw_ef, first.params.exact) == ("dense", 256, False)
    assert (first.params.quantization.rescore, first.params.quantization.oversampling) == (True, 4.0)
    assert (second.using, list(second.query.nearest.sparse.indices)) == ("bm25", [3, 5])
    assert second.filter.must_not[0].field.range.lt == 2000


def test_points_are_read_by_id_by_page_and_counted(qdrant: QdrantGrpc, store: ServerStore) -> None:
    vectors = messages.VectorsOutput(
        vectors=messages.NamedVectorsOutput(
            vectors={
                "dense": messages.VectorOutput(dense=messages.DenseVector(data=[1, 0, 0, 0])),
                "bm25": messages.VectorOutput(sparse=messages.SparseVector(indices=[3, 5], values=[1, 0.5])),
            }
        )
    )
    payload = {"document": messages.Value(string_value="a")}
    read = messages.RetrievedPoint(id=messages.PointId(uuid=ONE), payload=payload, vectors=vectors)
    qdrant.answers["Points/Get"] = messages.GetResponse(result=[read])
    (point,) = store.get([ONE], payload=["document"], vectors=["dense", "bm25"])
    assert (point.id, dict(point.payload)) == (ONE, {"document": "a"})
    assert point.dense is not None
    assert point.dense.tolist() == [1, 0, 0, 0]
    assert point.sparse is not None
    assert (point.sparse.indices.tolist(), point.sparse.values.tolist()) == ([3, 5], [1, 0.5])
    (asked,) = qdrant.to("Points/Get")
    assert list(asked.with_payload.include.fields) == ["document"]
    assert list(asked.with_vectors.include.names) == ["dense", "bm25"]
    pages = [
        messages.ScrollResponse(result=[read], next_page_offset=messages.PointId(uuid=ONE)),
        messages.ScrollResponse(result=[read]),
    ]
    answer = qdrant.answer

    def paged(name: str, request: Any, context: grpc.ServicerContext) -> Any:
        if name == "Points/Scroll":
            qdrant.answers[name] = pages.pop(0)
        return answer(name, request, context)

    qdrant.answer = paged  # type: ignore[method-assign]
    assert [found.id for found in store.scan(batch=1)] == [ONE, ONE]
    first, second = qdrant.to("Points/Scroll")
    assert (first.HasField("offset"), second.offset.uuid, second.limit) == (False, ONE, 1)
    assert store.count({"must": [{"key": "year", "match": {"any": [1, 2]}}]}) == 5
    (counted,) = qdrant.to("Points/Count")
    assert (counted.exact, list(counted.filter.must[0].field.match.integers.integers)) == (True, [1, 2])


def test_a_facet_is_exact(qdrant: QdrantGrpc, store: ServerStore) -> None:
    hits = [
        messages.FacetHit(value=messages.FacetValue(string_value=name), count=count)
        for name, count in (("a", 2), ("b", 3))
    ]
    qdrant.answers["Points/Facet"] = messages.FacetResponse(hits=hits)
    assert store.facet("source", 5) == [("b", 3), ("a", 2)]
    (asked,) = qdrant.to("Points/Facet")
    assert (asked.key, asked.exact, asked.collection_name) == ("source", True, "books")


def test_quantization_and_manifest_are_updates(qdrant: QdrantGrpc, store: ServerStore) -> None:
    store.set_quantization(Quantization("binary", 1, query_bits=8))
    store.set_quantization(Quantization())
    store.write_manifest({"schema_version": 1, "passages": 3})
    on, off, manifest = qdrant.to("Collections/Update")
    assert on.quantization_config.binary.encoding == messages.BinaryQuantizationEncoding.OneBit
    assert off.quantization_config.HasField("disabled")
    assert json.loads(manifest.metadata["manifest"].string_value)["passages"] == 3
    assert store.read_manifest() == {"schema_version": 1, "passages": 3}
    assert store.quantization == Quantization()


def test_indexing_is_put_off_and_taken_up(qdrant: QdrantGrpc) -> None:
    with ServerStore(settings(qdrant, bulk=True), dim=4) as store, store.bulk():
        store.upsert([Point(ONE, UNIT, None, {})])
    off, on = qdrant.to("Collections/Update")
    assert (off.optimizers_config.indexing_threshold, on.optimizers_config.indexing_threshold) == (0, 20_000)
    assert off.optimizers_config.HasField("indexing_threshold")
    order = [name for name, _ in qdrant.sent if name in {"Collections/Update", "Points/Upsert"}]
    assert order == ["Collections/Update", "Points/Upsert", "Collections/Update"]


def test_a_switch_is_one_request(qdrant: QdrantGrpc) -> None:
    alias = messages.AliasDescription(alias_name="books", collection_name="books-g1")
    qdrant.answers["Collections/ListAliases"] = messages.ListAliasesResponse(aliases=[alias])
    qdrant.answers["Collections/List"] = messages.ListCollectionsResponse(
        collections=[messages.CollectionDescription(name="books-g1")]
    )
    with ServerStore(settings(qdrant), dim=4) as live:
        grown = live.start_generation(4)
        grown.make_live({"schema_version": 1, "previous": 1})
        (switched,) = qdrant.to("Collections/UpdateAliases")
        assert [action.WhichOneof("action") for action in switched.actions] == ["delete_alias", "create_alias"]
        assert switched.actions[1].create_alias.collection_name == "books-g2"
        grown.close()
        left = live.start_generation(4)
        left.abandon()
    assert [request.collection_name for request in qdrant.to("Collections/Delete")] == ["books-g2"]


@pytest.mark.parametrize(
    ("code", "attempts", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, 4, "cannot reach Qdrant"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 4, "cannot reach Qdrant"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 4, "count failed"),
        (grpc.StatusCode.INTERNAL, 4, "count failed"),
        (grpc.StatusCode.INVALID_ARGUMENT, 1, r"count failed .*in its own words"),
        (grpc.StatusCode.NOT_FOUND, 1, "count failed"),
        (grpc.StatusCode.UNAUTHENTICATED, 1, "put its API key"),
        (grpc.StatusCode.PERMISSION_DENIED, 1, "put its API key"),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else None,
)
def test_errors_are_repeated_where_that_can_help(
    qdrant: QdrantGrpc, store: ServerStore, pauses: list[float], code: grpc.StatusCode, attempts: int, message: str
) -> None:
    qdrant.fail("Points/Count", *[code] * 9)
    with pytest.raises(StoreError, match=message):
        store.count()
    assert (len(qdrant.to("Points/Count")), len(pauses)) == (attempts, attempts - 1)


def test_a_busy_server_says_how_long_to_wait(qdrant: QdrantGrpc, store: ServerStore, pauses: list[float]) -> None:
    qdrant.fail("Points/Count", grpc.StatusCode.RESOURCE_EXHAUSTED, trailing={"retry-after": "7"})
    assert store.count() == 5
    assert pauses == [7.0]


def test_the_key_comes_from_the_environment(qdrant: QdrantGrpc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    ServerStore(settings(qdrant, api_key_env="BOOKS_KEY"), dim=4).close()
    assert qdrant.keys == {"s3cret"}


def test_certificates_serve_grpc_as_well(tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("retrieval.example")
    chain = b"".join(pem.bytes() for pem in server.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), chain)], authority.cert_pem.bytes(), require_client_auth=True
    )
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    # Certificate and key in one file.
    (tmp_path / "client.pem").write_bytes(client.private_key_and_cert_chain_pem.bytes())
    monkeypatch.setenv("BOOKS_CA", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("BOOKS_CERT", str(tmp_path / "client.pem"))
    with running(QdrantGrpc(), credentials) as qdrant:
        https = {"url": "https://127.0.0.1:1", "timeout_s": 5}
        with ServerStore(settings(qdrant, tls_ca_env="BOOKS_CA", tls_cert_env="BOOKS_CERT", **https), dim=4) as store:
            assert store.count() == 5
        sent = len(qdrant.sent)
        with pytest.raises(StoreError, match=r"no trusted connection .*CERTIFICATE_VERIFY_FAILED.*store\.tls_ca_env"):
            ServerStore(settings(qdrant, **https), dim=4)
        assert (len(qdrant.sent), pauses) == (sent, [])
