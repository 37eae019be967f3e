"""The configuration snippets in docs/mcp.md: they parse, and the command in them works."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from tests.mcp_client import ROOT, talk

PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("mcp.md", "terminal.md")}
PLACES = ("mcpServers", "servers", "context_servers", "mcp_servers")


def blocks(language: str, page: str = "mcp.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


def servers() -> list[tuple[str, dict[str, Any]]]:
    parsed: list[dict[str, Any]] = [json.loads(block) for block in blocks("json")]
    parsed += [tomllib.loads(block) for block in blocks("toml")]
    found = []
    for record in parsed:
        ((place, named),) = record.items()
        assert place in PLACES
        found += [(place, server) for server in named.values()]
    for line in re.findall(r"^\$ claude mcp add (\S+) -- (.+)$", PAGES["mcp.md"], flags=re.MULTILINE):
        command, *arguments = shlex.split(line[1])
        found.append(("claude", {"command": command, "args": arguments}))
    return found


def test_there_is_a_snippet_for_every_form() -> None:
    assert sorted(place for place, _ in servers()) == sorted((*PLACES, "claude"))
    for _, server in servers():
        assert server["command"] == "/home/me/.venv/bin/retrieval"
        assert server["args"] == ["mcp", "--index", "/home/me/my-index"]


def test_the_command_of_the_snippets_works(tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "my-index") as pipeline:
        pipeline.ingest([("a", "The moon causes the tides.")])
    (arguments,) = {tuple(server["args"]) for _, server in servers()}
    assert arguments[0] == "mcp"
    given = [argument.replace("/home/me", str(tmp_path)) for argument in arguments[1:]]

    async def conversation(session: ClientSession) -> list[str]:
        answer = await session.call_tool("search", {"query": "tides"})
        return [hit["document_id"] for hit in answer.structured_content["hits"]]

    assert talk(given, conversation) == ["a"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_command_of_the_pages_exists_with_its_options(page: str) -> None:
    lines = [line for block in blocks("console", page) for line in block.splitlines()]
    commands = [line.partition("retrieval ")[2] for line in lines if line.startswith("$") and "retrieval " in line]
    checked = 0
    for command in commands:
        words = shlex.split(command.partition("|")[0])
        if words[0] not in {"mcp", "search", "watch", "ingest"}:
            continue
        shown = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0, command
        assert all(word.split("=")[0] in shown.output for word in words if word.startswith("--")), command
        checked += 1
    assert checked >= 3


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    from pipelines.mcp_server import limits

    text = PAGES["mcp.md"]
    for number in (limits.RESULT_CHARACTERS, limits.QUERY_CHARACTERS, limits.DOCUMENT_CHARACTERS):
        assert f"{number:,}" in text
    assert f"at most {limits.TOP_K}" in text
    assert f"{limits.DEFAULT_DOCUMENT_CHARACTERS:,} characters" in text
