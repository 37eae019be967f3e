"""A small HTTP server that speaks OpenAI's chat completions, streamed or not; a model's name says how it behaves."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "stub-key"


@dataclass
class ChatStub:
    """What the server was asked, and where it is."""

    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    """Set it to let a model that stalls go on."""


@contextmanager
def running_chat_stub() -> Iterator[ChatStub]:
    """A stub on a free port of this machine."""
    stub = ChatStub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        stub.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield stub
        finally:
            stub.release.set()
            server.shutdown()
            thread.join()


def passages_of(request: dict[str, Any]) -> dict[int, str]:
    """The passages in the last message, by their numbers."""
    text = request["messages"][-1]["content"]
    found = re.findall(r'<passage number="([0-9]+)">\n(.*?)\n</passage>', text, re.DOTALL)
    return {int(number): passage for number, passage in found}


def reply_of(request: dict[str, Any]) -> str:
    """What the model of a request answers."""
    first = passages_of(request)[1].splitlines()[-1].split(".")[0]
    return {
        "invents": f"{first} [1]. It was found in 1962 [9], see [2, 7].",
        "refuses": " NO_ANSWER\n",
        "uncited": f"{first}.",
        "steers": f"\x1b[31m{first}\x1b[0m\u202e [1].\x07",
    }.get(request["model"], f"{first} [1]. And so on [2][1].")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up is what some tests do; anything else belongs on the screen.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    stub: ChatStub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.stub.requests.append(body)
        self.stub.keys.append(self.headers["Authorization"])
        if self.path != "/v1/chat/completions":
            self._json(404, {"error": {"message": f"no route {self.path}"}})
        elif body["model"] == "unknown":
            self._json(404, {"error": {"message": "the model 'unknown' does not exist", "code": "model_not_found"}})
        elif body["model"] == "locked" and self.headers["Authorization"] != f"Bearer {KEY}":
            self._json(401, {"error": {"message": "incorrect API key"}})
        elif body["model"] == "busy" or (body["model"] == "busy-once" and len(self.stub.requests) == 1):
            self._json(429, {"error": {"message": "slow down"}}, {"Retry-After-Ms": "10"})
        elif body["model"] == "broken":
            self._json(500, {"error": {"message": "out of memory"}}, {"x-should-retry": "false"})
        elif body["model"] == "refuses-length":
            self._json(400, {"error": {"message": "the prompt is too long"}})
        elif body.get("stream") and body["model"] != "no-stream":
            self._stream(body)
        else:
            message = {"role": "assistant", "content": reply_of(body)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._json(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        model, text = body["model"], reply_of(body)
        self._event({"role": "assistant", "content": ""})
        for place, piece in enumerate(_pieces(text)):
            if model in {"stalls", "cut", "fails-midway", "garbage"} and place == 5:
                return self._mishap(model)
            if model == "trickles":
                self.stub.release.wait(0.05)
            self._event({"content": piece})
        if model == "silent-end":
            self.close_connection = True
        else:
            self._event({}, {"cut-short": "length", "filtered": "content_filter"}.get(model, "stop"))
            self._chunk(b'data: {"id": "1", "choices": [], "usage": {"total_tokens": 3}}\n\n')
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _mishap(self, model: str) -> None:
        if model == "stalls":
            self.stub.release.wait(30)
        elif model == "fails-midway":
            self._chunk(b'data: {"error": {"message": "the graphics card is gone"}}\n\n')
            self._chunk(b"")
        elif model == "garbage":
            self._chunk(b"data: {not json\n\n")
            self._chunk(b"")
        self.close_connection = True

    def _event(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
        self._chunk(f"data: {json.dumps(chunk)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _pieces(text: str) -> Sequence[str]:
    """Three characters each, so that markers are cut in two."""
    return [text[start : start + 3] for start in range(0, len(text), 3)]
