"""Readable at 80 columns everywhere, coloured on a terminal only, and not even there when that is not wanted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from tests.pty_process import COLOUR, Terminal

COLUMNS = 80
# Foreground and background colours; bold and dim are no colours.
PAINT = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|4[0-7]|38;5;\d+|38;2;[\d;]+)(?:;\d+)*m")


def commands() -> list[list[str]]:
    group = typer.main.get_command(app)
    found = [[]]
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        found.append([name])
        found += [[name, inner] for inner in sorted(getattr(command, "commands", {}))]
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a-folder-with-a-name-that-is-rather-long-for-a-narrow-terminal")
    with TwoStagePipeline.open(root / "index") as pipeline:
        pipeline.ingest(
            [
                {"id": "tide", "title": "On tides", "text": "The moon causes the tides. " * 30, "year": 2001},
                {"id": "a-very-long-identifier/" * 6, "text": "Yeast makes dough rise; tides do not."},
            ]
        )
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").write_text("One text about tides.", encoding="utf-8")
    (root / "texts" / "b.txt").write_bytes(b"")
    return root


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_fits(command: list[str]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(COLUMNS)})
    assert done.exit_code == 0
    wide = [line for line in done.stdout.splitlines() if len(line) > COLUMNS]
    assert not wide
    assert "\x1b" not in done.stdout
    if "[OPTIONS] COMMAND" not in done.stdout:
        for option in ("--index", "--config", "--set", "--json", "--debug", "--quiet"):
            assert option in done.stdout


def outputs(root: Path) -> dict[str, list[object]]:
    index = ["--index", root / "index"]
    return {
        "search": ["search", "what causes tides", "--no-rerank", "--explain", *index],
        "info": ["info", *index],
        "doctor": ["doctor", *index],
        "watch": ["watch", root / "texts", "--once", "--index", root / "watched"],
        "ingest": ["ingest", root / "texts", "--index", root / "ingested"],
    }


@pytest.mark.parametrize("name", ["search", "info", "doctor", "watch", "ingest"])
def test_output_fits_and_is_plain_where_nobody_watches(root: Path, name: str) -> None:
    arguments = [str(argument) for argument in outputs(root)[name]]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": str(COLUMNS)})
    assert done.exit_code == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    # A path is longer than a line, and cutting it would make it useless.
    wide = [line for line in done.stdout.splitlines() if len(line) > COLUMNS and str(root) not in line]
    assert not wide


def on_terminal(root: Path, name: str, **environment: str) -> str:
    with Terminal.retrieval(*outputs(root)[name], columns=COLUMNS, **environment) as terminal:
        assert terminal.end() == 0
        return terminal.raw


def test_colour_on_a_terminal_and_not_when_it_is_not_wanted(root: Path) -> None:
    assert PAINT.search(on_terminal(root, "search"))
    assert not PAINT.search(on_terminal(root, "search", NO_COLOR="1"))
    assert not COLOUR.search(on_terminal(root, "search", TERM="dumb"))


def test_errors_are_red_on_a_terminal_and_plain_when_colour_is_not_wanted(tmp_path: Path) -> None:
    for environment, painted in (({}, True), ({"NO_COLOR": "1"}, False)):
        with Terminal.retrieval("info", "--index", tmp_path / "nothing", **environment) as terminal:
            assert terminal.end() == 1
            assert bool(PAINT.search(terminal.raw)) is painted
            assert "error: there is no index in" in terminal.text


def piped(root: Path, **environment: str) -> str:
    arguments = [str(argument) for argument in outputs(root)["search"]]
    done = CliRunner().invoke(app, arguments, env={"TERM": "xterm-256color", **environment})
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_colour_in_a_pipe_when_it_is_asked_for(root: Path) -> None:
    assert not COLOUR.search(piped(root))
    assert PAINT.search(piped(root, FORCE_COLOR="1"))
    # Who says both does not want it.
    assert not PAINT.search(piped(root, FORCE_COLOR="1", NO_COLOR="1"))
