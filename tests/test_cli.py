"""The command line over a real index: what people see, what machines get, exit codes and errors."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from retrieval import __version__

TEXTS = {
    "pipe.txt": "A leaking pipe under the sink can be sealed with epoxy putty until the plumber arrives.",
    "yeast.txt": "Yeast turns sugar into carbon dioxide, and this gas makes dough rise.",
    "moon.md": "# Tides\n\n## Causes\n\nThe moon pulls the oceans and so causes the tides twice a day.",
    "whale.md": "# Whales\n\nThe blue whale is the largest animal that has ever lived on earth.",
    "evil.txt": "An escape \x1b]0;owned\x07 sequence \x1b[31m in a text about volcanoes and lava.",
    "long.txt": "Glaciers move slowly. " * 30 + "Avalanches fall fast. " + "Snow melts in spring. " * 30,
}
COLUMNS = 80
COMMANDS = ["ingest", "search", "evaluate", "info", "doctor", "delete", "demo", "mine", "distill"]
COMMANDS += ["push", "pull", "plan", "quantize", "datasets"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run(*arguments: object, **environment: str) -> Done:
    result = CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": str(COLUMNS), **environment}
    )
    return Done(result.exit_code, result.stdout, result.stderr)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "pipelines", *map(str, arguments)]


def write(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    done = run("ingest", write(root / "texts", TEXTS), "--index", root / "index")
    assert done.code == 0, done.err
    return root / "index"


@pytest.fixture
def copy(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "index"))


def test_version() -> None:
    assert run("--version") == Done(0, f"retrieval {__version__}\n", "")


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    program = (
        "import sys\nfrom pipelines.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'numpy', 'onnxruntime', 'tokenizers', 'qdrant_edge', 'pydantic', 'rich.console'} & set(sys.modules)\n"
        "sys.exit(f'exit code {code}, loaded {sorted(heavy)}' if code or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in (*COMMANDS, "snapshot"):
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_shared_options(name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    for option in ("--index", "--config", "--set", "--json", "--debug", "--quiet"):
        assert option in done.out


def test_ingest_counts_and_says_when_nothing_changed(tmp_path: Path) -> None:
    texts, index = write(tmp_path / "texts", TEXTS), tmp_path / "index"
    first = json.loads(run("ingest", texts, "--index", index, "--json").out)
    assert (first["added"], first["changed"], first["unchanged"], first["rejected"]) == (6, 0, 0, [])
    assert first["passages_per_second"] > 0
    again = run("ingest", texts, "--index", index)
    assert again.code == 0
    assert "nothing changed: all 6 documents" in again.out
    (texts / "pipe.txt").write_text("A rubber clamp stops a leaking pipe.", encoding="utf-8")
    (texts / "moon.md").unlink()
    synced = json.loads(run("ingest", texts, "--sync", "--index", index, "--json").out)
    assert [synced[name] for name in ("added", "changed", "unchanged", "removed")] == [0, 1, 4, 1]


def test_ingest_of_several_paths_is_one_report(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a.txt": "The first text."})
    two = write(tmp_path / "two", {"b.txt": "The second text.", "c.txt": "The third text.", "d.txt": "  "})
    report = json.loads(run("ingest", one, two, "--index", tmp_path / "index", "--json").out)
    assert (report["added"], report["rejected_count"], report["passages"]) == (3, 1, 3)


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts", {"a.txt": "One text about the tides."})
    done = run("ingest", texts, "--index", tmp_path / "index", FORCE_COLOR="1", TERM="xterm")
    assert "1 documents" in done.err
    for options in (("--quiet",), ()):
        environment = {"FORCE_COLOR": "1", "TERM": "xterm"} if options else {}
        done = run("ingest", texts, "--index", tmp_path / "index", *options, **environment)
        assert (done.code, done.err) == (0, "")


def test_an_index_inside_the_folder_is_not_read(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts", {"a.txt": "Only this text is a document."})
    for expected in ((1, 0), (0, 1)):
        report = json.loads(run("ingest", texts, "--index", texts / "index", "--json").out)
        assert (report["added"], report["unchanged"], report["rejected_count"]) == (*expected, 0)


def test_rejections_are_shown_counted_and_written(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts", {"good.txt": "A usable text."} | {f"empty-{n:02}.txt": " " for n in range(13)})
    listing = tmp_path / "rejected.jsonl"
    done = run("ingest", texts, "--index", tmp_path / "index", "--rejected", listing)
    assert done.code == 0
    assert done.out.count("is empty") == 10
    assert "and 3 more" in done.out
    records = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
    assert sorted(Path(record["source"]).name for record in records) == [f"empty-{n:02}.txt" for n in range(13)]


@pytest.mark.parametrize("texts", [{"empty.txt": "  "}, {}], ids=["unusable", "no files"])
def test_ingest_fails_when_nothing_could_be_used(tmp_path: Path, texts: dict[str, str]) -> None:
    done = run("ingest", write(tmp_path / "texts", texts), "--index", tmp_path / "index", "--json")
    assert done.code == 1
    assert json.loads(done.out)["added"] == 0
    assert done.err.startswith("error: ")


def test_columns_of_a_table_can_be_named(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("no,said,topic\n7,The moon causes tides.,sea\n8,Yeast makes dough rise.,food\n", encoding="utf-8")
    options = (
        "--text-column",
        "said",
        "--id-column",
        "no",
        "--metadata-column",
        "topic",
        "--index",
        tmp_path / "index",
    )
    assert run("ingest", table, *options).code == 0
    done = run("search", "dough", "--index", tmp_path / "index", "--json", "--no-rerank", "-k", 1)
    (hit,) = json.loads(done.out)["hits"]
    assert (hit["document_id"], hit["metadata"]) == ("8", {"topic": "food"})


def test_search_as_json_has_everything(index: Path) -> None:
    done = run("search", "what causes the tides", "--index", index, "--json", "--top-k", 2)
    assert (done.code, done.err) == (0, "")
    record = json.loads(done.out)
    assert set(record) == {
        "query", "hits", "timings", "reranked", "stopped", "candidates", "warnings", "settled", "answered"
    }  # fmt: skip
    assert len(record["hits"]) == 2
    best = record["hits"][0]
    assert (best["document_id"], best["rank"], best["first_stage_rank"]) == ("moon.md", 1, 1)
    assert best["headings"] == ["Tides", "Causes"]
    assert best["arms"]["bm25"]["rank"] == 1
    assert isinstance(best["arms"]["dense"]["score"], float)
    assert isinstance(best["rerank_score"], float)
    assert set(record["timings"]) == {"encode", "retrieve", "rerank", "total"}
    assert record["stopped"] in {"complete", "settled", "likely"}


def test_search_for_people_shows_the_hit_the_movement_and_the_time(index: Path) -> None:
    done = run("search", "what causes the tides", "--index", index)
    assert done.code == 0
    assert "Tides \u203a Causes" in done.out
    assert "stage 1: 1 \u2192 1" in done.out
    assert "The moon pulls the oceans" in " ".join(done.out.split())
    assert "the cross-encoder read" in done.out
    assert max(map(len, done.out.splitlines())) <= COLUMNS


def test_explain_shows_the_numbers(index: Path) -> None:
    done = run("search", "what causes the tides", "--index", index, "--explain", "-k", 1)
    assert re.search(r"dense +bm25 +fused +logit +prob\. +final +read", done.out)
    assert re.search(r"#1 \S+ +#1 \S+ +#1 1\.000 ", done.out)
    assert "ignored by BM25: what, the" in done.out
    terms = json.loads(run("search", "what causes the tides", "--index", index, "--explain", "--json").out)["terms"]
    assert terms == {"known": ["what", "causes", "the", "tides"], "unknown": [], "ignored": ["what", "the"]}


def test_words_are_highlighted_by_their_stem(index: Path) -> None:
    done = run("search", "doughs rising", "--index", index, "-k", 1, FORCE_COLOR="1", TERM="xterm")
    styled = re.findall(r"\x1b\[1;36m([^\x1b]+)\x1b\[0m", done.out)
    assert styled == ["dough", "rise"]


def test_no_color_is_obeyed(index: Path) -> None:
    color = re.compile(r"\x1b\[(?:\d+;)*3\d")
    coloured = run("search", "tides", "--index", index, FORCE_COLOR="1", TERM="xterm")
    assert color.search(coloured.out)
    plain = run("search", "tides", "--index", index, FORCE_COLOR="1", TERM="xterm", NO_COLOR="1")
    assert not color.search(plain.out)


def test_a_document_cannot_write_to_the_terminal(index: Path) -> None:
    done = run("search", "volcanoes and lava", "--index", index, "-k", 1)
    assert "volcanoes" in done.out
    assert not {"\x1b", "\x07"} & set(done.out)


def test_the_snippet_is_the_part_that_matches(index: Path) -> None:
    done = run("search", "avalanches fall", "--index", index, "-k", 1, "--no-rerank")
    assert "Avalanches fall fast." in " ".join(done.out.split())


def test_filters_and_thresholds_reach_the_search(index: Path) -> None:
    where = '{"must": [{"key": "metadata.extension", "match": {"value": ".md"}}]}'
    hits = json.loads(run("search", "earth and moon", "--index", index, "--where", where, "--json").out)["hits"]
    assert {hit["document_id"] for hit in hits} == {"moon.md", "whale.md"}
    assert json.loads(run("search", "moon", "--index", index, "--min-score", 1, "--json").out)["hits"] == []
    refused = run("search", "moon", "--index", index, "--min-score", 99)
    assert refused.code == 2
    assert "99" in refused.err


def test_warnings_go_to_stderr(index: Path) -> None:
    done = run("search", "", "--index", index)
    assert (done.code, "no hits" in done.out, done.err) == (0, True, "warning: the query is empty\n")


def test_settings_of_the_index_hold_unless_they_are_overridden(tmp_path: Path) -> None:
    texts, index = write(tmp_path / "texts", TEXTS), tmp_path / "index"
    assert run("ingest", texts, "--index", index, "--set", "encoder.dimensions=64").code == 0
    assert run("search", "tides", "--index", index, "--set", "search.top_k=1").code == 0
    assert json.loads(run("info", "--index", index, "--json").out)["encoder"]["dim"] == 64
    wrong = run("search", "tides", "--index", index, "--set", "encoder.dimensions=128")
    assert wrong.code == 1
    assert "64 dims" in wrong.err
    assert "128 dims" in wrong.err


def test_a_configuration_file_names_the_index(index: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"store": {"kind": "edge", "path": str(index)}, "search": {"top_k": 1}}))
    assert len(json.loads(run("search", "tides", "--config", file, "--json").out)["hits"]) == 1
    both = run("search", "tides", "--config", file, "--index", tmp_path / "other")
    assert both.code == 2
    assert "different folders" in both.err


def test_info_reads_the_manifest(index: Path) -> None:
    record = json.loads(run("info", "--index", index, "--json").out)
    assert (record["documents"], record["passages"], record["state"], record["runs"]) == (6, 6, "ready", 1)
    assert 0 < record["bytes_on_disk"] < 64 * 2**20
    done = run("info", "--index", index)
    assert re.search(r"documents +6", done.out)
    assert max(map(len, done.out.splitlines())) <= COLUMNS


def test_delete_removes_what_it_names(copy: Path) -> None:
    done = run("delete", "moon.md", "unknown", "--index", copy, "--json")
    assert (done.code, json.loads(done.out)) == (0, {"removed": 1, "asked": 2})
    assert json.loads(run("info", "--index", copy, "--json").out)["documents"] == 5
    again = run("delete", "moon.md", "--index", copy)
    assert again.code == 1
    assert "'moon.md'" in again.err


ERRORS = {
    "search x --index TMP/none": (1, "there is no index in TMP/none; make one with 'retrieval ingest PATH --index"),
    "info --index TMP/none": (1, "there is no index in TMP/none"),
    "delete x --index TMP/none": (1, "there is no index in TMP/none"),
    "search x --index INDEX --set rerank.dept=3": (2, "unknown key rerank.dept; allowed here: batch_size,"),
    "search x --index INDEX --set depth": (2, "'depth' is not of the form section.key=value"),
    "search x --index INDEX --where '{bad'": (2, "--where '{bad' is not JSON"),
    "search x --index INDEX --where []": (2, "--where takes a JSON object"),
    'search x --index INDEX --where \'{"must": [{"kex": 1}]}\'': (2, "kex"),
    "search x --index INDEX --budget-ms -1": (2, "budget_ms is above 0, not -1"),
    "search x --config TMP/none.yaml": (2, "cannot read configuration TMP/none.yaml"),
    "search x --set store.kind=memory": (2, "keeps nothing from one command to the next"),
    "ingest TMP/none --index TMP/new": (2, "there is no file or folder TMP/none"),
    "ingest TMP/table.csv --text-column body --index TMP/new": (1, "body"),
    "ingest TMP/table.csv --encoding utf-99 --index TMP/new": (1, "utf-99"),
}


@pytest.mark.parametrize("line", list(ERRORS))
def test_errors_are_one_sentence(line: str, index: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id,text\n1,Some words.\n", encoding="utf-8")
    code, sentence = ERRORS[line]
    done = run(*shlex.split(line.replace("TMP", str(tmp_path)).replace("INDEX", str(index))))
    assert done.code == code, done
    assert sentence.replace("TMP", str(tmp_path)) in done.out + done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "none").exists()


def test_debug_shows_the_traceback_and_json_holds_the_error(tmp_path: Path) -> None:
    done = run("search", "x", "--index", tmp_path / "none", "--debug", "--json")
    assert "Traceback" in done.err
    record = json.loads(done.out)
    assert record["exit_code"] == done.code == 1
    assert "there is no index" in record["error"]


def test_a_damaged_manifest_is_named(copy: Path) -> None:
    (copy / "manifest.json").write_text('{"schema_version": 1')
    done = run("search", "x", "--index", copy)
    assert done.code == 1
    assert "manifest.json" in done.err


def test_an_index_in_use_names_its_owner(index: Path) -> None:
    program = (
        "import sys\nfrom pipelines import TwoStagePipeline\n"
        "pipeline = TwoStagePipeline.open(sys.argv[1])\nprint('open', flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(index)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        done = run("ingest", __file__, "--index", index)
        assert done.code == 1
        assert f"process {owner.pid}" in done.err
        assert run("info", "--index", index).code == 0
        owner.communicate("\n")


def test_a_reader_that_goes_away_is_no_error(index: Path) -> None:
    with subprocess.Popen(
        command("search", "tides", "--index", index, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_output_that_cannot_be_written_is_an_error(index: Path, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("search", "tides", "--index", index, *options),
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_an_interrupted_ingest_says_how_to_go_on(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"  # seconds of work, so that the signal comes in the middle
    lines = (json.dumps({"id": str(n), "text": f"Text {n} about the tides and the moon."}) for n in range(12_000))
    texts.write_text("\n".join(lines), encoding="utf-8")
    index = tmp_path / "index"
    # Whoever runs the tests in the background may have them ignore the signal, and that is inherited.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    arguments = [sys.executable, "-c", listening + "from pipelines.cli import main; main()"]
    arguments += ["ingest", str(texts), "--index", str(index)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        while not (index / "generations/1/engine").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped; run the same command again to go on\n"
    finished = json.loads(run("ingest", texts, "--index", index, "--json").out)
    assert finished["added"] + finished["unchanged"] == 12_000
    assert json.loads(run("info", "--index", index, "--json").out)["state"] == "ready"
