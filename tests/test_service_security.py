"""Who gets in and how: every path for every key, how often, and bytes that two readers could take for two things."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from pipelines.service.config import KeyConfig, ServiceConfig
from pipelines.service.context import Principal
from pipelines.service.errors import ServiceError
from pipelines.service.rates import Rates
from retrieval.config import load_settings
from retrieval.errors import ConfigError
from tests.conftest import paper_corpus
from tests.service_app import ADMIN, KEY_CONFIG, KEYS, READ, WRITE, Process, bearer, client_of, service_config

OTHER = "an-unknown-key-0123456789abcdef"
SLOW = "slow-key-0123456789abcdef"
JOB = "0" * 32
SCOPES = {
    ("GET", "/health"): "open",
    ("GET", "/ready"): "open",
    ("GET", "/openapi.json"): "open",
    ("GET", "/metrics"): "read",
    ("GET", "/v1/models"): "read",
    ("GET", "/v1/models/{name}"): "read",
    ("GET", "/v1/index"): "read",
    ("GET", "/v1/fields"): "read",
    ("POST", "/v1/search"): "read",
    ("POST", "/v1/embeddings"): "read",
    ("POST", "/v1/rerank"): "read",
    ("POST", "/v2/rerank"): "read",
    ("GET", "/v1/documents/{id}"): "read",
    ("DELETE", "/v1/documents/{id}"): "write",
    ("POST", "/v1/documents/delete"): "write",
    ("POST", "/v1/ingest"): "write",
    ("GET", "/v1/ingest/{job}"): "write",
    ("GET", "/v1/ingest/{job}/events"): "write",
    ("POST", "/v1/admin/reload"): "admin",
}
MAY = {READ: {"read"}, WRITE: {"read", "write"}, ADMIN: {"admin"}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    slow = {"env": "TEST_SLOW_KEY", "scopes": ["read"], "rate": 0.001, "burst": 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, key in {**KEYS, "TEST_SLOW_KEY": SLOW}.items():
            patch.setenv(name, key)
        index = tmp_path_factory.mktemp("security") / "index"
        with client_of(index, paper_corpus(), service_config(keys=[*KEY_CONFIG, slow])) as client:
            yield client


def test_the_table_of_scopes_names_every_path_that_there_is(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} | {
        ("GET", "/openapi.json")
    } == SCOPES.keys()


@pytest.mark.parametrize("key", [None, OTHER, READ, WRITE, ADMIN], ids=["none", "other", "read", "write", "admin"])
@pytest.mark.parametrize(("method", "path"), SCOPES)
def test_every_path_answers_every_key_as_its_scope_says(
    client: httpx.Client, method: str, path: str, key: str | None
) -> None:
    place = path.replace("{job}", JOB).replace("{id}", "none").replace("{name}", "none")
    headers = {} if key is None else bearer(key)
    response = client.request(method, place, headers=headers, json={} if method == "POST" else None)
    scope = SCOPES[method, path]
    if scope == "open":
        assert response.status_code == 200
    elif key in {None, OTHER}:
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    elif scope not in MAY[str(key)]:
        assert (response.status_code, response.json()["code"]) == (403, "scope_missing")
    else:
        assert response.status_code not in {401, 403}
        assert response.status_code < 500


def test_a_key_with_a_rate_is_refused_when_it_asks_too_often_and_no_other_is(client: httpx.Client) -> None:
    answers = [client.get("/v1/index", headers=bearer(SLOW)) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert answers[2].json()["code"] == "rate"
    assert 900 <= int(answers[2].headers["retry-after"]) <= 1000
    assert client.get("/v1/index", headers=bearer(READ)).status_code == 200


def test_tokens_come_back_at_the_rate_and_never_more_than_fit() -> None:
    now = [100.0]
    rates = Rates([KeyConfig(env="A", rate=2.0, burst=3), KeyConfig(env="B")], clock=lambda: now[0])
    asker, other = Principal("A", frozenset({"read"})), Principal("B", frozenset({"read"}))

    def taken(tries: int) -> int:
        count = 0
        for _ in range(tries):
            try:
                rates.check(asker)
                count += 1
            except ServiceError:
                pass
        return count

    assert taken(5) == 3
    now[0] += 0.4
    assert taken(2) == 0
    now[0] += 0.1
    assert taken(2) == 1
    now[0] += 3600
    assert taken(9) == 3
    now[0] -= 50
    assert taken(1) == 0
    for _ in range(100):
        rates.check(other)


def test_a_rate_without_a_burst_takes_those_of_a_second_and_a_burst_needs_a_rate() -> None:
    assert KeyConfig(env="A", rate=7.0).most_at_once == 7
    assert KeyConfig(env="A", rate=0.1).most_at_once == 1
    with pytest.raises(ValueError, match="burst belongs to a rate"):
        KeyConfig(env="A", burst=3)


HEAD = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
SECOND = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: second\r\n\r\n"
SIZE = str(len(SECOND)).encode()
LONGER = str(len(SECOND) + 5).encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"
END = b"\r\n0\r\n\r\n"
# Each hides a second request behind a length that some reader might see otherwise.
UNCLEAR = {
    "length and chunks": HEAD + b"Content-Length: 4\r\n" + CHUNKED + END,
    "chunks and length": HEAD + CHUNKED + b"Content-Length: " + LONGER + b"\r\n" + END,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: " + SIZE + b"\r\n\r\n",
    "two lengths, the long one first": HEAD + b"Content-Length: " + SIZE + b"\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": HEAD + b"Content-Length: 0, " + SIZE + b"\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +0\r\n\r\n",
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length in base 16": HEAD + b"Content-Length: 0x0\r\n\r\n",
    "a coding that nobody knows": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
    "another coding before chunks": HEAD + b"Transfer-Encoding: identity, chunked\r\n" + END,
    "another coding after chunks": HEAD + b"Transfer-Encoding: chunked, identity\r\n" + END,
    "a blank before the colon": HEAD + b"Transfer-Encoding : chunked\r\n" + END,
    "two codings": HEAD + b"Transfer-Encoding: identity\r\n" + CHUNKED + END,
    "a tab and a length": HEAD + b"Transfer-Encoding:\tchunked\r\nContent-Length: " + LONGER + b"\r\n" + END,
    "a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 0\r\n\r\n",
    "a folded line": HEAD + b"X-A: b\r\n Content-Length: " + SIZE + b"\r\nContent-Length: 0\r\n\r\n",
    "lines that end in a bare feed": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n",
    "a bare feed in a line": HEAD + b"X-A: b\nContent-Length: " + SIZE + b"\r\nContent-Length: 0\r\n\r\n",
    "a bare return in a line": HEAD + b"X-A: b\rContent-Length: " + SIZE + b"\r\nContent-Length: 0\r\n\r\n",
    "a null": HEAD + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a line in the extension of a chunk": HEAD + CHUNKED + b"\r\n0;a\nGET /x\r\n\r\n",
    "a chunk that is too large to count": HEAD + CHUNKED + b"\r\nffffffffffffffff1\r\n{}" + END,
    "a chunk below zero": HEAD + CHUNKED + b"\r\n-1\r\n{}" + END,
    "a chunk with a prefix": HEAD + CHUNKED + b"\r\n0x2\r\n{}" + END,
    "a chunk without an end": HEAD + CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n",
    "chunks in HTTP/1.0": HEAD.replace(b"1.1", b"1.0", 1) + CHUNKED + b"Content-Length: " + LONGER + b"\r\n" + END,
    "two hosts": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
    "two keys": HEAD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\nContent-Length: 0\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("unclear")
    options = ("--set", "service.timeouts.keep_alive=1", "--set", "service.timeouts.body=1")
    with Process(folder / "index", *options, errors=folder / "log") as service:
        found = service.client.base_url.port
        assert found is not None
        yield found


@pytest.mark.parametrize("shape", UNCLEAR)
def test_bytes_that_could_be_two_requests_are_refused(port: int, shape: str) -> None:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        # A request that is refused ends the connection, at the latest when the time for the next one is over.
        connection.sendall(UNCLEAR[shape] + (b"" if b"health" in UNCLEAR[shape] else SECOND))
        while data := connection.recv(65_536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1


def test_a_length_hides_no_second_request(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + SIZE + b"\r\n\r\n"
        connection.sendall(head + SECOND)
        answer = b""
        while data := connection.recv(65_536):
            answer += data
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1
    assert b"x-request-id: second" not in answer


def test_settings_of_a_rate_are_told_by_name() -> None:
    with pytest.raises(ConfigError, match=r"keys\.0\.rate"):
        load_settings(ServiceConfig, None, ["service.keys=[{env: A, rate: 0}]"], section="service")
