"""Evaluation over the corpus that can be ranked on paper."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipelines import TwoStagePipeline
from pipelines.cli import app
from pipelines.evaluation import (
    SYSTEMS,
    CollectionReport,
    EvaluateOptions,
    Evaluation,
    evaluate_collection,
    evaluate_runs,
)
from retrieval.config import parse_config
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
    (setup,) = report.setups
    assert (len(report.queries), setup.documents, setup.passages, setup.rejected) == (4, 12, 12, 0)
    bm25 = report.systems[0]
    assert bm25.per_query["nDCG@10"] == pytest.approx({"q1": 1.0, "q2": NDCG_Q2, "q3": 1.0, "q4": 0.0})
    assert bm25.per_query["RR@10"] == pytest.approx({"q1": 1.0, "q2": 0.5, "q3": 1.0, "q4": 0.0})
    # The query without results counts as zero.
    assert bm25.means["RR@10"] == pytest.approx(2.5 / 4)
    assert bm25.means["R@100"] == pytest.approx(3 / 4)
    low, high = bm25.intervals["R@100"]
    assert low <= 0.75 <= high
    assert [document for document, _ in bm25.run["q2"]] == ["bread-1", "bread-2", "bread-3", "bread-4"]
    assert (bm25.run["q4"], bm25.unanswered) == ((), 1)
    assert list(bm25.warnings.values()) == [1]


def test_the_rows_differ_in_what_they_use(collection: Path) -> None:
    bm25, static, hybrid, two_stage = evaluate_collection(collection).systems
    assert len(bm25.run["q3"]) == 1
    assert len(static.run["q3"]) == len(hybrid.run["q3"]) == len(two_stage.run["q3"]) == 12
    assert bm25.reranked == static.reranked == hybrid.reranked == 0
    assert two_stage.reranked > 0
    assert static.run != hybrid.run != two_stage.run
    for system in (bm25, static, hybrid, two_stage):
        assert system.latency is not None
        assert 0 < system.latency.p50 <= system.latency.p95
        assert system.latency.queries_per_second > 0


def test_limit_and_measures(collection: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    options = EvaluateOptions(limit=1, measures=("RR@3",))
    report = evaluate_collection(collection, options=options, on_progress=lambda *step: steps.append(step))
    assert (report.queries, report.measures) == ({"q1": "copper pipe leak plumber"}, ("RR@3",))
    assert report.systems[0].means == {"RR@3": 1.0}
    assert [stage for stage, _, _ in steps if not stage.startswith("ingest")][:2] == ["BM25: quality", "BM25: latency"]


def test_bytes_by_hand_and_the_cost_of_a_million(collection: Path) -> None:
    report = evaluate_collection(collection, options=EvaluateOptions(limit=2, price_per_hour=0.36))
    # 256 floats of four bytes; eight different words of eight bytes each.
    assert [system.bytes_per_passage for system in report.systems] == [64, 1024, 1088, 1088]
    for system in report.systems:
        assert system.latency is not None
        # 0.36 an hour are 0.0001 a second, so 100 for each second that a query takes.
        assert system.cost_per_million == pytest.approx(100 / system.latency.queries_per_second)


def test_bytes_of_compressed_vectors(collection: Path) -> None:
    """An unknown query says nothing about how vectors are stored."""
    (collection / "qrels" / "test.tsv").write_text("q4\tstar-1\t1\n")
    binary = parse_config({"quantization": {"kind": "binary", "bits": 1}, "first_stage": {"arms": "dense"}})
    report = evaluate_collection(collection, binary)
    # 256 bits are 32 bytes.
    assert [system.bytes_per_passage for system in report.systems] == [64, 32, 96, 96]


def test_other_configurations_are_rows_beside_ours(collection: Path, tmp_path: Path) -> None:
    alone = {"enabled": False}
    lexical = parse_config({"first_stage": {"arms": "bm25"}, "rerank": alone})
    short = parse_config({"encoder": {"dimensions": 64}, "first_stage": {"arms": "dense"}, "rerank": alone})
    index = tmp_path / "index"
    options = EvaluateOptions(systems={"lexical": lexical, "short": short}, baseline="lexical")
    report = evaluate_collection(collection, index=index, options=options)
    bm25, static, _, _, again, truncated = report.systems
    assert [system.setup for system in report.systems] == [0, 0, 0, 0, 1, 2]
    assert again.run == bm25.run
    assert (again.bytes_per_passage, truncated.bytes_per_passage) == (64, 256)
    assert truncated.run != static.run
    # The first shares our index, the second needs one of its own; ours is not touched by it.
    assert report.setups[1].encoder == report.setups[0].encoder != report.setups[2].encoder
    with TwoStagePipeline.open(index) as pipeline:
        assert (pipeline.manifest.runs, pipeline.encoder.dim) == (1, 256)
    assert {one.system for one in report.comparisons} == {"BM25", "static", "hybrid", "two-stage", "short"}
    same = report.against_baseline("BM25", "nDCG@10")
    assert same is not None
    assert (same.difference, same.gained, same.lost) == (0.0, 0, 0)
    assert same.verdict == "not distinguishable with 4 queries"


def test_a_run_from_elsewhere_is_a_row(collection: Path) -> None:
    run = {"q2": (("bread-2", 2.0), ("bread-4", 1.0)), "unjudged": (("pipe-1", 1.0),)}
    report = evaluate_collection(collection, options=EvaluateOptions(runs={"elsewhere": run}))
    system = report.systems[-1]
    assert system.per_query["nDCG@10"] == {"q1": 0.0, "q2": 1.0, "q3": 0.0, "q4": 0.0}
    assert (system.means["nDCG@10"], system.unanswered, system.setup) == (0.25, 3, None)
    assert (system.latency, system.bytes_per_passage, system.cost_per_million) == (None, None, None)
    against = report.against_baseline("elsewhere", "nDCG@10")
    assert against is not None
    assert against.difference == pytest.approx((0 + 1 + 0 + 0) / 4 - (2 + NDCG_Q2) / 4)
    assert (against.gained, against.lost) == (1, 2)


def test_runs_alone_need_no_collection(tmp_path: Path) -> None:
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("".join(f"q{number} 0 d{number} 1\n" for number in range(8)))
    right = {f"q{number}": ((f"d{number}", 1.0),) for number in range(8)}
    report = evaluate_runs(EvaluateOptions(qrels=qrels, runs={"none": {"q0": (("x", 1.0),)}, "right": right}))
    assert [system.means["nDCG@10"] for system in report.systems] == [0.0, 1.0]
    assert (report.baseline, report.setups, report.timed_queries) == ("none", (), 0)
    # p = 2/256 for each of three measures.
    assert [(one.outcome, one.p_corrected) for one in report.comparisons] == [("better", 6 / 256)] * 3
    with pytest.raises(ValueError, match="judgements and runs are needed"):
        evaluate_runs(EvaluateOptions(runs={"right": right}))


def test_an_index_is_used_again_and_foreign_documents_are_refused(collection: Path, tmp_path: Path) -> None:
    index, once = tmp_path / "index", EvaluateOptions(limit=1)
    first = evaluate_collection(collection, index=index, options=once)
    second = evaluate_collection(collection, index=index, options=once)
    assert first.setups[0].passages == second.setups[0].passages == 12
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.manifest.runs == 1
        pipeline.ingest([("foreign", "copper pipe leak plumber")])
    with pytest.raises(ConfigError, match="'foreign'"):
        evaluate_collection(collection, index=index, options=once)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"measures": ("best@10",)}, "'best@10' is unknown"),
        ({"measures": ()}, "at least one measure"),
        ({"limit": 0}, "limit is at least 1"),
        ({"price_per_hour": 0.0}, "price_per_hour is a number above 0"),
        ({"price_per_hour": math.nan}, "price_per_hour is a number above 0"),
        ({"baseline": "best"}, "baseline 'best' is none of the systems: BM25, static, hybrid, two-stage"),
        ({"runs": {"bm25": {"q1": ()}}}, "two systems are called 'BM25'"),
        ({"runs": {"..": {"q1": ()}}}, "no letter or digit"),
        ({"runs": {"other": {"x1": ()}}}, "'other' has no results for any of the 4 judged queries"),
    ],
)
def test_mistakes_are_named_before_the_ingest(
    options: dict[str, Any], told: str, collection: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        evaluate_collection(collection, index=tmp_path / "index", options=EvaluateOptions(**options))
    assert not (tmp_path / "index").exists()


def test_judgements_of_another_file(collection: Path, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"dev\.tsv"):
        evaluate_collection(collection, options=EvaluateOptions(split="dev"))
    (tmp_path / "mine.txt").write_text("q3 0 bread-4 2\nq3 0 bread-1 1\n")
    options = EvaluateOptions(qrels=tmp_path / "mine.txt", measures=("P(rel=2)@5", "P@5"))
    report = evaluate_collection(collection, options=options)
    assert (list(report.queries), report.split) == (["q3"], "mine.txt")
    # BM25 finds bread-4 only.
    assert report.systems[0].means == {"P(rel=2)@5": 0.2, "P@5": 0.2}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "80"})


def test_the_command_gives_tables_and_a_document(collection: Path) -> None:
    table = run(collection, "--price-per-hour", 0.1, "--measures", "nDCG@10, R@100,RR@10 P(rel=2)@5")
    assert table.exit_code == 0, table.stderr
    lines = table.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if "nDCG@10" in line]
    assert heads[0] == ["nDCG@10", "95", "%", "R@100", "RR@10", "P(rel=2)@5"]
    assert heads[1] == ["nDCG@10", "against", "BM25"]
    quality, times = ([line.split() for line in lines if line.startswith("BM25 ")])[:2]
    assert (quality[1], *quality[3:]) == (f"{(2 + NDCG_Q2) / 4:.3f}", "0.750", "0.625", "0.000")
    assert times[4] == "64"
    assert sum(line.rstrip().endswith("not distinguishable with 4 queries") for line in lines) == 3
    assert "BM25: 1 judged queries without results count as zero" in " ".join(table.stdout.split())

    done = run(collection, "--limit", 2, "--json")
    record = json.loads(done.stdout)
    assert set(record) == set(Evaluation.__dataclass_fields__)
    (report,) = record["collections"]
    assert set(report) == set(CollectionReport.__dataclass_fields__) - {"qrels"}
    assert report["systems"][0]["per_query"]["RR@10"] == {"q1": 1.0, "q2": 0.5}
    assert report["comparisons"][0]["verdict"] == "not distinguishable with 2 queries"
    assert report["setups"][0]["encoder"].startswith("starter-static@")
    assert record["machine"]["cpus"] >= 1
    # Absolute paths are told by their names.
    assert record["command"] == "retrieval evaluate tiny --limit 2 --json"
    assert str(collection.parent) not in done.stdout


def test_measures_that_look_further_than_searches_are_named(collection: Path) -> None:
    few = run(collection, "--measures", "R@3 P@1", "--set", "first_stage.candidates=2", "--no-losses")
    assert "R@3: searches fetch 2 candidates (first_stage.candidates), and nothing below counts" in " ".join(
        few.stdout.split()
    )
    # bread-2 is second of the four documents that BM25 has for q2, and bread-4 is not fetched.
    (report,) = json.loads(run(collection, "--set", "first_stage.candidates=2", "--json").stdout)["collections"]
    assert report["systems"][0]["per_query"]["R@100"]["q2"] == 0.5


def test_saved_runs_come_back_as_rows_with_the_same_values(collection: Path, tmp_path: Path) -> None:
    saved = tmp_path / "deep" / "runs"
    assert run(collection, "--save-runs", saved, "--quiet").exit_code == 0
    files = sorted(path.name for path in (saved / "tiny").iterdir())
    assert files == ["BM25.run", "hybrid.run", "qrels.txt", "static.run", "two-stage.run"]
    arguments = [part for name in files if name.endswith(".run") for part in ("--run", saved / "tiny" / name)]
    alone = run("--qrels", saved / "tiny" / "qrels.txt", *arguments, "--json")
    (report,) = json.loads(alone.stdout)["collections"]
    assert [system["name"] for system in report["systems"]] == ["BM25", "hybrid", "static", "two-stage"]
    assert report["systems"][0]["means"]["nDCG@10"] == pytest.approx((2 + NDCG_Q2) / 4)

    named = f"a=b={saved / 'tiny' / 'BM25.run'}"
    assert run("--qrels", saved / "tiny" / "qrels.txt", "--run", named).exit_code == 1
    beside = run(collection, "--run", f"again={saved / 'tiny' / 'BM25.run'}", "--baseline", "again", "--json")
    (report,) = json.loads(beside.stdout)["collections"]
    assert report["systems"][-1]["means"] == report["systems"][0]["means"]
    assert report["baseline"] == "again"


def test_a_configuration_is_named_by_its_file(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "lexical.yaml").write_text("first_stage: {arms: bm25}\nrerank: {enabled: false}\n")
    done = run(collection, "--system", tmp_path / "lexical.yaml", "--json", "--limit", 1)
    (report,) = json.loads(done.stdout)["collections"]
    assert report["systems"][-1]["name"] == "lexical"
    assert report["systems"][-1]["means"] == report["systems"][0]["means"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--limit", "3"], 2, "name the FOLDER of a collection"),
        (["a", "b", "--index", "i"], 2, "belong to one collection"),
        (["x/a", "y/a"], 2, "have the same name"),
        (["a", "--html", "nowhere/r.html"], 2, "make the folder nowhere first"),
        (["a", "--markdown", "."], 2, "is a folder; name a file"),
        (["a", "--system", "x=nowhere.yaml"], 2, "cannot read configuration nowhere.yaml"),
        (["a", "--run", "x=nowhere.run"], 1, "cannot read nowhere.run"),
        (["a", "--baseline", "BM25"], 1, "no BEIR collection in a"),
        (["a", "b", "--suite", "negation"], 2, "--suite takes one FOLDER, not 2"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == code
    assert told in " ".join(re.sub(r"[\u2500-\u257f|]", " ", done.stderr).split())
    assert list(tmp_path.iterdir()) == []
