"""Settings of a collection and of the way to it: the JSON that is sent, certificates, requests that are too large."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point
from retrieval.errors import ConfigError, StoreError
from retrieval.stores.server import ServerStore
from retrieval.stores.server import connection as server_connection
from retrieval.stores.server.access import open_http
from tests.qdrant_stub import Answer, Qdrant, Sent, running

UNIT = np.array([1, 0, 0, 0], np.float32)


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    with running(Qdrant()) as script:
        yield script


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, recorded and not made."""
    made: list[float] = []
    monkeypatch.setattr(server_connection, "_sleep", made.append)
    return made


def settings(url: str, sections: dict[str, Any] | None = None, **store: Any) -> Config:
    return parse_config({"store": {"kind": "server", "url": url, "collection": "books", **store}, **(sections or {})})


def created(qdrant: Qdrant, sections: dict[str, Any] | None = None, **store: Any) -> dict[str, Any]:
    qdrant.exists = False
    ServerStore(settings(qdrant.url, sections, **store), dim=4).close()
    (sent,) = qdrant.to("PUT", "/collections/books-g1")
    assert sent.query == "timeout=600"
    body: dict[str, Any] = sent.body
    return body


def test_what_is_not_set_is_left_to_the_server(qdrant: Qdrant) -> None:
    body = created(qdrant)
    assert body["vectors"] == {"dense": {"size": 4, "distance": "Cosine"}}
    assert body["sparse_vectors"] == {"bm25": {"modifier": "idf"}}
    # 100,000 vectors of four float32.
    assert body["optimizers_config"] == {"indexing_threshold": 1562}
    assert body["hnsw_config"] == {"m": 16, "ef_construct": 100}
    assert set(body) == {"vectors", "sparse_vectors", "optimizers_config", "hnsw_config", "metadata"}


def test_every_setting_of_a_collection_is_sent(qdrant: Qdrant) -> None:
    body = created(
        qdrant,
        shard_number=6,
        replication_factor=3,
        write_consistency_factor=2,
        on_disk={"vectors": True, "graph": False, "sparse": True, "payload": False},
        optimizers={
            "indexing_threshold_kb": 50_000,
            "default_segment_number": 4,
            "max_segment_size_kb": 200_000,
            "deleted_threshold": 0.1,
            "vacuum_min_vectors": 500,
            "flush_interval_s": 10,
            "max_optimization_threads": 2,
        },
    )
    assert (body["shard_number"], body["replication_factor"], body["write_consistency_factor"]) == (6, 3, 2)
    assert body["vectors"]["dense"]["on_disk"] is True
    assert body["sparse_vectors"]["bm25"] == {"modifier": "idf", "index": {"on_disk": True}}
    assert body["hnsw_config"]["on_disk"] is False
    assert body["on_disk_payload"] is False
    assert body["optimizers_config"] == {
        "indexing_threshold": 50_000,
        "default_segment_number": 4,
        "max_segment_size": 200_000,
        "deleted_threshold": 0.1,
        "vacuum_min_vector_number": 500,
        "flush_interval_sec": 10,
        "max_optimization_threads": 2,
    }


def test_fields_of_the_configuration_and_of_tenants_get_indexes(qdrant: Qdrant) -> None:
    indexes = [{"field": "metadata.year", "type": "integer"}, {"field": "metadata.when", "type": "datetime"}]
    created(qdrant, payload_indexes=indexes, tenant_field="metadata.tenant")
    made = {sent.body["field_name"]: sent.body["field_schema"] for sent in qdrant.to("PUT", "/index")}
    assert made == {
        "document": "keyword",
        "document_id": "keyword",
        "source": "keyword",
        "metadata.year": "integer",
        "metadata.when": "datetime",
        "metadata.tenant": {"type": "keyword", "is_tenant": True},
    }


def test_an_index_that_is_missing_is_made_when_the_store_is_opened(qdrant: Qdrant) -> None:
    asked = settings(qdrant.url, payload_indexes=[{"field": "year", "type": "integer"}])
    ServerStore(asked, dim=4).close()
    assert [sent.body for sent in qdrant.to("PUT", "/index")] == [{"field_name": "year", "field_schema": "integer"}]
    qdrant.sent.clear()
    ServerStore(asked, dim=4).close()
    assert {sent.method for sent in qdrant.sent} == {"GET"}


def test_an_index_of_another_type_stays_with_a_warning(qdrant: Qdrant, caplog: pytest.LogCaptureFixture) -> None:
    qdrant.schema["tenant"] = {"data_type": "keyword", "points": 3}
    qdrant.schema["year"] = {"data_type": "keyword", "points": 3}
    asked = settings(qdrant.url, payload_indexes=[{"field": "year", "type": "integer"}], tenant_field="tenant")
    with caplog.at_level(logging.WARNING):
        ServerStore(asked, dim=4).close()
    assert not qdrant.to("PUT", "/index")
    assert "field year in books is of type keyword, not integer as configured" in caplog.text
    assert "field tenant in books is of type keyword, not keyword with is_tenant as configured" in caplog.text


def test_an_index_that_is_not_made_in_time_is_asked_for_again(qdrant: Qdrant, pauses: list[float]) -> None:
    late = b'{"result": {"operation_id": 7, "status": "wait_timeout"}, "status": "ok", "time": 1}'
    qdrant.fail("PUT /index", 200, body=late)
    ServerStore(settings(qdrant.url, tenant_field="tenant"), dim=4).close()
    assert (len(qdrant.to("PUT", "/index")), len(pauses)) == (2, 1)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (
            {"replication_factor": 2, "write_consistency_factor": 3},
            "write_consistency_factor 3 is more than replication_factor 2",
        ),
        ({"tls_key_env": "KEY"}, "name that in tls_cert_env"),
        ({"payload_indexes": [{"field": "a", "type": "integer"}] * 2}, "the field 'a' has two indexes"),
        (
            {"payload_indexes": [{"field": "a", "type": "integer"}], "tenant_field": "a"},
            "the field 'a' has two indexes",
        ),
        ({"payload_indexes": [{"field": "a", "type": "string"}]}, "Input should be 'keyword', 'integer'"),
        ({"bulk": "always"}, "store.bulk"),
        ({"optimizers": {"deleted_threshold": 2}}, "less than or equal to 1"),
        ({"on_disk": {"text": True}}, "unknown key store.on_disk.text; allowed here: graph, payload, sparse, vectors"),
    ],
)
def test_settings_that_cannot_be_are_refused(store: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings("http://localhost", **store)


def numbered(count: int) -> list[Point]:
    return [Point(f"00000000-0000-4000-8000-{number:012d}", UNIT, None, {}) for number in range(count)]


def refuse_more_than(qdrant: Qdrant, most: int) -> None:
    answer = qdrant.answer

    def limited(sent: Sent) -> Answer:
        if sent.path.endswith("/points") and len(sent.body["points"]) > most:
            qdrant.fail("PUT /points", 413, body=b"Payload Too Large")
        return answer(sent)

    qdrant.answer = limited  # type: ignore[method-assign]


def test_a_batch_that_is_too_large_is_halved(qdrant: Qdrant, pauses: list[float]) -> None:
    with ServerStore(settings(qdrant.url, batch_size=8), dim=4) as store:
        refuse_more_than(qdrant, 3)
        store.upsert(points := numbered(8))
    sent = [[point["id"][-1] for point in request.body["points"]] for request in qdrant.to("PUT", "/points")]
    assert [len(batch) for batch in sent] == [8, 4, 2, 2, 4, 2, 2]
    assert [number for batch in sent if len(batch) == 2 for number in batch] == [point.id[-1] for point in points]
    assert pauses == []


def test_a_point_that_is_too_large_is_an_error_that_says_what_to_do(qdrant: Qdrant, pauses: list[float]) -> None:
    with ServerStore(settings(qdrant.url), dim=4) as store:
        refuse_more_than(qdrant, 0)
        with pytest.raises(StoreError, match=r"413 Payload Too Large; lower store\.batch_size, or raise the limit"):
            store.upsert(numbered(3))
    assert pauses == []


def test_a_write_that_was_taken_and_not_carried_out_is_sent_again(qdrant: Qdrant, pauses: list[float]) -> None:
    late = b'{"result": {"operation_id": 7, "status": "wait_timeout"}, "status": "ok", "time": 1}'
    qdrant.fail("PUT /points", 200, body=late)
    qdrant.fail("POST /points/delete", *[200] * 4, body=late)
    with ServerStore(settings(qdrant.url), dim=4) as store:
        store.upsert(numbered(1))
        assert len(qdrant.to("PUT", "/points")) == 2
        with pytest.raises(StoreError, match=r"delete failed .* operation 7 was taken and not carried out in time"):
            store.delete([numbered(1)[0].id])
    assert (len(qdrant.to("POST", "/points/delete")), len(pauses)) == (4, 1 + 3)


def test_a_filter_that_strict_mode_refuses_names_the_setting(qdrant: Qdrant) -> None:
    refusal = b'{"status": {"error": "Bad request: Index required but not found for \\"year\\" of one of [integer]"}}'
    qdrant.fail("POST /points/count", 400, body=refusal)
    with (
        ServerStore(settings(qdrant.url), dim=4) as store,
        pytest.raises(StoreError, match=r'for "year" .*; name the field in store\.payload_indexes, or turn off strict'),
    ):
        store.count({"must": [{"key": "year", "match": {"value": 1}}]})


def test_only_the_fields_that_are_asked_for_travel(qdrant: Qdrant) -> None:
    qdrant.results["/points/scroll"] = {"points": [], "next_page_offset": None}
    qdrant.results["/points"] = []
    with ServerStore(settings(qdrant.url), dim=4) as store:
        list(store.scan(payload=["document", "hash"]))
        list(store.scan(payload=["a.b"]))  # a path for the server, a key for us
        store.get([numbered(1)[0].id], payload=["document"], vectors=["bm25"])
    plain, path = [sent.body for sent in qdrant.to("POST", "/points/scroll")]
    assert (plain["with_payload"], path["with_payload"]) == (["document", "hash"], True)
    (read,) = [sent.body for sent in qdrant.to("POST", "/points")]
    assert (read["with_payload"], read["with_vector"]) == (["document"], ["bm25"])


@dataclass(frozen=True)
class Authority:
    """A CA of a test, with its file, and what a server and a client need of it."""

    ca: trustme.CA
    folder: Path

    def file(self) -> str:
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    def server(self, *, asks_clients: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("127.0.0.1").configure_cert(context)
        if asks_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context

    def client(self) -> tuple[str, str]:
        cert = self.ca.issue_cert("retrieval.example")
        key, chain = self.folder / "client.key", self.folder / "client.pem"
        cert.private_key_pem.write_to_path(str(key))
        cert.cert_chain_pems[0].write_to_path(str(chain))
        return str(chain), str(key)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(trustme.CA(), tmp_path)


def test_a_server_with_a_certificate_of_ones_own_authority_is_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKS_CA", authority.file())
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    with running(Qdrant(), authority.server()) as qdrant:
        config = settings(qdrant.url, tls_ca_env="BOOKS_CA", api_key_env="BOOKS_KEY")
        qdrant.results["/points/count"] = {"count": 5}
        with ServerStore(config, dim=4) as store:
            assert store.count() == 5
        with open_http(config.store, read_timeout_s=5) as http:  # type: ignore[arg-type]
            assert http.get("/cluster").json()["result"] == {"status": "disabled"}
    assert {sent.headers["api-key"] for sent in qdrant.sent} == {"s3cret"}


def test_a_server_of_an_unknown_authority_gets_nothing(
    authority: Authority, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    with running(Qdrant(), authority.server()) as qdrant:
        with pytest.raises(StoreError, match=r"no trusted connection .*CERTIFICATE_VERIFY_FAILED.*store\.tls_ca_env"):
            ServerStore(settings(qdrant.url, api_key_env="BOOKS_KEY"), dim=4)
        # Another authority of the same kind does not help.
        other = Authority(trustme.CA(), authority.folder)
        monkeypatch.setenv("BOOKS_CA", other.file())
        with pytest.raises(StoreError, match="check the file that the environment variable BOOKS_CA names"):
            ServerStore(settings(qdrant.url, tls_ca_env="BOOKS_CA"), dim=4)
    assert (qdrant.sent, pauses) == ([], [])


def test_a_server_that_asks_for_a_certificate_gets_one(
    authority: Authority, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.client()
    for name, value in {"CA": authority.file(), "CERT": certificate, "KEY": key}.items():
        monkeypatch.setenv(f"BOOKS_{name}", value)
    with running(Qdrant(), authority.server(asks_clients=True)) as qdrant:
        names = {"tls_ca_env": "BOOKS_CA", "tls_cert_env": "BOOKS_CERT", "tls_key_env": "BOOKS_KEY"}
        ServerStore(settings(qdrant.url, **names), dim=4).close()
        assert qdrant.sent
        qdrant.sent.clear()
        with pytest.raises(StoreError, match="cannot reach Qdrant"):
            ServerStore(settings(qdrant.url, tls_ca_env="BOOKS_CA", retries=0), dim=4)
    assert not qdrant.sent


@pytest.mark.parametrize(
    ("url", "value", "message"),
    [
        ("https://127.0.0.1", None, "tls_ca_env names the environment variable BOOKS_CA, which is not set"),
        ("https://127.0.0.1", "missing.pem", r"names missing\.pem, which is not a file"),
        ("https://127.0.0.1", "broken.pem", r"the certificates in broken\.pem cannot be used"),
        ("http://127.0.0.1", "broken.pem", r"store\.tls_ca_env is for https, and store\.url is http://127\.0\.0\.1"),
    ],
)
def test_certificates_that_cannot_be_used_are_named(
    url: str, value: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    monkeypatch.delenv("BOOKS_CA", raising=False)
    if value is not None:
        monkeypatch.setenv("BOOKS_CA", value)
    with pytest.raises(ConfigError, match=message):
        ServerStore(settings(url, tls_ca_env="BOOKS_CA"), dim=4)
