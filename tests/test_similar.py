"""The nearest documents of a document: without itself, by both arms, with the reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from retrieval.config import Config
from retrieval.datatypes import Document
from retrieval.errors import StoreInputError
from tests.conftest import paper_corpus


@pytest.fixture(scope="module")
def pipeline() -> Iterator[TwoStagePipeline]:
    with TwoStagePipeline.open(config=Config.model_validate({"store": {"kind": "memory"}})) as opened:
        opened.ingest(paper_corpus())
        yield opened


def test_bm25_ranks_by_the_words_that_are_shared(pipeline: TwoStagePipeline) -> None:
    found = pipeline.similar("pipe-1", 3, first_stage="bm25")
    # Three words shared, two, one; the document itself shares eight.
    assert [one.document_id for one in found.documents] == ["pipe-2", "pipe-3", "pipe-4"]
    assert [set(one.shared_words) for one in found.documents] == [
        {"copper", "pipe", "leak"},
        {"copper", "pipe"},
        {"copper"},
    ]
    # The rarest word weighs most: two documents have "leak", three "pipe", four "copper".
    assert found.documents[0].shared_words == ("leak", "pipe", "copper")
    assert "dense" not in found.documents[0].arms


def test_dense_scores_are_cosines(pipeline: TwoStagePipeline) -> None:
    texts = {document.id: document.text for document in paper_corpus()}
    found = pipeline.similar("star-1", 11, first_stage="dense")
    assert "star-1" not in {one.document_id for one in found.documents}
    assert len(found.documents) == 11
    own = pipeline.encoder.encode_documents([texts["star-1"]])[0]
    for one in found.documents:
        cosine = float(own @ pipeline.encoder.encode_documents([texts[one.document_id]])[0])
        assert one.score == pytest.approx(max(cosine, 0.0), abs=1e-5)
    assert [one.score for one in found.documents] == sorted((one.score for one in found.documents), reverse=True)


def test_hybrid_has_both_arms_and_keeps_to_the_filter(pipeline: TwoStagePipeline) -> None:
    found = pipeline.similar("bread-1")
    assert (found.first_stage, found.asked, found.passages, len(found.documents)) == ("hybrid", 1, 1, 5)
    assert found.documents[0].document_id == "bread-2"
    assert set(found.documents[0].arms) == {"dense", "bm25"}
    where = {"must": [{"key": "metadata.topic", "match": {"value": "pipe"}}]}
    assert {one.document_id.split("-")[0] for one in pipeline.similar("bread-1", where=where).documents} == {"pipe"}


def test_a_document_of_many_passages_asks_with_all_of_them() -> None:
    config = Config.model_validate({"store": {"kind": "memory"}, "chunking": {"max_tokens": 16, "overlap_tokens": 0}})
    corpus = {document.id: document for document in paper_corpus()}
    both = "\n\n".join([corpus["pipe-1"].text, corpus["star-1"].text, corpus["star-2"].text])
    with TwoStagePipeline.open(config=config) as pipeline:
        pipeline.ingest([Document("both", both), *corpus.values()])
        found = pipeline.similar("both", 3, first_stage="dense")
    assert found.passages == found.asked >= 2
    assert "both" not in {one.document_id for one in found.documents}
    star = next(one for one in found.documents if one.document_id == "star-1")
    assert "telescope" in star.like
    # Every passage compares itself with all others; what is unlike counts as zero.
    assert star.found_by == found.asked


def test_what_cannot_be_found_is_said(pipeline: TwoStagePipeline) -> None:
    with pytest.raises(StoreInputError, match="nowhere"):
        pipeline.similar("nowhere")
    with pytest.raises(ValueError, match="top_k"):
        pipeline.similar("pipe-1", 0)
    with pytest.raises(ValueError, match="first_stage"):
        pipeline.similar("pipe-1", first_stage="both")  # type: ignore[arg-type]


def test_a_document_alone_is_like_nothing() -> None:
    with TwoStagePipeline.open(config=Config.model_validate({"store": {"kind": "memory"}})) as pipeline:
        pipeline.ingest([("only", "one document alone")])
        assert pipeline.similar("only").documents == ()


def test_the_command_line(tmp_path: Path) -> None:
    index = tmp_path / "index"
    with TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest(paper_corpus())
    runner = CliRunner()
    shown = runner.invoke(app, ["similar", "pipe-1", "--index", str(index), "-k", "2"])
    assert shown.exit_code == 0
    assert "shared: leak, pipe, copper" in shown.stdout
    assert "like pipe-1; its only passage asked, hybrid" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    record = json.loads(runner.invoke(app, ["similar", "pipe-1", "--index", str(index), "--json"]).stdout)
    assert record["documents"][0]["document_id"] == "pipe-2"
    missing = runner.invoke(app, ["similar", "nowhere", "--index", str(index)])
    assert (missing.exit_code, "nowhere" in missing.output) == (1, True) or missing.exit_code == 2
