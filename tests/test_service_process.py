"""The process that people start: how it begins, how it ends, what survives it, and clients that behave badly."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines import TwoStagePipeline
from retrieval.datatypes import Document
from tests.service_app import ADMIN, KEY_CONFIG, KEYS, READ, WRITE, Process, bearer, small_config


@pytest.fixture
def index(tmp_path: Path) -> Path:
    with TwoStagePipeline.open(tmp_path / "index", small_config()) as pipeline:
        pipeline.ingest([Document("old", "copper pipe of old")])
    return tmp_path / "index"


def found(client: httpx.Client, query: str, **headers: str) -> list[str]:
    body = {"query": query, "first_stage": "bm25", "rerank": False, "top_k": 100}
    return [hit["document_id"] for hit in client.post("/v1/search", json=body, headers=headers).json()["hits"]]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.02)


def lines(first: int, count: int, words: int = 8) -> bytes:
    return b"".join(
        json.dumps({"id": f"d{number}", "text": f"common item{number} " + "filler " * words}).encode() + b"\n"
        for number in range(first, first + count)
    )


NDJSON = {"Content-Type": "application/x-ndjson"}


def test_it_says_what_serves_where_and_ends_when_told(index: Path, tmp_path: Path) -> None:
    with Process(index, errors=tmp_path / "log") as service:
        assert service.started["index"] == str(index)
        assert (service.started["documents"], service.started["keys"]) == (1, 0)
        response = service.client.get("/ready")
        assert (response.status_code, response.json()) == (200, {"status": "ready"})
        assert "server" not in response.headers
        assert found(service.client, "copper") == ["old"]
        assert service.end() == 0
        events = [line["event"] for line in service.log_lines()]
    assert "draining" in events
    assert events.count("request") == 2
    with TwoStagePipeline.open(index, small_config()) as pipeline:
        assert pipeline.manifest.state == "ready"


def test_the_console_is_readable_in_eighty_columns(index: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "pipelines", "serve", "--port", "0", "--index", str(index)]
    command += ["--set", "store.min_free_mb=0"]
    with (
        open(tmp_path / "err", "wb") as errors,
        subprocess.Popen(command, stderr=errors, stdout=subprocess.PIPE) as process,
    ):
        try:
            until(lambda: "operation" in (tmp_path / "err").read_text(encoding="utf-8"))
        finally:
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    shown = (tmp_path / "err").read_text(encoding="utf-8").split("{")[0]
    assert process.returncode == 0
    assert out == b""
    assert re.match(r"serving http://127\.0\.0\.1:\d+ ", shown)
    assert "1 documents, 1 passages" in shown
    assert "whoever reaches the port may do everything" in " ".join(shown.split())
    assert max(len(line) for line in shown.splitlines()) <= 80


def run(*options: object) -> tuple[int, str]:
    command = [sys.executable, "-W", "error", "-m", "pipelines", "serve", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, " ".join(done.stderr.split())


def test_an_index_that_another_process_serves_is_told_clearly(index: Path, tmp_path: Path) -> None:
    with Process(index, errors=tmp_path / "log") as service:
        code, message = run("--port", 0, "--index", index)
        assert code == 1
        assert f"in use by process {service.process.pid}" in message
        assert "An embedded index has one writer" in message
        assert "to search it beside that, use --read-only" in message
        assert found(service.client, "copper") == ["old"]


def test_a_port_that_is_taken_and_a_host_that_is_open_are_refused(index: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = run("--port", port, "--index", index)
        assert code == 1
        assert f"127.0.0.1 port {port}" in message
    code, message = run("--host", "0.0.0.0", "--index", index)
    assert code == 2
    assert "no keys are configured" in message
    assert "--insecure" in message


def test_running_requests_end_before_the_process_does(index: Path, tmp_path: Path) -> None:
    with Process(index, "--set", "service.timeouts.lame_duck=1.5", errors=tmp_path / "log") as service:
        # A request that is under way when the end comes: half of its body has come.
        body = json.dumps({"query": "copper"}).encode()
        head = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", service.client.base_url.port), timeout=30) as slow:
            slow.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5])
            until(lambda: "retrieval_requests_in_flight 2.0" in service.client.get("/metrics").text)
            service.signal(signal.SIGTERM)
            until(lambda: service.client.get("/ready").status_code == 503)
            # Who asks now is still answered, and told to connect anew next time.
            late = service.client.post("/v1/search", json={"query": "copper"})
            assert (late.status_code, late.headers["connection"]) == (200, "close")
            slow.sendall(body[5:])
            answer = b""
            while data := slow.recv(65_536):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"document_id":"old"' in answer
        assert service.wait() == 0


def test_a_request_that_does_not_end_in_time_is_told_so(index: Path, tmp_path: Path) -> None:
    options = ("--set", "service.timeouts.drain=1", "--set", "service.timeouts.lame_duck=0")
    with Process(index, *options, errors=tmp_path / "log") as service:
        with connect(service) as stuck:
            stuck.sendall(
                b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                b'Content-Length: 100\r\n\r\n{"query"'
            )
            until(lambda: "retrieval_requests_in_flight 2.0" in service.client.get("/metrics").text)
            service.signal(signal.SIGTERM)
            answer = received(stuck)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"closing"' in answer
        assert service.wait() == 0


def test_who_follows_or_waits_for_a_job_is_told_that_the_end_came(index: Path, tmp_path: Path) -> None:
    options = ("--set", "service.timeouts.drain=1", "--set", "service.timeouts.lame_duck=0")
    with Process(index, *options, errors=tmp_path / "log") as service:
        place = service.client.post("/v1/ingest", content=lines(0, 6000), headers=NDJSON).headers["Location"]
        events: list[str] = []
        answers: list[httpx.Response] = []

        def follow() -> None:
            with httpx.stream("GET", f"{service.url}{place}/events", timeout=60) as response:
                events.extend(line for line in response.iter_lines() if line.startswith("event"))

        def wait() -> None:
            answers.append(
                httpx.post(f"{service.url}/v1/ingest?wait=true", content=lines(9000, 1), headers=NDJSON, timeout=60)
            )

        threads = [threading.Thread(target=follow), threading.Thread(target=wait)]
        for thread in threads:
            thread.start()
        until(lambda: "event: progress" in events)
        until(lambda: "retrieval_jobs_waiting 1.0" in service.client.get("/metrics").text)
        assert service.end() == 0
        for thread in threads:
            thread.join()
    assert events[-1] == "event: closing"
    assert (answers[0].status_code, answers[0].json()["state"]) == (202, "queued")
    with Process(index, errors=tmp_path / "log") as again:
        for job in (place, answers[0].headers["Location"]):
            until(lambda job=job: again.client.get(job).json()["state"] == "done")  # type: ignore[misc]
        assert again.client.get(place).json()["report"]["rejected_count"] == 0
        assert len(found(again.client, "common")) == 100
        assert found(again.client, "item5999") == ["d5999"]
        assert found(again.client, "item9000") == ["d9000"]


def test_what_was_acknowledged_survives_kill_9(index: Path, tmp_path: Path) -> None:
    with Process(index, errors=tmp_path / "log") as service:
        done = [
            service.client.post("/v1/ingest?wait=true", content=lines(start, 20), headers=NDJSON).status_code
            for start in (0, 20, 40)
        ]
        assert done == [200, 200, 200]
        assert service.client.delete("/v1/documents/d0").json() == {"removed": 1}
        # Accepted and under way, and accepted and waiting, when the process dies.
        accepted = [
            service.client.post("/v1/ingest", content=lines(start, 1500), headers=NDJSON) for start in (1000, 5000)
        ]
        assert [response.status_code for response in accepted] == [202, 202]
        place = accepted[0].headers["Location"]
        until(lambda: service.client.get(place).json()["progress"] is not None)
        service.kill()
    with Process(index, errors=tmp_path / "log") as again:
        for number in (1, 19, 20, 59):
            assert found(again.client, f"item{number}") == [f"d{number}"]
        assert again.client.get("/v1/documents/d0").status_code == 404
        for response in accepted:
            until(lambda job=response.headers["Location"]: again.client.get(job).json()["state"] == "done", 60)  # type: ignore[misc]
        assert "retrieval_index_documents 3060.0" in again.client.get("/metrics").text
        assert found(again.client, "item2499") == ["d2499"]
        assert found(again.client, "item6499") == ["d6499"]
        assert again.end() == 0


def connect(service: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.client.base_url.port), timeout=20)


def received(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while data := connection.recv(65_536):
            answer += data
    except ConnectionResetError:
        pass
    return answer


@pytest.fixture(scope="module")
def hardy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service with short patience."""
    folder = tmp_path_factory.mktemp("hardy")
    patience = {"header": 0.5, "body": 1, "write": 1, "keep_alive": 1}
    options = [part for name, value in patience.items() for part in ("--set", f"service.timeouts.{name}={value}")]
    with Process(folder / "index", *options, errors=folder / "log") as service:
        yield service


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "])
def test_headers_that_do_not_come_end_the_connection(hardy: Process, sent: bytes) -> None:
    with connect(hardy) as connection:
        connection.sendall(sent)
        assert received(connection).startswith(b"HTTP/1.1 408 ")


def test_headers_that_drip_end_the_connection(hardy: Process) -> None:
    with connect(hardy) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        connection.settimeout(0.05)
        answer, limit = b"", time.monotonic() + 20
        while not answer and time.monotonic() < limit:
            try:
                connection.sendall(b"X: y\r\n")
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                answer = b"HTTP/1.1 408 "
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_headers_without_end_are_refused(hardy: Process) -> None:
    with connect(hardy) as connection:
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            for _ in range(1000):
                connection.sendall(b"X-Long: " + b"y" * 1000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = received(connection)
    # What was still under way may make the kernel drop the answer; the connection is over in any case.
    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
    assert hardy.client.get("/health").status_code == 200


def test_a_connection_that_is_kept_but_not_used_is_ended(hardy: Process) -> None:
    with connect(hardy) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while b"alive" not in answer:
                answer += connection.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert received(connection) == b""


def test_garbage_is_answered_with_400(hardy: Process) -> None:
    with connect(hardy) as connection:
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_does_not_read_its_answer_is_left(hardy: Process) -> None:
    text = "word " * 20_000
    documents = [{"id": f"big{number}", "text": f"{text} {number}"} for number in range(10)]
    assert hardy.client.post("/v1/ingest?wait=true", json={"documents": documents}).status_code == 200
    with socket.socket() as connection:
        # Small buffers on this side, so that the answers do not fit into them.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hardy.client.base_url.port))
        request = b"GET /v1/documents/big1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        connection.sendall(request * 60)
        until(lambda: 'status="499"' in hardy.client.get("/metrics").text or gone(connection, request))
    assert hardy.client.get("/health").status_code == 200
    until(lambda: "retrieval_requests_in_flight 1.0" in hardy.client.get("/metrics").text)


def gone(connection: socket.socket, request: bytes) -> bool:
    try:
        connection.setblocking(False)
        connection.send(request[:1])
    except BlockingIOError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_client_that_vanishes_from_its_events_leaves_no_stream_behind(hardy: Process) -> None:
    place = hardy.client.post("/v1/ingest", content=lines(0, 2000), headers=NDJSON).headers["Location"]
    head = f"GET {place}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    for _ in range(5):
        with connect(hardy) as connection:
            connection.sendall(head)
            assert b"text/event-stream" in connection.recv(65_536)
    until(lambda: "retrieval_requests_in_flight 1.0" in hardy.client.get("/metrics").text)
    until(lambda: hardy.client.get(place).json()["state"] == "done", 60)


def test_another_index_and_other_models_take_over_without_a_lost_request(index: Path, tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "shelf" / "next", small_config()) as pipeline:
        pipeline.ingest([Document("new", "copper pipe of new")])
    settings = tmp_path / "service.yaml"
    service_section = {"keys": KEY_CONFIG, "indexes": str(tmp_path / "shelf")}
    settings.write_text(json.dumps({"service": service_section}), encoding="utf-8")
    with Process(index, "--config", settings, errors=tmp_path / "log", environment=KEYS) as service:
        stop = threading.Event()
        seen: list[tuple[int, str]] = []

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=30, headers=bearer(READ)) as client:
                while not stop.is_set():
                    response = client.post("/v1/search", json={"query": "copper"})
                    hits = response.json().get("hits", [])
                    seen.append((response.status_code, hits[0]["document_id"] if hits else ""))

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()

        def reload(**body: Any) -> httpx.Response:
            count = len(seen)
            response = service.client.post("/v1/admin/reload", json=body, headers=bearer(ADMIN))
            until(lambda: len(seen) > count + 10)
            return response

        settings.write_text(json.dumps({"service": service_section, "rerank": {"depth": 0}}), encoding="utf-8")
        broken = {"service": service_section, "rerank": {"model": str(tmp_path / "no-model")}}
        working = settings.read_text(encoding="utf-8")
        settings.write_text(json.dumps(broken), encoding="utf-8")
        refused = reload()
        assert (refused.status_code, refused.json()["code"]) == (503, "model_failed")
        settings.write_text(working, encoding="utf-8")
        assert reload().status_code == 200
        unread = service.client.post("/v1/search", json={"query": "copper"}, headers=bearer(READ)).json()
        assert unread["reranked"] == 0
        first = reload(index="next")
        assert (first.status_code, first.json()["documents"]) == (200, 1)
        assert first.json()["index"] == str(tmp_path / "shelf" / "next")
        added = service.client.post(
            "/v1/ingest?wait=true", json={"documents": [{"id": "later", "text": "brass"}]}, headers=bearer(WRITE)
        )
        assert added.status_code == 200
        assert reload().json()["index"] == str(index)
        for name, status in (("missing", {404}), ("..", {422}), ("../index", {422}), ("a/b", {422})):
            assert reload(index=name).status_code in status
        stop.set()
        for asker in askers:
            asker.join()
        assert {status for status, _ in seen} == {200}
        assert {best for _, best in seen} == {"old", "new"}
        assert found(service.client, "copper", **bearer(READ)) == ["old"]
        assert service.end() == 0
    with TwoStagePipeline.open(tmp_path / "shelf" / "next", small_config()) as pipeline:
        assert pipeline.manifest.documents == 2


def test_no_key_is_written_anywhere(index: Path, tmp_path: Path) -> None:
    settings = tmp_path / "service.yaml"
    settings.write_text(json.dumps({"service": {"keys": KEY_CONFIG}}), encoding="utf-8")
    with Process(index, "--config", settings, errors=tmp_path / "log", environment=KEYS) as service:
        assert service.client.post("/v1/search", json={"query": "x"}, headers=bearer(READ)).status_code == 200
        assert service.client.post("/v1/search", json={"query": "x"}, headers=bearer(READ + "x")).status_code == 401
        assert service.end() == 0
        written = service.errors.read_text(encoding="utf-8") + json.dumps(service.started)
    assert "TEST_READ_KEY" in written
    assert all(key not in written for key in KEYS.values())
