"""Which requests the protocol answers by itself, and that nobody can tell."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig
from pipelines.service.config import KeyConfig
from pipelines.service.shortcut import Shortcut
from tests.service_thread import running

KEYS = {"KEY_READ": "a-key-that-reads-0123456789", "KEY_WRITE": "a-key-that-writes-0123456789"}
BODY = b'{"input": "copper pipe"}'


class Taken:
    """Remembers of each request that was offered whether the shortcut took it."""

    def __init__(self) -> None:
        self.results: list[bool] = []

    def __call__(self, shortcut: Shortcut, *arguments: Any) -> bytes | None:
        response = ORIGINAL(shortcut, *arguments)
        self.results.append(response is not None)
        return response


ORIGINAL = Shortcut.take


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("shortcut") / "index"


@pytest.fixture(scope="module")
def url(pipeline_folder: Any) -> Iterator[str]:
    keys = (KeyConfig(env="KEY_READ"), KeyConfig(env="KEY_WRITE", scopes=("write",)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        config = ServiceConfig(keys=keys, access_log=False)
        with running(TwoStagePipeline.open(pipeline_folder), config, timeout_keep_alive=1) as address:
            yield address


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    spy = Taken()
    monkeypatch.setattr(Shortcut, "take", lambda shortcut, *arguments: spy(shortcut, *arguments))
    return spy


def request(body: bytes = BODY, *more: str, version: str = "1.1", key: str = "KEY_READ") -> bytes:
    lines = [
        f"POST /v1/embeddings HTTP/{version}",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {KEYS.get(key, key)}",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def connect(url: str) -> socket.socket:
    place = urlsplit(url)
    assert place.hostname is not None
    connection = socket.create_connection((place.hostname, place.port or 0), timeout=20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response."""
    content = b""
    while b"\r\n\r\n" not in content:
        content += (piece := connection.recv(1))
        assert piece, content
    first, *lines = content.decode().strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(int(headers["content-length"]) - len(body))
    return int(first.split()[1]), headers, body


def test_a_short_request_in_one_piece_is_taken(url: str, taken: Taken) -> None:
    with connect(url) as connection:
        for _ in range(3):
            connection.sendall(request(BODY, "X-Request-Id: my-id"))
            status, headers, body = answer(connection)
            assert status == 200
            assert headers["x-request-id"] == "my-id"
            assert len(json.loads(body)["data"][0]["embedding"]) == 256
    assert taken.results == [True] * 3


def test_what_comes_in_pieces_goes_the_ordinary_way(url: str, taken: Taken) -> None:
    whole = request()
    for cut in (10, whole.index(b"\r\n\r\n") + 4, len(whole) - 1):
        with connect(url) as connection:
            connection.sendall(whole[:cut])
            time.sleep(0.1)
            connection.sendall(whole[cut:])
            assert answer(connection)[0] == 200
    # Of the first, all that counts came in the second piece.
    assert taken.results == [True]


@pytest.mark.parametrize(
    ("content", "first"),
    [
        (request(BODY, "Connection: close"), 200),
        (request(version="1.0"), 200),
        (request(BODY, "Expect: 100-continue"), 100),
    ],
)
def test_what_is_unusual_goes_the_ordinary_way(url: str, taken: Taken, content: bytes, first: int) -> None:
    with connect(url) as connection:
        connection.sendall(content)
        status, _, _ = answer(connection)
        assert status == first
        if first == 100:
            assert answer(connection)[0] == 200
    assert taken.results == []


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (request(key="a-wrong-key-0123456789"), 401),
        (request(key="KEY_WRITE"), 403),
        (request(b'{"input": ""}'), 422),
        (request(b"{"), 400),
        (request(b'{"input": "a", "model": "ada"}'), 404),
        (request(b""), 400),
        (request(json.dumps({"input": "copper pipe " * 500}).encode()), 200),
    ],
)
def test_what_is_not_in_order_or_long_is_offered_and_left(url: str, taken: Taken, content: bytes, status: int) -> None:
    with connect(url) as connection:
        connection.sendall(content)
        assert answer(connection)[0] == status
    assert taken.results == [False]


def test_answers_come_in_the_order_of_the_requests(url: str, taken: Taken) -> None:
    texts = ["one", "two " * 2000, "three", "four " * 2000, "five"]
    with connect(url) as connection:
        connection.sendall(b"".join(request(json.dumps({"input": text}).encode()) for text in texts))
        answers = [answer(connection) for _ in texts]
    assert [status for status, _, _ in answers] == [200] * 5
    assert [json.loads(body)["usage"]["prompt_tokens"] for _, _, body in answers] == [1, 2000, 1, 2000, 1]
    # What stands behind a request that is still running waits for it, as it would without the shortcut.
    assert taken.results == [True, False]


def test_garbage_behind_the_headers_is_refused(url: str, taken: Taken) -> None:
    chunked = request(b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    with connect(url) as connection:
        connection.sendall(chunked + b"zz\r\n")
        assert answer(connection)[0] == 400
    with connect(url) as connection:
        connection.sendall(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert answer(connection)[0] == 200
    assert taken.results == [True]


def test_it_counts(url: str, taken: Taken) -> None:
    def count() -> float:
        page = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {KEYS['KEY_READ']}"}).text
        name = 'retrieval_requests_total{method="POST",route="/v1/embeddings",status="200"} '
        return float(next((line for line in page.splitlines() if line.startswith(name)), "0 0").rpartition(" ")[2])

    before = count()
    with connect(url) as connection:
        connection.sendall(request())
        answer(connection)
    assert taken.results == [True]
    assert count() == before + 1


def test_a_long_body_that_comes_with_its_headers_is_not_taken_for_headers(url: str, taken: Taken) -> None:
    text = b'"%s"' % (b"copper pipe " * 5_000)
    long = b'{"input": [%s]}' % b", ".join([text] * 4)
    with connect(url) as connection:
        whole = request(long)
        connection.sendall(whole[:-10])
        time.sleep(0.2)
        connection.sendall(whole[-10:])
        assert answer(connection)[0] == 200
    assert True not in taken.results


def test_an_idle_connection_is_ended(url: str, taken: Taken) -> None:
    with connect(url) as connection:
        connection.sendall(request())
        assert answer(connection)[0] == 200
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - started > 0.5
    assert taken.results == [True]


def test_web_pages_go_the_ordinary_way(tmp_path: Any, taken: Taken) -> None:
    config = ServiceConfig(access_log=False, cors_origins=("https://app.example",))
    with running(TwoStagePipeline.open(tmp_path / "index"), config) as url:
        ours = httpx.post(f"{url}/v1/embeddings", content=BODY, headers={"Origin": "https://app.example"})
        theirs = httpx.post(f"{url}/v1/embeddings", content=BODY, headers={"Origin": "https://other.example"})
        elsewhere = httpx.post(f"{url}/v1/embeddings", content=BODY, headers={"Host": "other.example"})
        assert True not in taken.results
        nobodys = httpx.post(f"{url}/v1/embeddings", content=BODY)
    assert ours.headers["access-control-allow-origin"] == "https://app.example"
    statuses = [reply.status_code for reply in (ours, theirs, elsewhere, nobodys)]
    assert statuses == [200, 403, 421, 200]
