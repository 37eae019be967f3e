"""A scripted Qdrant: over real HTTP or HTTPS it records every request and gives the answers that it was told to.

It shows what is sent and how answers are taken; what a server would make of it is the matter of `tests.qdrant_double`.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Sent:
    """One request as the server saw it; a body that is not JSON stays bytes."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any


@dataclass
class Qdrant:
    """A server with the collection ``books`` that answers as Qdrant does, and first works off ``failures`` of a path.

    Paths are those below the collection (``/points``), whichever of its generations is meant, or of the server.
    """

    url: str = ""
    exists: bool = True
    status: list[str] = field(default_factory=lambda: ["green"])
    vectors: Any = field(default_factory=lambda: {"dense": {"size": 4, "distance": "Cosine"}})
    metadata: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, Any] = field(default_factory=lambda: {"indexing_threshold": 20_000})
    schema: dict[str, Any] = field(
        default_factory=lambda: {
            name: {"data_type": "keyword", "points": 0} for name in ("document", "document_id", "source")
        }
    )
    results: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    failures: dict[str, list[Answer]] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    delay: float = 0.0

    def fail(self, path: str, *statuses: int, headers: dict[str, str] | None = None, body: bytes | None = None) -> None:
        """Answer the next requests to ``METHOD path`` with these statuses."""
        text = json.dumps({"status": {"error": "the server's own words"}}).encode() if body is None else body
        self.failures[path] = [(status, headers or {}, text) for status in statuses]

    def to(self, method: str, ending: str) -> list[Sent]:
        """The requests with this method whose path ends so."""
        return [sent for sent in self.sent if sent.method == method and sent.path.endswith(ending)]

    def lines(self) -> list[str]:
        """``METHOD path`` of every request."""
        return [f"{sent.method} {sent.path}" for sent in self.sent]

    def answer(self, sent: Sent) -> Answer:
        self.sent.append(sent)
        time.sleep(self.delay)
        ending = re.sub(r"^/collections/books(-g\d+)?(?=/|$)", "", sent.path) or "/"
        if waiting := self.failures.get(f"{sent.method} {ending}"):
            return waiting.pop(0)
        if (data := self.files.get(ending)) is not None and sent.method == "GET":
            return _part(data, sent.headers.get("range"))
        self._apply(sent, ending)
        return 200, {}, json.dumps({"result": self._result(sent, ending), "status": "ok", "time": 0.001}).encode()

    def _apply(self, sent: Sent, ending: str) -> None:
        if (sent.method, ending) == ("PUT", "/"):
            self.exists, self.schema = True, {}
            self.metadata.update(sent.body.get("metadata") or {})
        if (sent.method, ending) == ("PATCH", "/"):
            self.metadata.update(sent.body.get("metadata") or {})
            self.optimizers.update(sent.body.get("optimizers_config") or {})
        if ending == "/index":
            schema = sent.body["field_schema"]
            kind = schema if isinstance(schema, str) else schema["type"]
            params = {} if isinstance(schema, str) else {"params": schema}
            self.schema[sent.body["field_name"]] = {"data_type": kind, "points": 3, **params}

    def _result(self, sent: Sent, ending: str) -> Any:
        update = {"operation_id": 1, "status": "completed"}
        known = {
            "/": self._info() if sent.method == "GET" and ending == "/" else True,
            "/exists": {"exists": self.exists},
            "/points": update,
            "/points/delete": update,
            "/index": update,
            "/aliases": {"aliases": []},
            "/collections/aliases": True,
            "/collections": {"collections": []},
            "/cluster": {"status": "disabled"},
        }
        return {**known, **self.results}[ending]

    def _info(self) -> dict[str, Any]:
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
                "optimizer_config": {**optimizers, "flush_interval_sec": 5, **self.optimizers},
                "metadata": self.metadata,
            },
        }


def _part(data: bytes, wanted: str | None) -> Answer:
    if wanted is None:
        return 200, {"Content-Type": "application/octet-stream"}, data
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    return 206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:]


@contextmanager
def running(script: Qdrant, context: ssl.SSLContext | None = None) -> Iterator[Qdrant]:
    """Serve a script on the loopback interface.

    Args:
        script: Gets the requests; its ``url`` is set.
        context: For HTTPS; ``None`` serves HTTP.
    """

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body: Any = self.rfile.read(length) if length else None
            if body is not None and "json" in (self.headers.get("Content-Type") or ""):
                body = json.loads(body)
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, text = script.answer(Sent(self.command, path, query, headers, body))
            try:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **extra}.items():
                    self.send_header(name, value)
                if "Content-Length" not in extra:
                    self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except ConnectionError:
                pass  # the client has run out of patience, as a test wants it to

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that does not trust the certificate hangs up

    httpd = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    script.url = f"{'http' if context is None else 'https'}://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
