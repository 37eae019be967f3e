"""The SDK's own client against a real server process or a real port."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from typer.testing import CliRunner

from pipelines.cli import app

ROOT = Path(__file__).parents[1]
Result = TypeVar("Result")
TEXTS = {
    "pipe.txt": "A leaking pipe under the sink can be sealed with epoxy putty until the plumber arrives.",
    "yeast.txt": "Yeast turns sugar into carbon dioxide, and this gas makes dough rise.",
    "moon.md": "# Tides\n\nThe moon pulls the oceans and so causes the tides twice a day.",
    "long.txt": " ".join(f"Sentence number {number} is about glaciers." for number in range(400)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index of `TEXTS` in ``index``."""
    root = tmp_path_factory.mktemp("mcp")
    (root / "texts").mkdir()
    for name, text in TEXTS.items():
        (root / "texts" / name).write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["ingest", str(root / "texts"), "--index", str(root / "index")])
    assert done.exit_code == 0, done.stderr
    return root


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "pipelines", "mcp", *map(str, arguments)]


def talk(
    arguments: Sequence[object], conversation: Callable[[ClientSession], Awaitable[Result]], log: Path | None = None
) -> Result:
    """Start a server, say hello, and hold a conversation; the server ends with it."""

    async def run() -> Result:
        program, *rest = command(*arguments)
        environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH"}}
        parameters = StdioServerParameters(command=program, args=rest, cwd=ROOT, env=environment)
        with (log or Path(os.devnull)).open("w", encoding="utf-8") as errlog:
            async with stdio_client(parameters, errlog=errlog) as (read, write), ClientSession(read, write) as session:
                await session.initialize()
                return await conversation(session)

    return asyncio.run(run())


def text_of(result: Any) -> str:
    (block,) = result.content
    return str(block.text)
