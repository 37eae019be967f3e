"""The service in this process: any body to any path gets an answer below 500."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.filter_trees import filter_of
from benchmarks.fuzz.target import Check, Target
from pipelines import TwoStagePipeline
from pipelines.service import ServiceConfig, create_app
from retrieval.config import parse_config

_POSTED = (
    "/v1/search",
    "/v1/search",
    "/v1/search",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/v1/documents/delete",
)
_GOTTEN = ("/v1/fields", "/v1/documents/pipe", "/v1/models", "/v1/ingest/none", "/health", "/nowhere")
_PATHS = (*(("POST", path) for path in _POSTED), *(("GET", path) for path in _GOTTEN), ("DELETE", "/v1/search"))
_GOOD: dict[str, dict[str, Any]] = {
    "/v1/search": {"query": "copper pipe", "top_k": 2, "where": None, "rerank": False},
    "/v1/embeddings": {"model": "starter-static", "input": ["a", "b"], "encoding_format": "float"},
    "/v1/rerank": {"model": "starter-reranker", "query": "a", "documents": ["b", "c"], "top_n": 1},
    "/v2/rerank": {"model": "starter-reranker", "query": "a", "documents": ["b", "c"], "top_n": 1},
    "/v1/documents/delete": {"ids": ["nobody"]},
}


def body_of(choices: Choices, path: str) -> bytes:
    """A body that is nearly right, or JSON, or bytes."""
    kind = choices.byte() % 8
    if kind == 6:
        return choices.rest()
    if kind == 5:
        return json.dumps(choices.json()).encode()
    good = dict(_GOOD.get(path, {}))
    if path == "/v1/search" and choices.chance():
        good["where"] = filter_of(choices)
    for _ in range(choices.whole(0, 3)):
        good[choices.pick([*good, "other", "queries", "ids", "user"])] = choices.json(2)
    text = json.dumps(good).encode()
    return text[: choices.byte() * 2] if kind == 7 else text


class Client:
    """Calls an ASGI app without a socket."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._lifespan: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        started = self._loop.create_future()

        async def send(message: dict[str, Any]) -> None:
            if not started.done():
                started.set_result(message["type"])

        self._task = self._loop.create_task(
            app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._lifespan.get, send)
        )
        self._lifespan.put_nowait({"type": "lifespan.startup"})
        kind = self._loop.run_until_complete(started)
        if kind != "lifespan.startup.complete":
            raise RuntimeError(f"the service did not start: {kind}")

    def ask(
        self, method: str, path: str, query: bytes, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return self._loop.run_until_complete(self._ask(method, path, query, body, headers))

    async def _ask(
        self, method: str, path: str, query: bytes, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, bytes]:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(),
            "scheme": "http", "query_string": query, "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("h", 80),
        }  # fmt: skip
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
        status, parts = 0, []

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, messages.get, send)
        return status, b"".join(parts)

    def close(self) -> None:
        """End the service."""
        self._lifespan.put_nowait({"type": "lifespan.shutdown"})
        self._loop.run_until_complete(self._task)
        self._loop.close()


def require_answer(client: Client, choices: Choices) -> None:
    """Fail unless a request gets an answer below 500 that is JSON."""
    method, path = choices.pick(_PATHS)
    query = choices.rest(choices.byte() % 12) if choices.chance(4) else b""
    body = body_of(choices, path)
    headers = [(b"host", b"localhost"), (b"content-length", str(len(body)).encode())]
    odd = (b"application/json; charset=latin-1", b"text/plain", b"")
    kind = choices.pick(odd) if choices.chance(8) else b"application/json"
    headers += [(b"content-type", kind)] if kind else []
    if choices.chance(8):
        name = choices.pick(
            (b"authorization", b"x-request-id", b"origin", b"accept", b"content-type", b"content-encoding")
        )
        headers.append((name, choices.rest(8)))
    status, answer = client.ask(method, path, query, body, headers)
    assert 200 <= status < 500, f"{method} {path} gives {status}: {answer[:300]!r} for {body[:300]!r}"
    json.loads(answer)


def _service(folder: Path, stack: ExitStack) -> Check:
    pipeline = TwoStagePipeline.open(config=parse_config({"store": {"kind": "memory"}}))
    pipeline.ingest([("pipe", "copper pipe leak repair"), ("bread", "sour bread dough flour")])
    client = Client(create_app(pipeline, ServiceConfig(access_log=False)))
    stack.callback(client.close)
    body, json_kind = (
        b'{"query": "pipe", "rerank": false}',
        [(b"host", b"localhost"), (b"content-type", b"application/json")],
    )
    status, _ = client.ask("POST", "/v1/search", b"", body, [*json_kind, (b"content-length", b"%d" % len(body))])
    assert status == 200, "not even what is right is answered"

    def check(data: bytes) -> None:
        require_answer(client, Choices(data))

    return check


TARGETS = [Target("service", "an answer below 500, in JSON", _service, longest=300, weight=2, extra="fastapi")]
