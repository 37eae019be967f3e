"""What every answer has, whatever was asked: ids, headers, one shape of errors, limits; and what is never told."""

from __future__ import annotations

import io
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines import TwoStagePipeline
from pipelines.service import create_app
from pipelines.service.errors import ServiceError, service_error
from pipelines.service.logs import JsonFormatter
from pipelines.two_stage import Search
from retrieval.datatypes import Document
from retrieval.errors import (
    ConfigError,
    IndexMismatchError,
    ModelError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreInputError,
)
from tests.service_app import client_of, service_config, small_config
from tests.service_thread import running

SECRET_QUERY = "xylophone in the attic"
SECRET_TEXT = "the marmalade is hidden"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    limits = {"body_bytes": 2_000, "upload_bytes": 20_000}
    config = service_config(limits=limits, timeouts={"body": 1.0, "write": 1.0})
    with client_of(tmp_path_factory.mktemp("door") / "index", [Document("a", SECRET_TEXT)], config) as client:
        yield client


@pytest.mark.parametrize("given", ["abc-123", "A.b_C", "x" * 128])
def test_a_request_keeps_its_id(client: httpx.Client, given: str) -> None:
    assert client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", "a\u00e9", "<script>", "a/b"])
def test_a_request_without_a_usable_id_gets_one(client: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {b"X-Request-ID": given.encode("latin-1")}
    made = {client.get("/health", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in made)


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/nothing"), ("POST", "/v1/search")])
def test_every_answer_has_the_headers_that_protect(client: httpx.Client, method: str, path: str) -> None:
    headers = client.request(method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "x-request-id" in headers


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/search", 405, "POST"),
        ("PUT", "/v1/documents/a", 405, "DELETE, GET"),
        ("PATCH", "/v1/documents/delete", 405, "POST"),
        ("TRACE", "/v1/ingest/" + "0" * 32, 405, "GET"),
        ("DELETE", "/metrics", 405, "GET"),
        ("GET", "/v1/search/", 404, None),
        ("GET", "/playground", 404, None),
        ("POST", "/", 405, "GET, HEAD"),
        ("GET", "/docs", 404, None),
    ],
)
def test_paths_and_methods_that_do_not_exist(
    client: httpx.Client, method: str, path: str, status: int, allow: str | None
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers.get("allow")) == (status, allow)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


def raw(client: httpx.Client, *parts: bytes, wait: float = 10.0) -> bytes:
    """What the service sends when these parts come, until it closes or nothing comes for a while."""
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=wait) as connection:
        answer = b""
        for part in parts:
            try:
                connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
        try:
            while data := connection.recv(65_536):
                answer += data
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


HEAD = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(client: httpx.Client) -> None:
    head = HEAD % b"/v1/search" + b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
    answer = raw(client, head, wait=3.0)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b'"body_too_large"' in answer


@pytest.mark.parametrize("length", [b"99999999999999999999999999", b"-1", b"1e3"])
def test_a_length_that_is_none_is_no_way_in(client: httpx.Client, length: bytes) -> None:
    answer = raw(client, HEAD % b"/v1/search" + b"Content-Length: " + length + b"\r\n\r\n", wait=3.0)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))


@pytest.mark.parametrize(("path", "size"), [("/v1/search", 3_000), ("/v1/ingest", 30_000)])
def test_a_body_that_turns_out_too_long_is_refused(client: httpx.Client, path: str, size: int) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(size // 100):
            yield b'{"id": "x"}' + b" " * 89

    response = client.post(path, content=chunks(), headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert client.get("/health").status_code == 200


def test_who_sends_far_too_much_still_reads_why_it_was_refused(client: httpx.Client) -> None:
    response = client.post("/v1/search", content=b" " * 5_000_000, headers=JSON)
    assert response.status_code == 413


def test_a_body_that_comes_too_slowly_is_refused(client: httpx.Client) -> None:
    answer = raw(client, HEAD % b"/v1/search" + b'Content-Length: 20\r\n\r\n{"query"')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"body_too_slow"' in answer


def test_an_upload_that_stands_still_is_refused_and_leaves_nothing(client: httpx.Client) -> None:
    answer = raw(client, HEAD % b"/v1/ingest" + b'Content-Length: 2000\r\n\r\n{"documents": [')
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_what_nobody_foresaw_is_answered_without_a_word_about_it(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise KeyError(SECRET_TEXT)

    monkeypatch.setattr(Search, "run", fail)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("retrieval.service")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "propagate", False)
    try:
        response = client.post("/v1/search", json={"query": SECRET_QUERY})
    finally:
        logger.removeHandler(handler)
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "marmalade" not in response.text
    line = json.loads(stream.getvalue())
    assert (line["error"], line["request_id"]) == ("KeyError", response.headers["x-request-id"])
    assert line["route"] == "/v1/search"
    assert any("fail" in place for place in line["trace"])
    assert "marmalade" not in stream.getvalue()
    assert "xylophone" not in stream.getvalue()


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (StoreInputError("the filter is bad"), 422, True),
        (ConfigError("that key"), 422, True),
        (IndexMismatchError("both sides"), 409, True),
        (StoreBusyError("held by 7"), 503, True),
        (StoreError("http://qdrant.internal refused"), 503, False),
        (StoreCorruptError("/srv/index/x is damaged"), 503, False),
        (StoreFullError("/srv is full"), 507, False),
        (ModelError("no such model"), 503, True),
    ],
)
def test_errors_of_the_library_have_their_status(error: Exception, status: int, told: bool) -> None:
    found = service_error(error)
    assert found is not None
    assert found.status_code == status
    assert (str(error) in found.detail) is told
    assert ("Retry-After" in (found.headers or {})) is (status == 503)


def test_an_error_that_nobody_foresaw_has_none() -> None:
    assert service_error(RuntimeError("x")) is None
    assert service_error(ValueError("x")) is None
    own = ServiceError(418, "teapot", "short and stout")
    assert service_error(own) is own


def test_no_log_line_holds_text_of_queries_or_documents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = TwoStagePipeline.open(tmp_path / "index", small_config())
    caplog.set_level(logging.DEBUG)
    formatter = JsonFormatter()
    with running(pipeline, service_config(access_log=True)) as url, httpx.Client(base_url=url, timeout=30) as client:
        documents = [{"id": "a", "text": SECRET_TEXT, "title": SECRET_TEXT, "metadata": {"note": SECRET_TEXT}}]
        client.post("/v1/ingest?wait=true", json={"documents": documents})
        client.post("/v1/ingest?wait=true", files=[("files", ("b.csv", f"x\n{SECRET_TEXT}\n".encode()))])
        client.post(
            "/v1/ingest", content=f"--x\r\n{SECRET_TEXT}", headers={"Content-Type": "multipart/form-data; boundary=y"}
        )
        client.post("/v1/search", json={"query": SECRET_QUERY})
        client.post("/v1/search", json={"query": SECRET_QUERY, "top_k": "x", "extra": SECRET_QUERY})
        client.post("/v1/search", content=f'{{"query": "{SECRET_QUERY}", ', headers=JSON)
        client.post("/v1/search", json={"query": "x", "where": {"must": [{"key": SECRET_QUERY}]}})
        client.post("/v1/embeddings", json={"input": SECRET_TEXT, "model": "x"})
        client.post("/v1/rerank", json={"query": SECRET_QUERY, "documents": [SECRET_TEXT]})
        client.get(f"/v1/documents/{SECRET_QUERY}")
    written = "\n".join(formatter.format(record) for record in caplog.records if record.name.startswith("retrieval"))
    written += "\n".join(
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and not record.name.startswith(("httpx", "httpcore"))
    )
    for secret in ("xylophone", "marmalade"):
        assert secret not in written


def test_metrics_count_requests_by_route_and_make_none_of_what_clients_write(client: httpx.Client) -> None:
    for name in ("m1", "m2", "m3"):
        client.get(f"/v1/documents/{name}")
        client.get(f"/made-up/{name}")
        client.request("BREW" + name.upper(), "/health")
    page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    rows = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.text.splitlines() if line[0] != "#"
    }
    assert rows['retrieval_requests_total{method="GET",route="/v1/documents/{id}",status="404"}'] >= 3
    assert rows['retrieval_requests_total{method="GET",route="unmatched",status="404"}'] >= 3
    assert not [name for name in rows if "made-up" in name or "BREW" in name or "/m1" in name]
    assert rows["retrieval_index_documents"] == 1
    assert rows["retrieval_requests_in_flight"] == 1
    assert any(name.startswith("retrieval_request_seconds_bucket") for name in rows)
    assert any(name.startswith("retrieval_queue_seconds_bucket") for name in rows)


def test_ready_says_no_while_the_service_ends_or_has_no_room(tmp_path: Path) -> None:
    import asyncio

    pipeline = TwoStagePipeline.open(tmp_path / "index", small_config())
    app = create_app(pipeline, service_config(workers=1, queue=0))
    service = app.state.service

    async def ask(path: str) -> tuple[int, Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            response = await client.get(path)
            return response.status_code, response.json().get("status")

    async def run() -> None:
        assert await ask("/ready") == (200, "ready")
        service.pool._pending = 1
        assert await ask("/ready") == (503, "saturated")
        service.pool._pending = 0
        service.drain()
        assert await ask("/ready") == (503, "draining")
        assert await ask("/health") == (200, "alive")
        await service.close()

    asyncio.run(run())


def test_the_document_describes_every_path_and_every_refusal(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/v1/search", "/v1/ingest", "/v1/documents/{id}", "/v1/embeddings", "/v1/rerank"} <= set(document["paths"])
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    for path, _, operation in operations:
        if path in {"/health", "/ready"}:
            continue
        assert {"400", "401", "403", "413", "422", "429", "503", "504"} <= set(operation["responses"]), path
        refusals = [answer for status, answer in operation["responses"].items() if status >= "400"]
        assert all(list(answer["content"]) == ["application/problem+json"] for answer in refusals), path
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    names = set(document["components"]["schemas"])
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= names
    assert document["components"]["schemas"]["SearchRequest"]["properties"]["top_k"]["anyOf"][0]["maximum"] == 100
    assert document["components"]["schemas"]["SearchRequest"]["examples"]
