"""Shell completion: the real scripts, in a real bash; in zsh and fish where they are installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.commands import completion
from retrieval.config import load_config
from retrieval.models import bundled_models
from tests.pty_process import ROOT, Terminal

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells of POSIX")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a command `retrieval`."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "retrieval"
    run = shlex.join([sys.executable, "-m", "pipelines"])
    command.write_text(f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(ROOT))}\nexec {run} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return folder


def in_bash(program: Path, script: str, folder: Path) -> str:
    assert BASH is not None
    environment = {**os.environ, "PATH": f"{program}:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(
        [BASH, "--norc", "-c", script], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes-index").mkdir()
    (tmp_path / "notes-index" / "manifest.json").write_text("{}", encoding="utf-8")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.yaml").write_text("", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_bash_completes_commands_options_values_and_settings(program: Path, folder: Path) -> None:
    cases = {
        "retrieval wat": ["watch"],
        "retrieval search --first": ["--first-stage"],
        "retrieval search --first-stage ": ["hybrid", "dense", "bm25"],
        "retrieval search --set rerank.ena": ["rerank.enabled=true", "rerank.enabled=false"],
        "retrieval info --index note": ["notes/", "notes-index"],
        "retrieval info --config note": ["notes/", "notes-index", "notes.yaml"],
        "retrieval mcp --transport ": ["stdio", "http"],
        "retrieval ingest note": [],  # bash completes files by itself
    }
    script = ['eval "$(_RETRIEVAL_COMPLETE=source_bash retrieval)"', "complete -p retrieval"]
    for line in cases:
        words = line.split(" ")
        listed = " ".join(shlex.quote(word) for word in words)
        script.append(f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; COMPREPLY=()")
        script.append('_retrieval_completion retrieval; echo "${COMPREPLY[*]}"')
    complete, *answers = in_bash(program, "\n".join(script), folder).splitlines()
    assert complete == "complete -o default -F _retrieval_completion retrieval"
    found = dict(zip(cases, answers, strict=True))
    assert {line: sorted(answer.split()) for line, answer in found.items()} == {
        line: sorted(expected) for line, expected in cases.items()
    }


def test_show_completion_gives_the_script_of_the_shell_that_asks(program: Path, folder: Path) -> None:
    shown = in_bash(program, "retrieval --show-completion; true", folder)
    assert "complete -o default -F _retrieval_completion retrieval" in shown
    script = in_bash(program, "_RETRIEVAL_COMPLETE=source_bash retrieval", folder)
    assert script.strip() == shown.strip()


def test_install_completion_makes_a_new_bash_complete(program: Path, folder: Path) -> None:
    assert "completion installed in" in in_bash(program, "retrieval --install-completion; true", folder)
    assert BASH is not None
    environment = {"PATH": f"{program}:{os.environ['PATH']}", "HOME": str(folder), "PS1": "ready>"}
    with Terminal([BASH, "-i"], **environment) as terminal:
        terminal.type("PS1='re''ady>'\r")
        terminal.until("ready>")
        terminal.type("retrieval doc\t")
        terminal.until("doctor")
        terminal.type("\x15exit\r")
        assert terminal.end() == 0


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells(program: Path, folder: Path, shell: str) -> None:
    script = in_bash(program, f"_RETRIEVAL_COMPLETE=source_{shell} retrieval", folder)
    assert "_RETRIEVAL_COMPLETE=complete_" in script
    path = shutil.which(shell)
    if path is not None:  # its own parser, where there is one
        done = subprocess.run([path, "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    variables = {
        "zsh": "_TYPER_COMPLETE_ARGS='retrieval sea' _RETRIEVAL_COMPLETE=complete_zsh retrieval",
        "fish": (
            "_TYPER_COMPLETE_ARGS='retrieval sea' _TYPER_COMPLETE_FISH_ACTION=get-args "
            "_RETRIEVAL_COMPLETE=complete_fish retrieval"
        ),
    }
    assert "search" in in_bash(program, variables[shell], folder)


def test_every_setting_that_is_offered_is_accepted() -> None:
    offered = completion.settings("")
    assert {"rerank.depth=20", "first_stage.arms=bm25", "encoder.model=starter-static"} <= set(offered)
    assert set(bundled_models()) <= {pair.partition("=")[2] for pair in offered}
    for pair in offered:
        if pair.startswith("store.") and not pair.startswith("store.kind="):
            continue  # which of them there are depends on the kind of store
        load_config(None, ["quantization.kind=binary", pair])  # query_bits are a setting of that kind


def test_folders_and_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert completion.index_folders("") == ["notes/", "notes-index"]
    assert completion.index_folders(f"{folder}/notes-") == [f"{folder}/notes-index"]
    assert completion.index_folders(".h") == [".hidden/"]
    assert completion.configuration_files("./notes.") == ["./notes.yaml"]
    assert completion.index_folders("nothing/at/all") == []
    assert completion.index_folders("\0") == []
