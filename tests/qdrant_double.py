"""A small Qdrant server over real HTTP, with the REST calls that this project makes and the in-process engine behind.

Many processes may use it at once. In a test::

    with QdrantDouble() as qdrant:            # or the fixture ``qdrant_double`` of this file
        open_store(config with store.url=qdrant.url)

or as a process that prints its URL as its first line, to be killed and started again::

    python -m tests.qdrant_double [--port N] [--api-key KEY]

It differs from a real server: exact search only, no gRPC, nothing is indexed or compressed, nothing survives its end.
`Fault` makes it fail on purpose.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from pydantic import ValidationError

from tests.qdrant_double_engine import Engine, RefusedError
from tests.qdrant_double_routes import ROUTES, Plain, Request

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Fault:
    """What to do instead of, or after, answering.

    Attributes:
        match: Regular expression, searched for in ``METHOD /path``: ``PUT .*/points$``.
        status: Status to answer with; 0 closes the connection without an answer, 200 leaves the answer as it is.
        times: How many requests it meets.
        skip: How many matching requests pass before.
        applied: Whether the request is carried out before its answer is replaced.
        delay_s: Pause before the answer, behind the request where it is carried out.
        headers: Sent with the answer.
    """

    match: str
    status: int = 503
    times: int = 1
    skip: int = 0
    applied: bool = False
    delay_s: float = 0.0
    headers: dict[str, str] | None = None


class QdrantDouble:
    """The server; starts with ``with`` and ends with it.

    Args:
        port: Port on the loopback interface; 0 takes a free one.
        api_key: Key that every request must carry; ``None`` asks for none.
    """

    def __init__(self, port: int = 0, api_key: str | None = None) -> None:
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self._api_key = api_key
        self._engine = Engine()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"double": self})
        self._httpd = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._httpd.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def fail(self, match: str, **fields: Any) -> Fault:
        """Add a `Fault`; it stays until it has met its requests."""
        fault = Fault(match, **fields)
        self.faults.append(fault)
        return fault

    def count(self, match: str) -> int:
        """How many requests had ``METHOD /path`` with this regular expression in it."""
        with self._lock:
            return sum(number for line, number in self.requests.items() if re.search(match, line))

    def answer(self, method: str, path: str, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; status 0 for none."""
        with self._lock:
            line = f"{method} {path}"
            self.requests[line] += 1
            fault = self._fault(line)
        if fault is None:
            return self._carry_out(method, path, request)
        answer = self._carry_out(method, path, request) if fault.applied else None
        time.sleep(fault.delay_s)
        if fault.status != 200:
            return fault.status, fault.headers or {}, _error(f"fault on {line}")
        return answer or self._carry_out(method, path, request)

    def control(self, method: str, body: bytes) -> bytes:
        """``GET /_double`` counts requests, ``POST`` adds a fault, ``DELETE`` forgets faults and counts."""
        if method == "POST":
            self.fail(**json.loads(body))
        elif method == "DELETE":
            self.faults.clear()
            self.requests.clear()
        with self._lock:
            return json.dumps(
                {"requests": dict(self.requests), "faults": [asdict(fault) for fault in self.faults]}
            ).encode()

    def _fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if re.search(fault.match, line):
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return None

    def _carry_out(self, method: str, path: str, request: Request) -> tuple[int, dict[str, str], bytes]:
        key = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key is not None and key != self._api_key:
            return 401, {}, b"Must provide an API key or an Authorization bearer token"
        try:
            found = next(
                (p, route) for m, pattern, route in ROUTES if m == method and (p := re.fullmatch(pattern, path))
            )
        except StopIteration:
            return 404, {}, _error(f"no route for {method} {path}")
        names = tuple(unquote(part) for part in found[0].groups())
        asked = Request(names, request.query, request.headers, request.body)
        try:
            with self._lock:
                result = found[1](self._engine, asked)
                # Inside: the engine hands out what it goes on changing.
                if isinstance(result, bytes):
                    return 200, {"Content-Type": "application/octet-stream"}, result
                if isinstance(result, Plain):
                    return 200, {}, json.dumps(result.value).encode()
                return 200, {}, json.dumps({"result": result, "status": "ok", "time": 0.001}).encode()
        except RefusedError as error:
            return error.status, {}, _error(str(error))
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            return 400, {}, _error(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()
        self._engine.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler, socketserver.StreamRequestHandler):
    double: QdrantDouble
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/_double":
            status, extra, text = 200, {}, self.double.control(self.command, body)
        else:
            status, extra, text = self.double.answer(self.command, parts.path, Request((), query, headers, body))
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **extra, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self._headers_buffer.append(b"\r\n" + text)  # type: ignore[attr-defined]
        self.flush_headers()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _error(message: str) -> bytes:
    return json.dumps({"status": {"error": message}, "time": 0.001}).encode()


@contextmanager
def qdrant_process(port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The server as a process of its own: URL and process; it is killed at the end."""
    command = [sys.executable, "-m", "tests.qdrant_double", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def qdrant_double() -> Iterator[QdrantDouble]:
    """An empty server on the loopback interface, in this process."""
    with QdrantDouble() as double:
        yield double


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--api-key")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with QdrantDouble(arguments.port, arguments.api_key) as double:
        sys.stdout.write(f"{double.url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
