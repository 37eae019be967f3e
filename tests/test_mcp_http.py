"""`retrieval mcp --transport http`: a real port, asked by the SDK's client and by those who may not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from pipelines import TwoStagePipeline
from tests.mcp_client import ROOT, command

KEY = "0123456789abcdef0123456789abcdef"
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("http") / "index"
    with TwoStagePipeline.open(folder) as pipeline:
        pipeline.ingest([("moon", "The moon causes the tides."), ("yeast", "Yeast makes dough rise.")])
    return folder


@contextmanager
def served(*arguments: object, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    server = subprocess.Popen(
        command("--transport", "http", "--port", 0, "--json", "--idle", 0, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert server.stdout is not None
    try:
        lines = []
        while (line := server.stdout.readline()) and line != "}\n":
            lines.append(line)
        if not line:
            raise RuntimeError(server.stderr.read() if server.stderr else "")
        yield json.loads("".join([*lines, line]))["url"], server
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def open_server(index: Path) -> Iterator[str]:
    with served("--index", index) as (url, _):
        yield url


@pytest.fixture(scope="module")
def locked_server(index: Path) -> Iterator[str]:
    with served("--index", index, "--key-env", "TEST_MCP_KEY", TEST_MCP_KEY=KEY) as (url, _):
        yield url


def talk(url: str, conversation: Callable[[ClientSession], Awaitable[Result]], **headers: str) -> Result:
    async def run() -> Result:
        async with (
            create_mcp_http_client(headers=headers) as client,
            streamable_http_client(url, http_client=client) as (read, write, *_),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await conversation(session)

    return asyncio.run(run())


async def _ask(session: ClientSession) -> str:
    answer = await session.call_tool("search", {"query": "what causes tides", "top_k": 1})
    assert not answer.is_error
    return str(answer.structured_content["hits"][0]["document_id"])


def test_search_over_http(open_server: str) -> None:
    assert open_server.startswith("http://127.0.0.1:")
    assert open_server.endswith("/mcp")
    assert talk(open_server, _ask) == "moon"


def test_two_clients_at_once(open_server: str) -> None:
    async def both() -> list[str]:
        return await asyncio.gather(*(asyncio.to_thread(talk, open_server, _ask) for _ in range(2)))

    assert asyncio.run(both()) == ["moon", "moon"]


def _post(url: str, body: bytes | None = None, **headers: str) -> httpx.Response:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    given = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
    return httpx.post(url, content=json.dumps(message).encode() if body is None else body, headers=given, timeout=30)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1234"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost.evil.example:8010"}, 421),
    ],
)
def test_web_pages_are_refused(open_server: str, headers: dict[str, str], status: int) -> None:
    assert _post(open_server, **headers).status_code == status


def test_a_body_without_bounds_is_refused(open_server: str) -> None:
    assert _post(open_server, body=b" " * (5 * 2**20)).status_code == 413


def test_a_key_is_needed_where_there_is_one(locked_server: str) -> None:
    assert _post(locked_server).status_code == 401
    assert _post(locked_server).headers["www-authenticate"].startswith("Bearer")
    assert _post(locked_server, Authorization="Bearer wrong").status_code == 401
    assert _post(locked_server, Authorization=f"Basic {KEY}").status_code == 401
    assert _post(locked_server, Authorization=f"Bearer {KEY}").status_code == 200
    # A page that knows the key is still a page.
    assert _post(locked_server, Authorization=f"Bearer {KEY}", Origin="https://evil.example").status_code == 403
    assert talk(locked_server, _ask, Authorization=f"Bearer {KEY}") == "moon"


def test_sigterm_ends_it_while_a_client_is_connected(index: Path) -> None:
    with served("--index", index) as (url, server):

        async def end(session: ClientSession) -> Any:
            await _ask(session)
            server.send_signal(signal.SIGTERM)
            return await asyncio.to_thread(server.wait, 30)

        assert talk(url, end) == 0
        assert server.stderr is not None
        assert server.stderr.read() == ""
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.manifest.documents == 2


def test_an_address_in_use_is_said(index: Path, open_server: str) -> None:
    port = httpx.URL(open_server).port
    done = subprocess.run(
        command("--transport", "http", "--index", index, "--port", port), capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1
    assert f"127.0.0.1 port {port}: Address already in use" in done.stderr
