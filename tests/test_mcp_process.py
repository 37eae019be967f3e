"""The process of `retrieval mcp`: how it ends, what it makes of noise, and how it says that it cannot start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from tests.mcp_client import ROOT, command, folder

__all__ = ["folder"]


def _start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}


def _say(server: subprocess.Popen[bytes], *messages: object) -> None:
    assert server.stdin is not None
    for message in messages:
        server.stdin.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")
    server.stdin.flush()


def _hear(server: subprocess.Popen[bytes]) -> Any:
    assert server.stdout is not None
    return json.loads(server.stdout.readline())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["end of input", "SIGTERM", "SIGINT"])
def test_the_end_is_clean(folder: Path, how: str) -> None:
    server = _start("--index", folder / "index")
    _say(server, HELLO, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert _hear(server)["result"]["serverInfo"]["name"] == "two-stage-retrieval"
    ask = {"name": "search", "arguments": {"query": "tides"}}
    _say(server, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": ask})
    assert _hear(server)["id"] == 2
    if how == "end of input":
        out, err = server.communicate(timeout=30)
    else:
        # The client still holds the pipe: the signal alone has to end it.
        server.send_signal(getattr(signal, how))
        server.wait(timeout=30)
        out, err = server.communicate()
    assert (server.returncode, out, err) == (0, b"", b"")
    with TwoStagePipeline.open(folder / "index") as pipeline:
        assert pipeline.manifest.documents == 4


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_end_does_not_wait_for_a_busy_index(folder: Path) -> None:
    with TwoStagePipeline.open(folder / "index"):
        server = _start("--index", folder / "index", "--wait", 3600)
        ask = {"name": "search", "arguments": {"query": "tides"}}
        _say(server, HELLO, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": ask})
        assert server.stderr is not None
        assert b"waiting: index" in server.stderr.readline()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
        server.communicate()


def test_noise_on_the_input_does_not_end_the_server_and_nothing_else_is_on_the_output(folder: Path) -> None:
    server = _start("--index", folder / "index")
    _say(server, b"this is no JSON", b"\xff\xfe\x00", b"x" * (5 * 2**20), b"[]", b"{}", HELLO)
    _say(server, {"jsonrpc": "2.0", "id": 7, "method": "tools/list"})
    answers: dict[Any, Any] = {}
    while 7 not in answers:
        message = _hear(server)
        answers[message.get("id")] = message
    assert "result" in answers[1]
    assert [tool["name"] for tool in answers[7]["result"]["tools"]] == ["search", "get_document", "list_collections"]
    out, _ = server.communicate(timeout=60)
    assert (server.returncode, out) == (0, b"")


def test_a_cancelled_ingest_stops(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3000):
        (texts / f"{number:04}.txt").write_text(f"Text number {number} is about rivers and lakes.", encoding="utf-8")
    server = _start("--index", tmp_path / "index", "--allow-ingest", texts, "--idle", 0)
    _say(server, HELLO, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    call = {"name": "ingest", "arguments": {"paths": ["."]}, "_meta": {"progressToken": "p"}}
    _say(server, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
    while (heard := _hear(server)).get("method") != "notifications/progress":
        assert heard["id"] == 1
    assert heard["params"]["progressToken"] == "p"
    assert heard["params"]["message"].endswith("passages")
    _say(server, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}})
    # The connection goes on, and the end waits for the batch that is being written.
    _say(server, {"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
    while _hear(server).get("id") != 3:
        pass
    _, err = server.communicate(timeout=60)
    assert (server.returncode, b"Traceback" in err) == (0, False)
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        assert 0 < pipeline.manifest.documents < 3000
        assert pipeline.manifest.state == "ready"


def test_a_client_that_is_gone_ends_the_server(folder: Path) -> None:
    server = _start("--index", folder / "index")
    assert server.stdout is not None
    server.stdout.close()
    _say(server, HELLO)
    assert server.stdin is not None
    server.stdin.close()
    assert server.wait(timeout=60) == 0
    assert server.stderr is not None
    assert b"Traceback" not in server.stderr.read()
    server.stderr.close()


def test_usage_errors() -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["mcp", *arguments])
        return done.exit_code, done.stderr

    assert run("--json")[0] == 2
    assert "NAME=DIR" in run("--collection", "x")[1]
    assert run("--collection", "a=b", "--collection", "a=c")[0] == 2
    assert run("--allow-ingest", "/nowhere/at/all") == (
        2,
        "error: --allow-ingest /nowhere/at/all is not a folder; name one that is there\n",
    )
    code, message = run("--transport", "http", "--host", "0.0.0.0")
    assert code == 2
    assert "--key-env" in message
    code, message = run("--transport", "http", "--host", "0.0.0.0", "--key-env", "NO_SUCH_KEY")
    assert code == 2
    assert "NO_SUCH_KEY is not set" in message


def test_without_the_package_the_pip_line_is_given() -> None:
    program = (
        "import sys; sys.modules['mcp'] = None\nsys.argv = ['retrieval', 'mcp']\nfrom pipelines.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 1
    assert "pip install 'two-stage-retrieval[mcp]'" in done.stderr
    assert done.stdout == ""
