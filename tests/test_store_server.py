"""What the server store sends, and what it makes of the answers, over real HTTP to a scripted server."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
import pytest

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest, SparseVector
from retrieval.errors import ConfigError, IndexMismatchError, StoreCorruptError, StoreError, StoreInputError
from retrieval.stores import open_store, server, server_connection
from retrieval.stores.server import ServerStore
from retrieval.stores.server_connection import Connection

ONE = "00000000-0000-4000-8000-000000000001"
UNIT = np.array([1, 0, 0, 0], np.float32)


@dataclass
class Sent:
    """One request as the server saw it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any


@dataclass
class Qdrant:
    """A server that records requests, answers as Qdrant does, and first works off ``failures`` of a path."""

    url: str = ""
    exists: bool = True
    status: list[str] = field(default_factory=lambda: ["green"])
    vectors: Any = field(default_factory=lambda: {"dense": {"size": 4, "distance": "Cosine"}})
    metadata: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    delay: float = 0.0

    def fail(self, path: str, *statuses: int, headers: dict[str, str] | None = None, body: bytes | None = None) -> None:
        text = json.dumps({"status": {"error": "the server's own words"}}).encode() if body is None else body
        self.failures[path] = [(status, headers or {}, text) for status in statuses]

    def to(self, method: str, ending: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.method == method and sent.path.endswith(ending)]

    def answer(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        self.sent.append(sent)
        time.sleep(self.delay)
        ending = sent.path.removeprefix("/collections/books").removeprefix("-g1") or "/"
        if waiting := self.failures.get(f"{sent.method} {ending}"):
            return waiting.pop(0)
        if (sent.method, ending) == ("PUT", "/"):
            self.exists = True
        if (sent.method, ending) == ("PATCH", "/"):
            self.metadata.update(sent.body.get("metadata") or {})
        if ending == "/index":
            self.schema[sent.body["field_name"]] = {"data_type": sent.body["field_schema"], "points": 3}
        result = {"/exists": {"exists": self.exists}, "/": self.info() if sent.method == "GET" else True}
        update = {"operation_id": 1, "status": "completed"}
        result.update({"/points": update, "/points/delete": update, "/index": update})
        result |= {"/aliases": {"aliases": []}, "/collections/aliases": True, "/collections": {"collections": []}}
        result.update(self.results)
        return 200, {}, json.dumps({"result": result[ending], "status": "ok", "time": 0.001}).encode()

    def info(self) -> dict[str, Any]:
        optimizers = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}
        return {
            "status": self.status.pop(0) if len(self.status) > 1 else self.status[0],
            "optimizer_status": "ok",
            "segments_count": 1,
            "points_count": 0,
            "indexed_vectors_count": 0,
            "payload_schema": self.schema,
            "config": {
                "params": {"vectors": self.vectors, "sparse_vectors": {"bm25": {"modifier": "idf"}}},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
                "optimizer_config": {**optimizers, "flush_interval_sec": 5},
                "metadata": self.metadata,
            },
        }


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    """A scripted server on the loopback interface with the collection ``books``."""
    script = Qdrant()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, text = script.answer(Sent(self.command, path, query, headers, body))
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **extra}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except ConnectionError:
                pass  # the client has run out of patience, as a test wants it to

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, recorded and not made."""
    made: list[float] = []
    monkeypatch.setattr(server_connection, "_sleep", made.append)
    return made


def settings(url: str, sections: dict[str, Any] | None = None, **store: Any) -> Config:
    return parse_config({"store": {"kind": "server", "url": url, "collection": "books", **store}, **(sections or {})})


@pytest.fixture
def store(qdrant: Qdrant, pauses: list[float]) -> Iterator[ServerStore]:
    with ServerStore(settings(qdrant.url, batch_size=2), dim=4) as opened:
        qdrant.sent.clear()
        yield opened


def numbered(count: int) -> list[Point]:
    return [Point(f"00000000-0000-4000-8000-{number:012d}", UNIT, None, {}) for number in range(count)]


def test_a_new_collection_is_created_as_configured(qdrant: Qdrant) -> None:
    qdrant.exists = False
    sections = {
        "hnsw": {"m": 24, "ef_construct": 150, "threshold": 6400},
        "quantization": {"kind": "binary", "bits": 1.5},
    }
    config = settings(
        qdrant.url, sections, shard_number=4, replication_factor=2, write_consistency_factor=1, timeout_s=5
    )
    opened = open_store(config, dim=4)
    assert isinstance(opened, ServerStore)
    assert opened.quantization == Quantization("binary", 1.5)
    assert opened.location == f"{qdrant.url}/collections/books"
    opened.close()
    (created,) = qdrant.to("PUT", "/collections/books-g1")
    (switched,) = qdrant.to("POST", "/collections/aliases")
    alias = {"create_alias": {"collection_name": "books-g1", "alias_name": "books"}}
    assert switched.body == {"actions": [alias]}
    body = created.body
    assert body["vectors"] == {"dense": {"size": 4, "distance": "Cosine"}}
    assert body["sparse_vectors"] == {"bm25": {"modifier": "idf"}}
    assert (body["shard_number"], body["replication_factor"], body["write_consistency_factor"]) == (4, 2, 1)
    assert body["hnsw_config"] == {"m": 24, "ef_construct": 150}
    # 6,400 vectors of four float32 are 100 KiB.
    assert body["optimizers_config"] == {"indexing_threshold": 100}
    assert body["quantization_config"]["binary"]["encoding"] == "one_and_half_bits"
    indexes = qdrant.to("PUT", "/index")
    assert [sent.body for sent in indexes] == [
        {"field_name": name, "field_schema": "keyword"} for name in ("document", "document_id", "source")
    ]
    assert {sent.query for sent in indexes} == {"wait=true"}


def test_an_existing_collection_is_left_as_it_is(qdrant: Qdrant) -> None:
    qdrant.metadata["quantization"] = json.dumps({"kind": "turbo", "bits": 4, "oversampling": 2.5})
    with ServerStore(settings(qdrant.url), dim=4) as opened:
        assert opened.quantization == Quantization("turbo", 4, oversampling=2.5)
    assert {sent.method for sent in qdrant.sent} == {"GET"}


def test_fresh_erases_first(qdrant: Qdrant) -> None:
    qdrant.exists = False
    open_store(settings(qdrant.url), dim=4, fresh=True).close()
    qdrant.sent.clear()
    qdrant.exists = True
    open_store(settings(qdrant.url), dim=4, fresh=True).close()
    assert [sent.path for sent in qdrant.to("DELETE", "")] == ["/collections/books"]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"dense": {"size": 384, "distance": "Cosine"}}, "vectors of 384 dimensions, the encoder gives 4;"),
        ({"size": 4, "distance": "Cosine"}, "has no vectors 'dense' and 'bm25'; .* store.collection"),
        ({"dense": {"size": 4, "distance": "Euclid"}}, "compares vectors by Euclid, not Cosine"),
    ],
    ids=["dimensions", "names", "distance"],
)
def test_a_collection_of_something_else_is_refused(qdrant: Qdrant, vectors: Any, message: str) -> None:
    qdrant.vectors = vectors
    with pytest.raises(IndexMismatchError, match=message):
        ServerStore(settings(qdrant.url), dim=4)


def test_the_key_comes_from_the_environment(qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(qdrant.url, api_key_env="BOOKS_KEY")
    with pytest.raises(ConfigError, match="environment variable BOOKS_KEY, which is not set"):
        ServerStore(config, dim=4)
    assert not qdrant.sent
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    ServerStore(config, dim=4).close()
    assert {sent.headers["api-key"] for sent in qdrant.sent} == {"s3cret"}


def test_a_key_over_plain_http_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("BOOKS_KEY", "s3cret")
    for url, warned in (("http://qdrant.example", 1), ("https://qdrant.example", 0), ("http://localhost:6333", 0)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Connection(settings(url, api_key_env="BOOKS_KEY").store).close()  # type: ignore[arg-type]
        assert caplog.text.count("travels unencrypted") == warned
        assert "s3cret" not in caplog.text


@pytest.mark.parametrize("url", ["ftp://host", "nonsense://"])
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=f"store.url '{url}' cannot be used"):
        ServerStore(settings(url), dim=4)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_keys_name_the_variable(qdrant: Qdrant, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("BOOKS_KEY", "wrong")
    qdrant.fail("GET /aliases", status, status, body=b"Must provide an API key")
    with pytest.raises(
        StoreError, match=f"refused open .{status} Must provide.*environment variable BOOKS_KEY"
    ) as caught:
        ServerStore(settings(qdrant.url, api_key_env="BOOKS_KEY"), dim=4)
    assert "wrong" not in str(caught.value)
    with pytest.raises(StoreError, match=r"put its API key into .* store\.api_key_env"):
        ServerStore(settings(qdrant.url), dim=4)
    assert len(qdrant.sent) == 2


def test_a_server_in_trouble_is_asked_again(qdrant: Qdrant, store: ServerStore, pauses: list[float]) -> None:
    qdrant.fail("PUT /points", 503, 500)
    store.upsert(numbered(1))
    assert len(qdrant.to("PUT", "/points")) == 3
    assert 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4


def test_patience_ends(qdrant: Qdrant, store: ServerStore, pauses: list[float]) -> None:
    qdrant.fail("PUT /points", *[502] * 9)
    with pytest.raises(StoreError, match=r"upsert failed at .*, collection books: 502 the server's own words"):
        store.upsert(numbered(1))
    assert (len(qdrant.to("PUT", "/points")), len(pauses)) == (4, 3)


@pytest.mark.parametrize(
    ("headers", "shortest", "longest"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"Retry-After": "86400"}, 20, 20),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.1, 0.2),
        ({}, 0.1, 0.2),
    ],
    ids=["seconds", "a-day", "date", "none"],
)
def test_a_busy_server_says_how_long_to_wait(
    qdrant: Qdrant, store: ServerStore, pauses: list[float], headers: dict[str, str], shortest: float, longest: float
) -> None:
    qdrant.results["/points/count"] = {"count": 5}
    qdrant.fail("POST /points/count", 429, headers=headers)
    assert store.count() == 5
    assert shortest <= pauses[0] <= longest


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_a_mistake_is_not_repeated(qdrant: Qdrant, store: ServerStore, pauses: list[float], status: int) -> None:
    qdrant.fail("PUT /points", status)
    with pytest.raises(StoreError, match=f"collection books: {status} the server's own words"):
        store.upsert(numbered(1))
    assert (len(qdrant.sent), pauses) == (1, [])


def test_an_answer_that_is_not_from_qdrant_is_refused(qdrant: Qdrant, store: ServerStore, pauses: list[float]) -> None:
    qdrant.fail("POST /points/count", 200, body=b"<html>Welcome to nginx</html>")
    with pytest.raises(StoreError, match="count failed at"):
        store.count()
    assert pauses == []


def test_no_server_at_all_says_how_to_start_one(pauses: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    message = f"cannot reach Qdrant at http://127.0.0.1:{port} .*; is it running. docker compose up -d qdrant"
    with pytest.raises(StoreError, match=message):
        ServerStore(settings(f"http://127.0.0.1:{port}", retries=2), dim=4)
    assert len(pauses) == 2


def test_a_server_that_does_not_answer_runs_out_of_time(qdrant: Qdrant, pauses: list[float]) -> None:
    qdrant.delay = 1.5
    with pytest.raises(StoreError, match=re.escape(f"cannot reach Qdrant at {qdrant.url} (timed out)")):
        ServerStore(settings(qdrant.url, timeout_s=1, retries=0), dim=4)
    assert (len(qdrant.sent), pauses) == (1, [])


def test_a_creation_whose_answer_was_lost_is_not_repeated(qdrant: Qdrant, pauses: list[float]) -> None:
    qdrant.exists = False
    answer = qdrant.answer

    def lose_the_answer(sent: Sent) -> tuple[int, dict[str, str], bytes]:
        reply = answer(sent)
        return (503, {}, b"") if (sent.method, sent.path) == ("PUT", "/collections/books-g1") else reply

    qdrant.answer = lose_the_answer  # type: ignore[method-assign]
    ServerStore(settings(qdrant.url), dim=4).close()
    assert (len(qdrant.to("PUT", "/collections/books-g1")), len(pauses)) == (1, 1)


def test_writes_go_in_batches_and_wait(qdrant: Qdrant, store: ServerStore) -> None:
    terms = SparseVector(np.array([5, 3], np.uint32), np.array([0.5, 1], np.float32))
    store.upsert([*numbered(4), Point(name := "00000000-0000-4000-8000-0000000000ff", UNIT, terms, {"a": ["ü", None]})])
    sent = qdrant.to("PUT", "/points")
    assert [len(request.body["points"]) for request in sent] == [2, 2, 1]
    assert sent[2].body["points"] == [
        {
            "id": name,
            "vector": {"dense": [1.0, 0.0, 0.0, 0.0], "bm25": {"indices": [3, 5], "values": [1.0, 0.5]}},
            "payload": {"a": ["ü", None]},
        }
    ]
    qdrant.results["/points/count"] = {"count": 3}
    store.delete([point.id for point in numbered(3)])
    assert store.delete_where({"must": [{"key": "document", "match": {"value": "a"}}]}) == 3
    deletions = qdrant.to("POST", "/points/delete")
    assert [len(request.body["points"]) for request in deletions[:2]] == [2, 1]
    assert deletions[2].body == {"filter": {"must": [{"key": "document", "match": {"value": "a"}}]}}
    assert {request.query for request in [*sent, *deletions]} == {"wait=true"}


def test_bad_input_is_not_sent(qdrant: Qdrant, store: ServerStore) -> None:
    bad = Point(ONE, UNIT * np.float32(np.nan), None, {})
    with pytest.raises(StoreInputError, match="point 4"):
        store.upsert([*numbered(4), bad])
    with pytest.raises(StoreInputError, match="would delete every point"):
        store.delete_where({"must": []})
    assert not qdrant.sent


def test_a_search_states_everything_and_is_one_request(qdrant: Qdrant) -> None:
    qdrant.metadata["quantization"] = json.dumps({"kind": "turbo", "bits": 2, "oversampling": 4.0})
    hits = [{"id": ONE, "version": 1, "score": 0.25}]
    qdrant.results["/points/query/batch"] = [{"points": hits}, {"points": []}, {"points": hits}]
    terms = SparseVector(np.array([7], np.uint32), np.ones(1, np.float32))
    where = {"must_not": [{"key": "metadata.when", "range": {"lt": "2024-05-01"}}]}
    with ServerStore(settings(qdrant.url, {"hnsw": {"ef": 200}}), dim=4) as store:
        qdrant.sent.clear()
        found = store.search(
            [SearchRequest(UNIT, 100), SearchRequest(terms, 10, where), SearchRequest(UNIT, 500, exact=True)]
        )
    assert [[(hit.id, hit.score) for hit in points] for points in found] == [[(ONE, 0.25)], [], [(ONE, 0.25)]]
    (sent,) = qdrant.sent
    first, second, third = sent.body["searches"]
    assert (first["using"], first["with_payload"], first["query"]["nearest"]) == ("dense", False, [1.0, 0.0, 0.0, 0.0])
    rescored = {"ignore": False, "rescore": True, "oversampling": 4.0}
    assert first["params"] == {"hnsw_ef": 200, "exact": False, "quantization": rescored}
    assert (second["using"], second["query"]["nearest"]) == ("bm25", {"indices": [7], "values": [1.0]})
    assert second["filter"]["must_not"][0]["range"]["lt"].startswith("2024-05-01T00:00:00")
    assert (third["params"]["exact"], third["params"]["quantization"]["ignore"]) == (True, True)
    assert third["params"]["hnsw_ef"] == 500


def test_scans_follow_the_pages(qdrant: Qdrant, store: ServerStore) -> None:
    pages = [
        {"points": [{"id": point.id, "payload": {"n": 1, "m": 2}} for point in numbered(2)], "next_page_offset": ONE},
        {"points": [{"id": ONE, "payload": {"n": 3}}], "next_page_offset": None},
    ]
    answer = qdrant.answer

    def paged(sent: Sent) -> tuple[int, dict[str, str], bytes]:
        if sent.path.endswith("/scroll"):
            qdrant.results["/points/scroll"] = pages.pop(0)
        return answer(sent)

    qdrant.answer = paged  # type: ignore[method-assign]
    assert [dict(point.payload) for point in store.scan(payload=["n"], batch=2)] == [{"n": 1}, {"n": 1}, {"n": 3}]
    first, second = qdrant.to("POST", "/points/scroll")
    assert ("offset" in first.body, second.body["offset"], second.body["limit"]) == (False, ONE, 2)


def test_quantization_is_updated_and_switched_off(qdrant: Qdrant, store: ServerStore) -> None:
    store.set_quantization(Quantization("turbo", 1.5))
    store.set_quantization(Quantization())
    changes = [sent.body for sent in qdrant.to("PATCH", "/books") if "quantization_config" in sent.body]
    assert changes[0]["quantization_config"]["turbo"]["bits"] == "bits1_5"
    assert changes[1]["quantization_config"] == "Disabled"
    assert json.loads(qdrant.metadata["quantization"])["kind"] == "none"


def test_the_manifest_lives_in_the_metadata(qdrant: Qdrant, store: ServerStore) -> None:
    assert store.read_manifest() is None
    store.write_manifest({"schema_version": 1, "passages": 3})
    assert json.loads(qdrant.metadata["manifest"]) == {"schema_version": 1, "passages": 3}
    assert store.read_manifest() == {"schema_version": 1, "passages": 3}


@pytest.mark.parametrize("text", ["{", "[]", 7], ids=str)
def test_damaged_metadata_are_named(qdrant: Qdrant, text: Any) -> None:
    qdrant.metadata["manifest"] = text
    with pytest.raises(StoreCorruptError, match=r"manifest in the metadata of .* is damaged"):
        ServerStore(settings(qdrant.url), dim=4)


def test_a_manifest_of_the_future_is_refused(qdrant: Qdrant) -> None:
    qdrant.metadata["manifest"] = '{"schema_version": 9}'
    with pytest.raises(IndexMismatchError, match="schema version 9"):
        ServerStore(settings(qdrant.url), dim=4)


def test_optimize_waits_until_the_collection_is_green(
    qdrant: Qdrant, store: ServerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(server, "_sleep", waits.append)
    qdrant.status = ["grey", "yellow", "yellow", "green"]
    store.optimize()
    assert len(waits) == 3
    assert [sent.body for sent in qdrant.to("PATCH", "/books")] == [{"optimizers_config": {}}]
    qdrant.status = ["yellow", "red"]
    with pytest.raises(StoreError, match="reports an error; see the log of the server"):
        store.optimize()
    monkeypatch.setattr(server, "OPTIMIZE_WAIT_S", -1.0)
    qdrant.status = ["yellow"]
    with pytest.raises(StoreError, match="is still yellow after"):
        store.optimize()


def test_the_first_facet_of_a_field_makes_an_index_of_its_kind(qdrant: Qdrant, store: ServerStore) -> None:
    records = [{"id": point.id, "payload": {"year": 1990 + number}} for number, point in enumerate(numbered(3))]
    qdrant.results["/points/scroll"] = {"points": records, "next_page_offset": None}
    qdrant.results["/points/count"] = {"count": 3}
    qdrant.results["/facet"] = {"hits": [{"value": 1991, "count": 1}, {"value": 1990, "count": 2}]}
    assert store.facet("year", 5) == [(1990, 2), (1991, 1)]
    assert [sent.body for sent in qdrant.to("PUT", "/index")] == [{"field_name": "year", "field_schema": "integer"}]
    # Four points have the field and the index knows three: then all are read.
    qdrant.results["/points/count"] = {"count": 4}
    assert store.facet("year", 5) == [(1990, 1), (1991, 1), (1992, 1)]


class GrpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "in its own words"


@pytest.mark.parametrize(
    ("code", "attempts", "message"),
    [
        (grpc.StatusCode.UNAVAILABLE, 4, "cannot reach Qdrant"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 4, "count failed"),
        (grpc.StatusCode.INVALID_ARGUMENT, 1, "count failed .*in its own words"),
        (grpc.StatusCode.UNAUTHENTICATED, 1, "put its API key"),
    ],
    ids=["unavailable", "exhausted", "invalid", "unauthenticated"],
)
def test_grpc_errors_are_treated_alike(
    store: ServerStore, pauses: list[float], code: grpc.StatusCode, attempts: int, message: str
) -> None:
    calls = []

    def fail(client: object) -> None:
        calls.append(client)
        raise GrpcError(code)

    with pytest.raises(StoreError, match=message):
        store._connection.call("count", fail)
    assert (len(calls), len(pauses)) == (attempts, attempts - 1)


def test_a_client_that_was_handed_over_stays_open() -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    for expected in (0, 1):
        with ServerStore(settings("http://localhost:6333"), dim=4, client=client) as opened:
            assert opened.count() == expected
            opened.upsert([Point(ONE, UNIT, None, {})])
    assert [alias.collection_name for alias in client.get_aliases().aliases] == ["books-g1"]
    client.close()
