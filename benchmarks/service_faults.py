"""Clients that misbehave: what each is answered, and whether others notice.

    python -m benchmarks.service_faults --collection scifact --json benchmarks/service_faults.json

Slow, silent, huge, unauthorized and too many requests against `retrieval serve` with two keys and timeouts of a few
seconds. Meanwhile another client asks for embeddings all the time; its slowest answer is reported beside each fault.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.service_process import Process, about, serve
from pipelines import TwoStagePipeline

READ, ALL = "a-key-that-only-reads-0123456789", "a-key-that-may-do-it-all-0123456789"
HEADER_S, BODY_S, WRITE_S = 3.0, 3.0, 4.0
MEBIBYTE = 2**20
SETTINGS = f"""
service:
  keys: [{{env: KEY_READ, scopes: [read]}}, {{env: KEY_ALL, scopes: [read, write, admin]}}]
  access_log: false
  timeouts: {{header: {HEADER_S}, body: {BODY_S}, write: {WRITE_S}}}
"""
EMBED = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + READ.encode() + b"\r\n"
Fault = Callable[["Subject"], dict[str, Any]]


class Subject:
    """The service, and how to reach it."""

    def __init__(self, server: Process, queries: list[str]) -> None:
        self.server = server
        self.queries = queries
        self.client = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {ALL}"}, timeout=120)

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect(("127.0.0.1", self.server.port))
        connection.settimeout(60)
        return connection


def main() -> None:
    """Run every fault; exit status 1 when one is not answered as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--only", nargs="+", choices=[fault.__name__ for fault in FAULTS])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = (arguments.collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line)["text"] for line in lines]
    results: dict[str, Any] = {"about": about()}
    with tempfile.TemporaryDirectory() as folder:
        index, settings = Path(folder) / "index", Path(folder) / "faults.yaml"
        settings.write_text(SETTINGS, encoding="utf-8")
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(arguments.collection)
        for fault in FAULTS:
            if arguments.only and fault.__name__ not in arguments.only:
                continue
            with serve(index, "--config", str(settings), KEY_READ=READ, KEY_ALL=ALL) as server:
                results[fault.__name__] = watched(fault, Subject(server, queries), index)
            print(fault.__name__, results[fault.__name__], flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if all(one.get("as_it_should_be", True) for one in results.values()) else 1)


def watched(fault: Fault, subject: Subject, index: Path) -> dict[str, Any]:
    """What a fault is answered, while somebody else asks for embeddings; and what it leaves behind."""
    subject.client.post("/v1/search", json={"query": "warm up"})
    subject.client.post("/v1/embeddings", json={"input": "warm up"})
    before, expected = subject.server.memory_mb(), fault.__name__ != "sigterm_under_load"
    with asking(subject.server.url) as probe:
        answer = fault(subject)
    alive = expected and subject.client.get("/health").status_code == 200
    left = [path.name for path in (index / "uploads").glob("*") if not path.name.startswith(".") and path.is_dir()]
    subject.client.close()
    return {
        "what": " ".join((fault.__doc__ or "").split()),
        **answer,
        "memory_growth_mb": round(subject.server.memory_mb() - before, 1) if expected else None,
        "others_answered": len(probe.milliseconds),
        "others_refused": probe.refused if expected else None,
        "others_slowest_ms": round(max(probe.milliseconds, default=0.0), 1),
        "uploads_left": len(left),
        "as_it_should_be": answer["as_it_should_be"] and (alive or not expected) and not (expected and probe.refused),
    }


class Probe:
    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.refused = 0


@contextmanager
def asking(url: str) -> Iterator[Probe]:
    """Ask for an embedding twenty times a second until the end of the block."""
    probe, ended = Probe(), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {READ}"}, timeout=60) as client:
            while not ended.wait(0.05):
                started = time.perf_counter()
                try:
                    answer = client.post("/v1/embeddings", json={"input": "is anybody there"})
                except httpx.TransportError:
                    probe.refused += 1
                    continue
                probe.milliseconds.append((time.perf_counter() - started) * 1000)
                probe.refused += answer.status_code != 200

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield probe
    finally:
        ended.set()
        thread.join()


def slow_headers(subject: Subject) -> dict[str, Any]:
    """200 clients send the headers of a request a byte a second."""
    return trickle(subject, 200, b"", EMBED, HEADER_S, b" 408 ")


def half_open(subject: Subject) -> dict[str, Any]:
    """500 clients connect and say nothing."""
    return trickle(subject, 500, b"", b"", HEADER_S, b" 408 ")


def slow_bodies(subject: Subject) -> dict[str, Any]:
    """200 clients send the body of a request a byte a second."""
    return trickle(subject, 200, EMBED + b"Content-Length: 1000\r\n\r\n", b'{"input":"' + b"a" * 99, BODY_S, b" 408 ")


def trickle(
    subject: Subject, clients: int, at_once: bytes, slowly: bytes, seconds: float, wanted: bytes
) -> dict[str, Any]:
    """Send something at once and the rest byte by byte, until all connections are ended; the answers and the times."""
    started = time.monotonic()
    open_ones = {subject.connect(): b"" for _ in range(clients)}
    for connection in open_ones:
        connection.sendall(at_once)
        connection.setblocking(False)
    ended: list[tuple[float, bytes]] = []
    position = 0
    while open_ones and time.monotonic() - started < 10 * seconds:
        for connection in list(open_ones):
            try:
                if position < len(slowly):
                    connection.send(slowly[position : position + 1])
                got = connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                got = b""
            open_ones[connection] += got
            if not got:
                ended.append((time.monotonic() - started, open_ones.pop(connection)))
                connection.close()
        position += 1
        time.sleep(1.0)
    answered = sum(wanted in answer.split(b"\r\n", 1)[0] + b" " for _, answer in ended)
    for connection in open_ones:
        connection.close()
    return {
        "clients": clients,
        "answered_408": answered,
        "still_open": len(open_ones),
        "last_ended_s": round(max((moment for moment, _ in ended), default=0.0), 1),
        "as_it_should_be": answered == clients,
    }


def slow_readers(subject: Subject) -> dict[str, Any]:
    """20 clients ask for 8 MB of vectors each and read nothing."""
    body = json.dumps({"input": ["a b c d e f"] * 2000}).encode()
    request = EMBED + b"Content-Length: %d\r\n\r\n" % len(body) + body
    connections = [subject.connect(receive_bytes=4096) for _ in range(20)]
    for connection in connections:
        connection.sendall(request)
    time.sleep(WRITE_S / 2)  # all are accepted, none is given up yet
    wanted, until = subject.server.sockets() - len(connections), time.monotonic() + 10 * WRITE_S
    while (still := subject.server.sockets() - wanted) > 0 and time.monotonic() < until:
        time.sleep(0.5)
    for connection in connections:
        connection.close()
    return {"clients": len(connections), "still_open": still, "as_it_should_be": still <= 0}


def a_gigabyte(subject: Subject) -> dict[str, Any]:
    """Bodies of 1 GB: announced by their length, and in chunks, to a small and to the large path."""
    most_mb, ended = [subject.server.memory_mb()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            most_mb.append(subject.server.memory_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = {
        "announced": gigabyte(subject, "/v1/embeddings", announced=True),
        "in chunks": gigabyte(subject, "/v1/embeddings", announced=False),
        "ingest, announced": gigabyte(subject, "/v1/ingest", announced=True),
        "ingest, in chunks": gigabyte(subject, "/v1/ingest", announced=False),
    }
    ended.set()
    watcher.join()
    peak = max(most_mb) - most_mb[0]
    fine = all(" 413 " in str(one["answer"]) for one in answers.values()) and peak < 64
    return {"answers": answers, "peak_memory_growth_mb": round(peak, 1), "as_it_should_be": fine}


def gigabyte(subject: Subject, path: str, *, announced: bool) -> dict[str, Any]:
    """Send 1 GB until there is an answer or the end; the status line and how much was taken."""
    length = b"Content-Length: %d" % 2**30 if announced else b"Transfer-Encoding: chunked"
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n" % path.encode()
    piece = b'{"id": "a", "text": "' + b"x" * (MEBIBYTE - 24) + b'"}\n'
    sent = 0
    with subject.connect() as connection:
        connection.sendall(head + b"Authorization: Bearer " + ALL.encode() + b"\r\n" + length + b"\r\n\r\n")
        connection.settimeout(20)
        try:
            while sent < 2**30:
                connection.sendall(piece if announced else b"%x\r\n" % len(piece) + piece + b"\r\n")
                sent += len(piece)
        except OSError:
            pass  # the answer has come, and the end with it
        try:
            answer = connection.recv(65536)
        except OSError as error:
            answer = repr(error).encode()
    return {"answer": answer.split(b"\r\n", 1)[0].decode(), "sent_mb": sent // MEBIBYTE}


def wrong_keys(subject: Subject) -> dict[str, Any]:
    """1,000 requests without a key, with a wrong one, with one that begins like a right one, and without the scope."""
    wrong = [None, "Bearer wrong", f"Bearer {READ[:-1]}0", f"Basic {READ}", f"Bearer {READ} {READ}"]
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=subject.server.url) as client:
        for number in range(900):
            given = wrong[number % len(wrong)]
            headers = {} if given is None else {"Authorization": given}
            statuses[client.post("/v1/search", json={"query": "a"}, headers=headers).status_code] += 1
        for _ in range(100):
            headers = {"Authorization": f"Bearer {READ}"}
            statuses[client.post("/v1/documents/delete", json={"ids": ["1"]}, headers=headers).status_code] += 1
    return {"statuses": dict(statuses), "as_it_should_be": statuses == {401: 900, 403: 100}}


def full_queue(subject: Subject) -> dict[str, Any]:
    """300 searches with both stages at once, more than workers and queue hold."""

    def ask(query: str) -> tuple[int, str | None]:
        with httpx.Client(base_url=subject.server.url, headers={"Authorization": f"Bearer {READ}"}) as client:
            answer = client.post("/v1/search", json={"query": query}, timeout=120)
            return answer.status_code, answer.headers.get("retry-after")

    started = time.monotonic()
    with ThreadPoolExecutor(300) as pool:
        answers = list(pool.map(ask, subject.queries[:300]))
    statuses = Counter(status for status, _ in answers)
    told = [int(after) for status, after in answers if status == 429 and after is not None]
    return {
        "statuses": dict(statuses),
        "retry_after_s": [min(told, default=None), max(told, default=None)],
        "seconds": round(time.monotonic() - started, 1),
        "as_it_should_be": statuses[200] >= 2 and statuses[429] == len(told) > 0 and set(statuses) <= {200, 429, 503},
    }


def garbage(subject: Subject) -> dict[str, Any]:
    """What is not HTTP, too many headers, and bodies in the wrong encoding."""
    sent = {
        "random bytes": os.urandom(4096),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": bytes.fromhex("16030100a5010000a10303") + os.urandom(160),
        "1 MB of headers": EMBED + b"X-Long: " + b"a" * MEBIBYTE,
        "two lengths": EMBED + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n{}   ",
        "length and chunks": EMBED + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "not UTF-8": EMBED + b'Content-Length: 14\r\n\r\n{"input":"\xff\xfe"}',
    }
    answers = {}
    for name, content in sent.items():
        with subject.connect() as connection:
            connection.settimeout(20)
            try:
                connection.sendall(content)
                answers[name] = connection.recv(65536).split(b"\r\n", 1)[0].decode("latin-1") or "connection closed"
            except ConnectionError:
                answers[name] = "connection closed"
    fine = all(answer == "connection closed" or answer.split(" ")[1][0] == "4" for answer in answers.values())
    return {"answers": answers, "as_it_should_be": fine}


def sigterm_under_load(subject: Subject) -> dict[str, Any]:
    """SIGTERM while searches with both stages are running: all that were accepted are answered, then it ends."""

    def ask(query: str) -> int | str:
        try:
            return httpx.post(
                f"{subject.server.url}/v1/search",
                json={"query": query},
                headers={"Authorization": f"Bearer {READ}"},
                timeout=120,
            ).status_code
        except httpx.TransportError as error:
            return type(error).__name__

    with ThreadPoolExecutor(20) as pool:
        running = [pool.submit(ask, query) for query in subject.queries[:20]]
        time.sleep(1.0)  # all are in the queue or at work
        started = time.monotonic()
        status = subject.server.end(signal.SIGTERM)
        seconds = time.monotonic() - started
        answers = Counter(one.result() for one in running)
    return {
        "answers": {str(answer): count for answer, count in answers.items()},
        "ended_after_s": round(seconds, 1),
        "exit_status": status,
        "as_it_should_be": answers == {200: 20} and status == 0,
    }


FAULTS: tuple[Fault, ...] = (
    slow_headers,
    half_open,
    slow_bodies,
    slow_readers,
    a_gigabyte,
    wrong_keys,
    full_queue,
    garbage,
    sigterm_under_load,
)

if __name__ == "__main__":
    main()
