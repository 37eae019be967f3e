"""`retrieval search` without a query: the prompt on a real terminal, and one query a line from a pipe."""

from __future__ import annotations

import io
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from rich.console import Console

from pipelines import TwoStagePipeline
from pipelines.lease import IndexLease
from pipelines.render.output import visible_lines
from pipelines.terminal.history import history_file, prepared
from pipelines.terminal.prompt import CommandCompleter
from pipelines.terminal.session import SearchSession
from pipelines.terminal.settings import Settings
from retrieval.config import Config
from tests.pty_process import ROOT, Terminal

TEXTS = [(f"tide-{number}", f"The moon causes tide number {number}.") for number in range(7)]
TEXTS += [("yeast", "Yeast makes dough rise."), ("evil", "An escape \x1b]0;owned\x07 sequence about lava.")]
TEXTS.append(("long", "Glaciers move slowly. " * 60 + "Avalanches fall fast from the mountain. " + "Snow melts. " * 60))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal") / "index"
    with TwoStagePipeline.open(folder) as pipeline:
        pipeline.ingest(TEXTS)
    return folder


class Told:
    """A session whose output can be read."""

    def __init__(self, index: Path, **arguments: Any) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()
        self._lease = IndexLease(lambda: (Config(), index), idle=60, wait=0)
        with self._lease.use() as pipeline:
            settings = Settings(pipeline.config, arguments.pop("top_k", 3), {"rerank": False, **arguments})
        out, err = (
            Console(file=file, width=80, highlight=False, emoji=False, markup=False) for file in (self._out, self._err)
        )
        self.session = SearchSession(self._lease, settings, out, err)

    def say(self, line: str) -> tuple[str, str]:
        for file in (self._out, self._err):
            file.seek(0)
            file.truncate()
        assert self.session.handle(line)
        return self._out.getvalue(), self._err.getvalue()

    def close(self) -> None:
        self._lease.close()


@pytest.fixture
def told(index: Path) -> Iterator[Told]:
    told = Told(index)
    yield told
    told.close()


def ranks(out: str) -> list[int]:
    return [int(rank) for rank in re.findall(r"^ {1,2}(\d+) \S.* stage 1:", out, re.MULTILINE)]


class TestSession:
    def test_pages_go_on_where_the_last_one_ended(self, told: Told) -> None:
        assert ranks(told.say("moon tide")[0]) == [1, 2, 3]
        assert ranks(told.say("")[0]) == [4, 5, 6]
        assert 7 in ranks(told.say(":more")[0])
        for _ in range(5):
            out, _ = told.say("")
        assert "no more hits" in out
        # A new query begins anew.
        assert ranks(told.say("moon tide")[0]) == [1, 2, 3]

    def test_an_empty_line_before_any_query_is_nothing(self, told: Told) -> None:
        assert told.say("") == ("", "")
        assert "there was no query yet" in told.say(":more")[1]
        assert "there was no query yet" in told.say(":explain")[1]
        assert "there was no query yet" in told.say(":timings")[1]
        assert "there was no query yet" in told.say(":show 1")[1]

    def test_explain_tells_about_the_hits_that_were_shown(self, told: Told) -> None:
        told.say("moon tide")
        out, err = told.say(":explain 2")
        assert (ranks(out), err) == ([2], "")
        assert re.search(r"#\d+ 0\.\d+", out)
        assert "known to the static encoder: moon, tide" in out
        assert ranks(told.say(":explain")[0]) == [1, 2, 3]
        for wrong in ("0", "4", "x", "-1", "²"):
            assert "is not the number of a hit that was shown, 1 to 3" in told.say(f":explain {wrong}")[1]

    def test_show_gives_the_whole_passage_with_what_was_read(self, index: Path) -> None:
        told = Told(index, rerank=True, first_stage="bm25")
        told.say("avalanches fall from the mountain")
        out, _ = told.say(":show 1")
        flat = " ".join(out.split())
        assert flat.count("Glaciers move slowly.") > 5
        also = told.say(":open 1")[0]
        told.close()
        assert "what stands between ▶ and ◀" in flat
        read = flat.rpartition("▶")[2].partition("◀")[0]
        with TwoStagePipeline.open(index) as pipeline:
            hit = pipeline.search("avalanches fall from the mountain", first_stage="bm25")[0]
        assert hit.read is not None
        assert " ".join(read.split()) == " ".join(hit.text[slice(*hit.read)].split())
        assert len(read) < len(flat) / 2
        assert also == out

    def test_what_a_document_says_to_the_terminal_is_not_passed_on(self, told: Told) -> None:
        for out in (told.say("escape lava")[0], told.say(":show 1")[0]):
            assert "lava" in out
            assert "\x1b" not in out
            assert "\x07" not in out

    def test_settings_change_the_next_query_and_can_be_taken_back(self, told: Told) -> None:
        told.say(":set top_k 2")
        assert ranks(told.say("moon tide")[0]) == [1, 2]
        told.say(":set top_k default")
        assert len(ranks(told.say("moon tide")[0])) == 5
        told.say(':set where {"must": [{"key": "document_id", "match": {"value": "yeast"}}]}')
        assert "yeast" in told.say("moon tide yeast")[0]
        assert "tide-1" not in told.say("moon tide yeast")[0]
        out, _ = told.say(":set")
        assert re.search(r"^rerank +off +set here", out, re.MULTILINE)
        assert re.search(r"^candidates +100 *$", out, re.MULTILINE)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            (":set top_k 0", "top_k is a whole number from 1"),
            (":set top_k many", "top_k is a whole number, not 'many'"),
            (":set budget_ms -5", "budget_ms is above 0"),
            (":set first_stage sparse", "first_stage is 'hybrid', 'dense' or 'bm25'"),
            (":set rerank perhaps", "rerank is on or off"),
            (":set where [1]", "where is a filter as a JSON object"),
            (':set where {"must": [{"key": "a"}]}', "a"),
            (":set nothing 1", "there is no setting 'nothing'; there are top_k"),
            (":set top_k", ":set top_k needs a value"),
            (":nonsense", "there is no command :nonsense; :help lists them"),
        ],
    )
    def test_mistakes_are_told_and_change_nothing(self, told: Told, line: str, expected: str) -> None:
        before = told.session.settings.shown()
        out, err = told.say(line)
        assert out == ""
        assert err.startswith("error: ")
        assert expected in " ".join(err.split())
        assert told.session.settings.shown() == before

    def test_help_names_every_command_and_fits(self, told: Told) -> None:
        out, _ = told.say(":help")
        for name in (":more", ":explain", ":show", ":open", ":set", ":timings", ":help", ":quit"):
            assert name in out
        assert max(map(len, out.splitlines())) <= 80

    def test_timings(self, told: Told) -> None:
        told.say("moon")
        told.say("tide")
        out, _ = told.say(":timings")
        assert "median of 2" in out
        assert re.search(r"^total +\d+\.\d +\d+\.\d", out, re.MULTILINE)

    def test_a_query_of_many_lines_is_one_query(self, told: Told) -> None:
        out, err = told.say("moon\n:quit\ntide\n")
        assert ranks(out) == [1, 2, 3]
        assert err == ""

    def test_leaving(self, told: Told) -> None:
        for line in (":quit", ":q", ":exit"):
            assert told.session.handle(line) is False

    def test_a_stop_in_a_search_goes_on(self, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*arguments: object, **options: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(TwoStagePipeline, "search", interrupted)
            assert told.say("moon") == ("", "stopped\n")
        assert ranks(told.say("moon tide")[0]) == [1, 2, 3]


def completions(text: str) -> list[str]:
    found = CommandCompleter().get_completions(Document(text), CompleteEvent(completion_requested=True))
    return [completion.text for completion in found]


def test_completion_of_commands_settings_and_values() -> None:
    assert completions(":s") == [":set", ":show"]
    assert completions(":set t") == ["top_k"]
    assert completions(":set first_stage ") == ["hybrid", "dense", "bm25", "default"]
    assert completions(":set top_k ") == ["default"]
    assert completions(":explain ") == []
    assert completions("moon :s") == []


def test_the_place_of_the_history(tmp_path: Path) -> None:
    if sys.platform == "linux":
        state = {"XDG_STATE_HOME": str(tmp_path / "state")}
        assert history_file(state) == tmp_path / "state" / "two-stage-retrieval" / "search_history"
        default = tmp_path / ".local" / "state" / "two-stage-retrieval" / "search_history"
        assert history_file({}, tmp_path) == default
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert not prepared(tmp_path / "file" / "below" / "search_history")


def test_lines_of_a_passage_are_kept_and_nothing_else() -> None:
    assert visible_lines("a\nb\x1b[31m\tc\u202e") == "a\nb [31m c"


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_a_session_on_a_terminal(index: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Terminal.retrieval("search", "--index", index, "-k", 2, "--no-rerank", XDG_STATE_HOME=str(state)) as terminal:
        terminal.until("10 documents")
        terminal.until("search>")
        terminal.type("moon tide\r")
        shown = terminal.until("candidates;")
        assert ranks(shown.replace("\r", "")) == [1, 2]
        terminal.until("search>")
        terminal.type("\r")
        terminal.until("stage 1: 3 → 3")
        terminal.until("stage 1: 4 → 4")
        terminal.until("search>")
        terminal.type(":ti\t")
        terminal.until(":timings")
        terminal.type("\r")
        terminal.until("median of 1")
        terminal.until("search>")
        # Ctrl-C takes the line away, and nothing is searched.
        terminal.type("half a thou")
        terminal.until("thou")
        terminal.type("\x03")
        terminal.until("search>")
        # A paste of several lines is one line that waits for Enter.
        terminal.type("\x1b[200~yeast\n:quit\ndough\x1b[201~")
        terminal.until("yeast :quit dough")
        terminal.type("\r")
        terminal.until("candidates;")
        terminal.until("search>")
        terminal.type(" secret query\r")
        terminal.until("candidates;")
        terminal.until("search>")
        # The index is free while the prompt waits.
        terminal.type("\x04")
        assert terminal.end() == 0
    history = state / "two-stage-retrieval" / "search_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    remembered = history.read_text(encoding="utf-8")
    assert "+moon tide" in remembered
    assert "secret" not in remembered

    with Terminal.retrieval("search", "--index", index, "--no-rerank", "-k", 1, XDG_STATE_HOME=str(state)) as again:
        again.until("search>")
        for earlier in ("yeast :quit dough", ":timings", "moon tide"):
            again.type("\x1b[A")
            again.until(earlier)
        again.type("\r")
        again.until("candidates;")
        again.until("search>")
        again.type(":quit\r")
        assert again.end() == 0


def lines(index: Path, given: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pipelines",
        "search",
        "--index",
        str(index),
        "--no-rerank",
        *arguments,
    ]
    return subprocess.run(command, input=given, capture_output=True, cwd=ROOT, check=False)


def test_one_query_a_line_from_a_pipe(index: Path) -> None:
    done = lines(index, b"moon tide\n\n  \nyeast \xff dough\r\nescape lava", "--json", "-k", "1")
    assert (done.returncode, done.stderr) == (0, b"")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["query"] for record in records] == ["moon tide", "yeast \ufffd dough", "escape lava"]
    assert [record["hits"][0]["document_id"] for record in records][1:] == ["yeast", "evil"]
    done = lines(index, b"yeast\nmoon\n", "-k", "1")
    assert done.returncode == 0
    assert re.findall(rb"^> (\w+)$", done.stdout, re.MULTILINE) == [b"yeast", b"moon"]
    assert lines(index, b"").stdout == b""


def test_a_search_with_a_query_loads_no_prompt(index: Path) -> None:
    program = (
        "import sys\nfrom pipelines.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'prompt_toolkit', 'watchfiles', 'mcp'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program, "search", "moon", "--index", str(index), "--no-rerank"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
