"""The demo over the documentation of this Python, with the bundled models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.demo import QUESTIONS
from pipelines.python_docs import MODULES, python_documents

# What somebody who knows Python would answer to `QUESTIONS`.
ANSWERS = (
    "datetime.date.fromisoformat",
    "random.Random.choice",
    "contextlib.closing",
    "math.isclose",
    "subprocess.getoutput",
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    index = tmp_path_factory.mktemp("demo") / "index"
    done = CliRunner().invoke(app, ["demo", "--keep", str(index), "--json"])
    assert done.exit_code == 0, done.stderr
    return index, json.loads(done.stdout)


def test_the_documentation_is_the_same_every_time_and_complete() -> None:
    documents = list(python_documents())
    assert documents == list(python_documents())
    names = [document.id for document in documents]
    assert len(set(names)) == len(names) > 2000
    assert {"builtins.sorted", "subprocess.run", "os.path.join", "contextlib.closing"} <= set(names)
    by_name = {document.id: document for document in documents}
    assert "stable" in by_name["builtins.list.sort"].text
    assert by_name["builtins.list.sort"].metadata == {"module": "builtins", "kind": "method"}
    assert by_name["json"].metadata == {"module": "json", "kind": "module"}
    assert {document.metadata["kind"] for document in documents} >= {"module", "class", "function", "method"}
    assert not {"antigravity", "this", "idlelib", "turtle"} & set(MODULES)


def test_every_question_is_answered_by_both_stages(kept: tuple[Path, dict[str, object]]) -> None:
    _, record = kept
    answers = record["answers"]
    assert isinstance(answers, list)
    assert [answer["question"] for answer in answers] == list(QUESTIONS)
    for answer in answers:
        hits = answer["results"]["hits"]
        assert len(hits) == len(answer["first_stage"]) == len(answer["first_stage_places"]) == 5
        assert answer["results"]["reranked"] > 0
        assert answer["results"]["warnings"] == []
        assert [hit["rank"] for hit in answer["first_stage"]] == [1, 2, 3, 4, 5]
        tops = {hit["document_id"]: hit["rank"] for hit in answer["first_stage"]}
        for hit, place in zip(hits, answer["first_stage_places"], strict=True):
            assert tops.get(hit["document_id"], place) == place
    for answer, expected in zip(answers, ANSWERS, strict=True):
        assert expected in [hit["document_id"] for hit in answer["results"]["hits"]]


def test_for_people_it_fits_the_screen_and_says_what_to_do_next(kept: tuple[Path, dict[str, object]]) -> None:
    index, record = kept
    done = CliRunner().invoke(app, ["demo", "--keep", str(index)], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.stderr
    assert f"{record['documents']:,} documents" in done.stdout
    assert "all there already" in done.stdout
    *shown, third, second, first = done.stdout.splitlines()
    assert max(map(len, shown)) <= 80
    assert [line.split()[:2] for line in (third, second, first)] == [
        ["retrieval", "ingest"],
        ["retrieval", "search"],
        ["retrieval", "doctor"],
    ]
    for question in QUESTIONS:
        assert question in done.stdout
