"""`retrieval calibrate` and what `retrieval search` does with it, as people call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.cli import app

CONFIG = ("--set", "store.min_free_mb=0")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*arguments, *CONFIG])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    texts = {
        "broken": "The pipe under the sink is broken. Water runs into the cupboard.",
        "whole": "The pipe under the sink is not broken. Water runs into the cupboard.",
        "bread": "Yeast makes dough rise. Let it rest for an hour in a warm place.",
    }
    lines = [json.dumps({"_id": name, "text": text}) for name, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    assert run("ingest", str(folder / "corpus.jsonl"), "--index", str(folder / "index"))[0] == 0
    return folder / "index"


def searched(index: Path, query: str, *arguments: str) -> dict[str, Any]:
    code, out, _ = run("search", query, "--index", str(index), "--json", *arguments)
    assert code == 0
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_a_threshold_is_stored_used_and_erased(index: Path) -> None:
    query = "is the pipe under the sink broken"
    code, _, error = run("search", query, "--index", str(index), "--min-score", "auto")
    assert code == 2
    assert "'retrieval calibrate' stores one" in error
    code, out, _ = run("calibrate", "--index", str(index), "--target-precision", "0.9", "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["labels"], report["threshold"]["target"], report["stored"]) == ("model", 0.9, True)
    found = searched(index, query, "--min-score", "auto")
    bound = report["threshold"]["probability"]
    assert found["answered"] is True
    assert [hit["document_id"] for hit in found["hits"]][:1] == ["broken"]
    assert all(hit["probability"] >= bound for hit in found["hits"])
    nothing = searched(index, "who won the world cup", "--min-score", "auto")
    assert (nothing["hits"], nothing["answered"]) == ([], False)
    assert any("no good answer: the best probability" in warning for warning in nothing["warnings"])
    assert "from probability 0.54 on, for a precision of 0.9" in run("info", "--index", str(index))[1]
    assert run("calibrate", "--index", str(index), "--off")[1] == "erased\n"
    assert searched(index, query)["answered"] is None


def test_the_result_names_the_twins_whose_order_is_open(index: Path) -> None:
    results = searched(index, "water in the cupboard", "--depth", "1", "--exact")
    assert results["reranked"] == 2
    twins = {hit["document_id"]: hit["rerank_score"] for hit in results["hits"]}
    assert twins["broken"] is not None
    assert twins["whole"] is not None
    named = any(warning.startswith("order not settled: hits 1 and 2") for warning in results["warnings"])
    assert named is not results["settled"]


def test_everything_fits_into_eighty_columns(index: Path) -> None:
    code, out, _ = run("calibrate", "--index", str(index))
    assert code == 0
    assert "threshold" in out
    code, found, _ = run("search", "pipe under the sink", "--index", str(index), "--explain")
    assert "prob." in found
    assert max(map(len, (out + found).splitlines())) <= 80
    run("calibrate", "--index", str(index), "--off")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--queries", "missing.txt"), "name them with --qrels"),
        (("--target-precision", "0.85"), "no threshold for a precision of 0.85"),
        (("--sample", "5"), "the threshold is the model's"),
        (("--off", "--sample", "5"), "--off stands alone"),
    ],
)
def test_bad_usage_is_said_in_a_sentence(index: Path, arguments: tuple[str, ...], words: str) -> None:
    code, _, error = run("calibrate", "--index", str(index), *arguments)
    assert code == 2
    assert words in " ".join(error.split())


@pytest.mark.parametrize("value", ["often", "1.5", "nan"])
def test_min_score_is_a_probability(index: Path, value: str) -> None:
    code, _, error = run("search", "pipe", "--index", str(index), "--min-score", value)
    assert code == 2
    assert "probability from 0 to 1 or 'auto'" in error
