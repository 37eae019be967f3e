"""What the server store sends, and what it makes of the answers, over real HTTP to a scripted server."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client.http.exceptions import ResponseHandlingException

from retrieval.config import Config, parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest, SparseVector
from retrieval.errors import ConfigError, IndexMismatchError, StoreCorruptError, StoreError, StoreInputError
from retrieval.stores import open_store
from retrieval.stores.server import ServerStore, failures, indexing
from retrieval.stores.server import connection as server_connection
from retrieval.stores.server.connection import Connection
from tests.qdrant_double import QdrantDouble
from tests.qdrant_stub import Answer, Qdrant, Sent, running

ONE = "00000000-0000-4000-8000-000000000001"
UNIT = np.array([1, 0, 0, 0], np.float32)


@pytest.fixture
def qdrant() -> Iterator[Qdrant]:
    """A scripted server on the loopback interface with the collection ``books``."""
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
    assert {sent.query for sent in indexes} == {"wait=true&timeout=600"}


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


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(
    qdrant: Qdrant, store: ServerStore, pauses: list[float], status: int
) -> None:
    qdrant.fail("PUT /points", status, 500)
    store.upsert(numbered(1))
    assert len(qdrant.to("PUT", "/points")) == 3
    assert 0.1 <= pauses[0] <= 0.2 <= pauses[1] <= 0.4


def test_pauses_grow_up_to_a_limit() -> None:
    error = ResponseHandlingException(OSError("gone"))
    for attempt, longest in enumerate([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20]):
        made = [failures.pause(error, attempt) for _ in range(50)]
        assert longest / 2 <= min(made) < max(made) <= longest


def test_an_answer_that_was_lost_is_asked_for_again(pauses: list[float]) -> None:
    with QdrantDouble() as double, ServerStore(settings(double.url), dim=4) as store:
        # Carried out, and the connection closes before the answer.
        double.fail("PUT .*/points$", status=0, applied=True, times=2)
        store.upsert(numbered(3))
        assert (double.count("PUT .*/points$"), len(pauses)) == (3, 2)
        assert store.count() == 3
        double.fail("POST .*/points/delete$", status=0, applied=True)
        assert store.delete_where({"must": [{"has_id": [numbered(1)[0].id]}]}) == 1
        assert store.count() == 2


def test_connections_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with QdrantDouble() as double, ServerStore(settings(double.url), dim=4) as store:
        accepted = []
        accept = double._httpd.get_request
        monkeypatch.setattr(double._httpd, "get_request", lambda: accepted.append(1) or accept())
        for _ in range(20):
            store.count()
    assert len(accepted) <= 1


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
    assert (len(qdrant.to("PUT", "/collections/books-g1")), len(pauses)) == (1, 0)


def test_a_creation_that_failed_is_repeated(qdrant: Qdrant, pauses: list[float]) -> None:
    qdrant.exists = False
    qdrant.fail("PUT /", 503)
    ServerStore(settings(qdrant.url), dim=4).close()
    assert (len(qdrant.to("PUT", "/collections/books-g1")), len(pauses)) == (2, 1)


def test_a_creation_in_which_another_process_was_faster_is_taken_over(qdrant: Qdrant, pauses: list[float]) -> None:
    qdrant.exists = False
    answer = qdrant.answer

    def be_faster(sent: Sent) -> Answer:
        if (sent.method, sent.path) == ("PUT", "/collections/books-g1"):
            answer(sent)
            return 409, {}, b"{}"
        return answer(sent)

    qdrant.answer = be_faster  # type: ignore[method-assign]
    ServerStore(settings(qdrant.url), dim=4).close()
    assert (len(qdrant.to("PUT", "/collections/books-g1")), pauses) == (1, [])


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
    monkeypatch.setattr(indexing, "_sleep", waits.append)
    # One more answer: the first looks whether indexing was put off.
    qdrant.status = ["grey", "grey", "yellow", "yellow", "green"]
    store.optimize()
    assert waits == [0.5, 0.5, 0.5]
    assert [sent.body for sent in qdrant.to("PATCH", "/books")] == [{"optimizers_config": {}}]
    qdrant.status = ["yellow", "yellow", "red"]
    with pytest.raises(StoreError, match="reports an error; see the log of the server"):
        store.optimize()


def test_optimize_gives_up_when_nothing_moves(
    qdrant: Qdrant, store: ServerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def sleep(_: float) -> None:
        now[0] += 1800

    monkeypatch.setattr(indexing, "_sleep", sleep)
    monkeypatch.setattr(indexing, "_clock", lambda: now[0])
    # The change of status counts as movement; half an hour passes between two looks.
    qdrant.status = ["yellow", "yellow", "grey", "yellow"]
    with pytest.raises(StoreError, match="is yellow and nothing has moved for 3600 s"):
        store.optimize()
    assert now[0] == 5 * 1800


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
