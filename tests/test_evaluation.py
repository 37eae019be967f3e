from __future__ import annotations

import copy
import gzip
import json
import math
from pathlib import Path

import pytest

from retrieval.datatypes import Document
from retrieval.errors import DocumentError
from retrieval.evaluation import (
    BeirCollection,
    LatencySummary,
    bootstrap_interval,
    evaluate_run,
    read_qrels,
    summarize_latency,
)

CORPUS = [
    {"_id": "d1", "title": "Pipes", "text": "Copper pipes leak.", "metadata": {"year": 2001}},
    {"_id": 2, "text": "Stars shine.", "metadata": "not a mapping"},
    {"_id": "d3", "title": None, "text": ""},
]
QUERIES = [{"_id": "q1", "text": "leak"}, {"_id": "q2", "text": "light"}, {"_id": "q3", "text": "nobody judged this"}]
QRELS = "query-id\tcorpus-id\tscore\nq2\t2\t1\nq2\td3\t0\nq1\td1\t2\nq1\tgone\t-1\n"


def write_collection(folder: Path, qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, records in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = "\n".join(json.dumps(record) for record in records)
        (folder / f"{name}.jsonl").write_text(f"{lines}\n\n", encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "collection")


def test_a_collection_is_read(folder: Path) -> None:
    collection = BeirCollection.open(folder)
    assert list(collection.queries.items()) == [("q2", "light"), ("q1", "leak")]
    assert collection.qrels == {"q2": {"2": 1, "d3": 0}, "q1": {"d1": 2, "gone": -1}}
    assert list(collection.documents()) == [
        Document("d1", "Copper pipes leak.", "Pipes", {"year": 2001}),
        Document("2", "Stars shine."),
        Document("d3", ""),
    ]
    assert collection.missing_documents() == ("gone",)


def test_documents_are_read_as_they_are_asked_for(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    documents = BeirCollection.open(folder).documents()
    assert [next(documents).id for _ in range(3)] == ["d1", "2", "d3"]
    with pytest.raises(DocumentError, match=r"corpus.jsonl#5 is not JSON"):
        next(documents)


def test_gzipped_files_and_byte_order_marks_are_read(folder: Path) -> None:
    for name in ("corpus.jsonl", "queries.jsonl"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with gzip.open(folder / f"{name}.gz", "wb") as file:
            file.write(b"\xef\xbb\xbf" + content)
    collection = BeirCollection.open(str(folder))
    assert len(collection.queries) == 2
    assert len(list(collection.documents())) == 3


def test_a_damaged_gzip_is_a_document_error(folder: Path) -> None:
    content = gzip.compress((folder / "corpus.jsonl").read_bytes() * 50)
    (folder / "corpus.jsonl").unlink()
    for damaged in (content[:40], content[:30] + b"\xff" * 10 + content[40:], b"plain"):
        (folder / "corpus.jsonl.gz").write_bytes(damaged)
        with pytest.raises(DocumentError, match=r"corpus.jsonl.gz"):
            list(BeirCollection.open(folder).documents())


@pytest.mark.parametrize(
    "qrels",
    ["q2\t2\t1\nq1\td1\t2\n", "q2 0 2 1\nq1 0 d1 2\n", "q2\tQ0\t2\t1\r\n\r\nq1\tQ0\td1\t2"],
    ids=["no header", "trec", "trec tabs, crlf"],
)
def test_forms_of_judgements(qrels: str, tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(qrels.encode())
    assert read_qrels(path) == {"q2": {"2": 1}, "q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("qrels", "told"),
    [
        ("", "holds no judgement"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgement"),
        ("q1\td1\n", "#1 has 2 columns"),
        ("q1\td1\t1.5\n", "#1: grade '1.5' is not a whole number"),
        ("q1\td1\t1\nq1\td2\tscore\n", "#2: grade 'score' is not a whole number"),
        ("q1\td1\t1\nq1\td1\t0\n", "#2: document 'd1' has two grades for query 'q1'"),
        ("q1\td1\t\u00ff", "cannot read"),
    ],
)
def test_malformed_judgements_are_named(qrels: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(qrels.encode("latin-1"))
    with pytest.raises(DocumentError, match=told):
        read_qrels(path)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"neither corpus.jsonl nor corpus.jsonl.gz"):
        BeirCollection.open(tmp_path / "nowhere")
    with pytest.raises(DocumentError, match=r"dev.tsv; splits in that folder: test"):
        BeirCollection.open(folder, "dev")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(DocumentError, match=r"neither queries.jsonl nor"):
        BeirCollection.open(folder)


@pytest.mark.parametrize("split", ["../test", "a/b", "", ".hidden", "test\x00"])
def test_a_split_is_a_plain_name(split: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="split is the name"):
        BeirCollection.open(folder, split)


def test_a_judged_query_needs_a_text(tmp_path: Path) -> None:
    folder = write_collection(tmp_path / "collection", QRELS + "q7\td1\t1\n")
    with pytest.raises(DocumentError, match=r"1 judged queries are not in .*: q7"):
        BeirCollection.open(folder)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "holds a list, not an object"),
        ('{"text": "a"}', "has no _id"),
        ('{"_id": true, "text": "a"}', "has no _id"),
        ('{"_id": "x", "text": ["a"]}', "text is a list, not a string"),
        ('{"_id": "d1", "text": "again"}', "'d1' appears twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_malformed_documents_are_named(line: str, told: str, folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)
    with pytest.raises(DocumentError, match=told):
        list(BeirCollection.open(folder).documents())


def test_measures_by_hand() -> None:
    # q1: gains 0, 2, 1 at ranks 1 to 3 against the ideal 2, 1. q2: nothing found.
    qrels = {"q1": {"a": 2, "b": -1, "c": 0, "d": 1}, "q2": {"x": 1}}
    run = {"q1": [("b", 3.0), ("a", 2.0), ("d", 1.0)], "unjudged": [("a", 1.0)]}
    measured = evaluate_run(qrels, run)
    ndcg = (2 / math.log2(3) + 1 / math.log2(4)) / (2 + 1 / math.log2(3))
    assert measured.per_query["nDCG@10"] == pytest.approx({"q1": ndcg, "q2": 0.0})
    assert measured.per_query["R@100"] == {"q1": 1.0, "q2": 0.0}
    assert measured.per_query["RR@10"] == {"q1": 0.5, "q2": 0.0}
    assert measured.means == pytest.approx({"nDCG@10": ndcg / 2, "R@100": 0.5, "RR@10": 0.25})


def test_judged_queries_without_results_count_as_zero() -> None:
    qrels = {"q3": {"a": 1}, "q1": {"a": 1}, "q2": {"a": 1}, "q4": {"a": 0}}
    measured = evaluate_run(qrels, {"q1": [("a", 1.0)], "q2": []}, ["R@10"])
    assert measured.per_query == {"R@10": {"q1": 1.0, "q2": 0.0, "q3": 0.0, "q4": 0.0}}
    assert list(measured.per_query["R@10"]) == list(qrels)
    assert measured.means == {"R@10": 0.25}
    assert evaluate_run(qrels, {}, ["nDCG@10"]).means == {"nDCG@10": 0.0}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_ties_keep_the_order_of_the_run(names: tuple[str, str]) -> None:
    # trec_eval alone would put b first both times.
    relevant, other = names
    measured = evaluate_run({"q": {relevant: 1}}, {"q": [(relevant, 1.0), (other, 1.0)]}, ["RR@10", "nDCG@10", "P@1"])
    assert measured.means == {"RR@10": 1.0, "nDCG@10": 1.0, "P@1": 1.0}
    measured = evaluate_run({"q": {relevant: 1}}, {"q": [(other, 1.0), (relevant, 1.0)]}, ["RR@10", "P@1"])
    assert measured.means == {"RR@10": 0.5, "P@1": 0.0}


def test_results_are_ranked_by_score_and_count_once() -> None:
    run = {"q": [("b", 1.0), ("a", 2.0), ("a", 0.5), ("c", 0.1)]}
    assert evaluate_run({"q": {"b": 1}}, run, ["RR@10"]).means == {"RR@10": 0.5}
    assert evaluate_run({"q": {"c": 1}}, run, ["RR@10"]).means == {"RR@10": pytest.approx(1 / 3)}


def test_neither_run_nor_judgements_are_changed() -> None:
    qrels, run = {"q": {"a": 1}}, {"q": [("b", 1.0), ("a", 2.0)]}
    before = copy.deepcopy((qrels, run))
    evaluate_run(qrels, run)
    assert (qrels, run) == before


def test_measuring_refuses_what_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="no query is judged"):
        evaluate_run({}, {})
    with pytest.raises(ValueError, match="'bogus' is unknown"):
        evaluate_run({"q": {"a": 1}}, {}, ["bogus"])
    with pytest.raises(ValueError, match="query 'q' that is not a number"):
        evaluate_run({"q": {"a": 1}}, {"q": [("a", math.nan)]})


def test_the_interval_of_equal_values_is_a_point() -> None:
    assert bootstrap_interval([0.25] * 9) == (0.25, 0.25)


def test_the_interval_of_a_coin() -> None:
    # 400 fair coins: standard error .025, so about .451 to .549.
    low, high = bootstrap_interval([0.0, 1.0] * 200, seed=3)
    assert (low, high) == (pytest.approx(0.451, abs=0.005), pytest.approx(0.549, abs=0.005))
    assert bootstrap_interval([0.0, 1.0] * 200, seed=3) == (low, high)
    assert bootstrap_interval([0.0, 1.0, 0.7] * 30, seed=4) != bootstrap_interval([0.0, 1.0, 0.7] * 30, seed=5)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_an_interval_needs_finite_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval(values)


def test_latencies_by_hand() -> None:
    # 101 values 0, 1, ... 100: the percentiles are the values, the sum is 5,050 ms.
    assert summarize_latency(range(101)) == LatencySummary(50.0, 95.0, pytest.approx(20.0))
    assert summarize_latency([0.0]) == LatencySummary(0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [[], [-1.0], [math.inf]])
def test_latencies_are_times(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="latencies are finite and from 0"):
        summarize_latency(bad)
