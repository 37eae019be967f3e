from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import DocumentError
from retrieval.evaluation import evaluate_run, read_qrels, read_run, write_qrels, write_run

MEASURES = ("nDCG@10", "R@100", "RR@10", "P(rel=2)@5", "AP", "nDCG@5", "P@3", "R(rel=2)@20")
TREC_EVAL = {
    "nDCG@10": "ndcg_cut_10",
    "R@100": "recall_100",
    "AP": "map",
    "nDCG@5": "ndcg_cut_5",
    "P@3": "P_3",
}

Results = dict[str, tuple[tuple[str, float], ...]]


def random_run(seed: int, *, levels: int | None = None) -> tuple[dict[str, dict[str, int]], Results]:
    """40 queries over 300 documents, grades -1 to 3; every seventh query has no results; few levels give ties."""
    random = np.random.default_rng(seed)
    qrels, run = {}, {}
    for number in range(40):
        query = f"q{number}"
        judged = random.choice(300, 30, replace=False)
        qrels[query] = {f"d{document}": int(random.integers(-1, 4)) for document in judged}
        if number % 7:
            found = random.choice(300, 120, replace=False)
            scores = random.normal(size=120) if levels is None else random.integers(0, levels, 120) / levels
            order = np.argsort(-scores, kind="stable")
            run[query] = tuple((f"d{found[place]}", float(scores[place])) for place in order)
    return qrels, run


@pytest.mark.parametrize("seed", range(5))
def test_measures_agree_with_pytrec_eval(seed: int) -> None:
    import pytrec_eval

    qrels, run = random_run(seed)
    ours = evaluate_run(qrels, run, MEASURES)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(TREC_EVAL.values())).evaluate(
        {query: dict(results) for query, results in run.items()}
    )
    assert len(theirs) == 34
    for name, trec_name in TREC_EVAL.items():
        values = [theirs[query][trec_name] if query in theirs else 0.0 for query in qrels]
        assert list(ours.per_query[name].values()) == pytest.approx(values, abs=1e-9)
        assert ours.means[name] == pytest.approx(sum(values) / 40, abs=1e-9)
    assert 0 < ours.means["AP"] < 1


@pytest.mark.parametrize("seed", range(5))
def test_measures_agree_with_ir_measures(seed: int) -> None:
    import ir_measures

    qrels, run = random_run(seed)
    ours = evaluate_run(qrels, run, MEASURES)
    parsed = [ir_measures.parse_measure(name) for name in MEASURES]
    theirs = ir_measures.calc_aggregate(parsed, qrels, {query: dict(results) for query, results in run.items()})
    assert ours.means == pytest.approx({str(measure): value for measure, value in theirs.items()}, abs=1e-9)
    assert all(0 < value < 1 for value in ours.means.values())


@pytest.mark.parametrize("levels", [None, 3, 40])
def test_a_written_run_gives_trec_eval_what_we_measured(levels: int | None, tmp_path: Path) -> None:
    """Also where scores are equal, which trec_eval would order by document id."""
    import pytrec_eval

    qrels, run = random_run(7, levels=levels)
    write_run(tmp_path / "our.run", run, "our system")
    write_qrels(tmp_path / "qrels.txt", qrels)
    with (tmp_path / "our.run").open() as results, (tmp_path / "qrels.txt").open() as judgements:
        parsed_run, parsed_qrels = pytrec_eval.parse_run(results), pytrec_eval.parse_qrel(judgements)
    assert parsed_qrels == qrels == read_qrels(tmp_path / "qrels.txt")
    theirs = pytrec_eval.RelevanceEvaluator(parsed_qrels, {"map", "ndcg_cut_10"}).evaluate(parsed_run)
    ours = evaluate_run(qrels, run, ["AP", "nDCG@10"])
    for query, values in theirs.items():
        assert values["map"] == pytest.approx(ours.per_query["AP"][query], abs=1e-9)
        assert values["ndcg_cut_10"] == pytest.approx(ours.per_query["nDCG@10"][query], abs=1e-9)

    again = read_run(tmp_path / "our.run")
    assert again.tag == "our_system"
    ids = {query: [document for document, _ in results] for query, results in run.items()}
    assert {query: [document for document, _ in results] for query, results in again.results.items()} == ids
    assert evaluate_run(qrels, again.results, MEASURES) == evaluate_run(qrels, run, MEASURES)


def test_a_run_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "a.run", {"q1": (("d2", 1.5), ("d1", 1.5), ("d3", -2.0)), "q2": ()}, "bm25")
    assert (tmp_path / "a.run").read_text() == (
        "q1 Q0 d2 1 1.5 bm25\nq1 Q0 d1 2 1.4999999 bm25\nq1 Q0 d3 3 -2.0 bm25\n"
    )


def test_the_score_decides_and_then_the_rank(tmp_path: Path) -> None:
    path = tmp_path / "b.run.gz"
    lines = "q1\tQ0\tlow\t1\t0.5\tx\n\nq1 Q0 second 9 2e0 x\r\nq1 Q0 first 3 2 y\n"
    path.write_bytes(gzip.compress(lines.encode("utf-8-sig")))
    run = read_run(path)
    assert run.results == {"q1": (("first", 2.0), ("second", 2.0), ("low", 0.5))}
    assert run.tag == ""


def test_scores_beyond_a_float_are_kept_in_order(tmp_path: Path) -> None:
    write_run(tmp_path / "c.run", {"q": (("a", 1e300), ("b", 1e299), ("c", -1e300))}, "")
    assert [document for document, _ in read_run(tmp_path / "c.run").results["q"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no result"),
        (b"q1 Q0 d1 1 2.0\n", "#1 has 5 columns"),
        (b"q1 Q0 d1 1 high x\n", "#1: score 'high' is not a finite number"),
        (b"q1 Q0 d1 1 nan x\n", "#1: score 'nan' is not a finite number"),
        (b"q1 Q0 d1 first 1 x\n", "#1: rank 'first' is not a finite number"),
        (b"q1 Q0 d1 1 2 x\nq1 Q0 d1 2 1 x\n", "#2: document 'd1' appears twice for query 'q1'"),
        (b"q1 Q0 d\xff 1 2 x\n", "cannot read"),
    ],
)
def test_malformed_runs_are_named(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.run"
    path.write_bytes(content)
    with pytest.raises(DocumentError, match=told):
        read_run(path)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"cannot read .*nowhere\.run"):
        read_run(tmp_path / "nowhere.run")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"q 1": (("d", 1.0),)}, "query id 'q 1' cannot stand in a TREC file"),
        ({"q": (("d\t1", 1.0),)}, r"document id 'd\\t1' cannot stand"),
        ({"q": (("", 1.0),)}, "document id '' cannot stand"),
        ({"q": (("d", math.inf),)}, "score inf, which is not finite"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(run: Results, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        write_run(tmp_path / "x.run", run, "x")
    assert not (tmp_path / "x.run").exists()
