"""Evaluation over the corpus that can be ranked on paper."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.evaluate import SYSTEMS, EvaluationReport, evaluate_collection
from retrieval.datatypes import Document
from retrieval.errors import ConfigError, DocumentError

# Query id, text, and the relevant documents.
JUDGED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "q1": ("copper pipe leak plumber", ("pipe-1",)),
    "q2": ("sour bread dough flour", ("bread-2", "bread-4")),
    "q3": ("vanilla", ("bread-4",)),
    "q4": ("submarine", ("star-1",)),
}
# BM25 ranks bread-1, bread-2, bread-3, bread-4 for q2 and nothing for q4; see `paper_rankings`.
NDCG_Q2 = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))


@pytest.fixture
def collection(tmp_path: Path, corpus: list[Document]) -> Path:
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": document.id, "title": "", "text": document.text} for document in corpus]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in documents))
    queries = [{"_id": query, "text": text} for query, (text, _) in JUDGED.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in queries))
    rows = [f"{query}\t{document}\t1\n" for query, (_, relevant) in JUDGED.items() for document in relevant]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def test_bm25_reaches_what_paper_says(collection: Path) -> None:
    report = evaluate_collection(collection)
    assert [system.name for system in report.systems] == list(SYSTEMS) == ["BM25", "static", "hybrid", "two-stage"]
    assert (report.queries, report.documents, report.passages, report.rejected) == (4, 12, 12, 0)
    bm25 = report.systems[0]
    assert bm25.per_query["nDCG@10"] == pytest.approx({"q1": 1.0, "q2": NDCG_Q2, "q3": 1.0, "q4": 0.0})
    assert bm25.per_query["RR@10"] == pytest.approx({"q1": 1.0, "q2": 0.5, "q3": 1.0, "q4": 0.0})
    # The query without results counts as zero.
    assert bm25.means["RR@10"] == pytest.approx(2.5 / 4)
    assert bm25.means["R@100"] == pytest.approx(3 / 4)
    low, high = bm25.intervals["R@100"]
    assert low <= 0.75 <= high
    assert [document for document, _ in bm25.run["q2"]] == ["bread-1", "bread-2", "bread-3", "bread-4"]
    assert bm25.run["q4"] == ()
    assert list(bm25.warnings.values()) == [1]


def test_the_rows_differ_in_what_they_use(collection: Path) -> None:
    bm25, static, hybrid, two_stage = evaluate_collection(collection).systems
    assert len(bm25.run["q3"]) == 1
    assert len(static.run["q3"]) == len(hybrid.run["q3"]) == len(two_stage.run["q3"]) == 12
    assert bm25.reranked == static.reranked == hybrid.reranked == 0
    assert two_stage.reranked > 0
    assert static.run != hybrid.run != two_stage.run
    for system in (bm25, static, hybrid, two_stage):
        assert 0 < system.latency.p50 <= system.latency.p95
        assert system.latency.queries_per_second > 0


def test_limit_and_measures(collection: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report = evaluate_collection(collection, limit=1, measures=["RR@3"], on_progress=lambda *step: steps.append(step))
    assert (report.queries, report.measures) == (1, ("RR@3",))
    assert report.systems[0].means == {"RR@3": 1.0}
    assert [stage for stage, _, _ in steps if not stage.startswith("ingest")][:2] == ["BM25: quality", "BM25: latency"]


def test_an_index_is_used_again_and_foreign_documents_are_refused(collection: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = evaluate_collection(collection, index=index, limit=1)
    second = evaluate_collection(collection, index=index, limit=1)
    assert first.passages == second.passages == 12
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.manifest.runs == 1
        pipeline.ingest([("foreign", "copper pipe leak plumber")])
    with pytest.raises(ConfigError, match="'foreign'"):
        evaluate_collection(collection, index=index, limit=1)


def test_mistakes_are_named_before_the_ingest(collection: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    with pytest.raises(ValueError, match="'best@10' is unknown"):
        evaluate_collection(collection, index=index, measures=["best@10"])
    with pytest.raises(ValueError, match="limit"):
        evaluate_collection(collection, index=index, limit=0)
    with pytest.raises(DocumentError, match=r"dev\.tsv"):
        evaluate_collection(collection, index=index, split="dev")
    assert not index.exists()


def test_the_command_gives_a_table_and_a_document(collection: Path) -> None:
    table = CliRunner().invoke(app, ["evaluate", str(collection)], env={"COLUMNS": "80"})
    assert table.exit_code == 0, table.stderr
    lines = table.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (head,) = [line for line in lines if "nDCG@10" in line]
    assert head.split() == ["nDCG@10", "95", "%", "R@100", "MRR@10", "queries/s", "p50", "ms", "p95", "ms"]
    (row,) = [line.split() for line in lines if line.startswith("BM25")]
    assert (row[1], row[3], row[4]) == (f"{(2 + NDCG_Q2) / 4:.3f}", "0.750", "0.625")

    done = CliRunner().invoke(app, ["evaluate", str(collection), "--limit", "2", "--json"])
    record = json.loads(done.stdout)
    assert record["systems"][0]["per_query"]["RR@10"] == {"q1": 1.0, "q2": 0.5}
    assert record["machine"]["cpus"] >= 1
    assert record["encoder"].startswith("starter-static@")
    assert set(record) == {field for field in EvaluationReport.__dataclass_fields__}
