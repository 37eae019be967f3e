"""`retrieval adapt` as people and machines see it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import TwoStagePipeline
from pipelines.render.adapt import adapt_progress
from retrieval.config import parse_config
from tests.adapt_corpus import documents, word, write_model
from tests.store_folders import quick_folder
from tests.test_adapt import copied, generations
from tests.test_cli import COLUMNS, run


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with quick_folder() as folder:
        settings = parse_config({"encoder": {"model": str(write_model(folder / "tiny"))}})
        with TwoStagePipeline.open(folder / "index", settings) as pipeline:
            pipeline.ingest(documents())
        yield folder


@pytest.fixture
def index(room: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        yield copied(room / "index", folder / "index")


def test_adapt_shows_the_check_and_the_way_back(index: Path) -> None:
    done = run("adapt", "--seconds", 3, "--index", index)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].split() == ["held-out", "queries", "number", "before", "after", "change", "95", "%"]
    assert any(line.startswith("sentence, static") for line in lines)
    assert "2 is live" in done.out
    assert "generation 1 is kept" in done.out
    back = lines[-1].strip()
    assert back == f"retrieval adapt --rollback --index {index}"
    info = run("info", "--index", index).out
    assert "adapted from tiny@" in info
    assert "generation 1 is kept for --rollback" in " ".join(info.split())
    checks = run("doctor", "--index", index)
    assert checks.code == 0, checks.out
    assert "generation 2" in checks.out
    undone = run(*shlex.split(back)[1:])
    assert undone.code == 0
    assert "1 is live" in undone.out
    assert "not adapted" in run("info", "--index", index).out


def test_machines_get_records(index: Path) -> None:
    adapted = json.loads(run("adapt", "--seconds", 3, "--index", index, "--json").out)
    assert (adapted["switched"], adapted["accepted"], adapted["generation"], adapted["previous"]) == (True, True, 2, 1)
    assert {"kind", "queries", "before", "after", "low", "high"} == set(adapted["rows"][0])
    info = json.loads(run("info", "--index", index, "--json").out)
    assert (info["generation"], info["dense_weight"]) == (2, adapted["dense_weight"])
    assert json.loads(run("adapt", "--rollback", "--index", index, "--json").out)["generation"] == 1
    assert json.loads(run("adapt", "--discard", "--index", index, "--json").out) == {"discarded": 2}
    assert json.loads(run("adapt", "--discard", "--index", index, "--json").out) == {"discarded": None}
    assert generations(index) == ["1"]
    refused = run("adapt", "--rollback", "--index", index)
    assert refused.code == 1
    assert "has no previous generation to return to" in refused.err


def test_a_dry_run_says_so(index: Path) -> None:
    before = (index / "manifest.json").read_bytes()
    done = run("adapt", "--dry-run", "--seconds", 3, "--index", index)
    assert done.code == 0, done.err
    assert "nothing was changed" in done.out
    assert (index / "manifest.json").read_bytes() == before


def test_a_search_after_adapting_uses_the_adapted_encoder(index: Path) -> None:
    run("adapt", "--seconds", 3, "--index", index)
    found = json.loads(
        run("search", word(3, 0), "--first-stage", "dense", "--no-rerank", "-k", 5, "--index", index, "--json").out
    )
    assert all(word(3, 0) in hit["text"].lower() or word(3, 1) in hit["text"].lower() for hit in found["hits"])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--rollback", "--discard"), 2, "--rollback and --discard stand alone"),
        (("--rollback", "--force"), 2, "--rollback and --discard stand alone"),
        (("--seconds", "0"), 2, "--seconds is above 0, not 0"),
        (("--seconds", "-3"), 2, "--seconds is above 0, not -3"),
        (("--teacher", "nowhere/at all"), 1, "model 'nowhere/at all' is neither bundled"),
        (("--seconds", "soon"), 2, "Invalid value for '--seconds'"),
    ],
)
def test_mistakes_are_one_sentence(index: Path, options: tuple[str, ...], code: int, message: str) -> None:
    done = run("adapt", *options, "--index", index)
    assert (done.code, message in " ".join(done.err.split())) == (code, True), done.err
    assert generations(index) == ["1"]


def test_a_missing_or_small_index_is_an_error(tmp_path: Path, room: Path) -> None:
    missing = run("adapt", "--index", tmp_path / "none")
    assert missing.code == 1
    assert "there is no index" in missing.err
    (tmp_path / "one.txt").write_text("a single text about tides")
    run("ingest", tmp_path / "one.txt", "--index", tmp_path / "index")
    small = run("adapt", "--index", tmp_path / "index")
    assert small.code == 1
    assert "has 1 passages, too few to learn from" in " ".join(small.err.split())
    assert "ingest more documents first" in " ".join(small.err.split())


def test_nobody_watching_gets_no_bar() -> None:
    with adapt_progress(quiet=False) as show:
        assert show is None
