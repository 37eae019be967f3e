"""The arithmetic of benchmarks/quantization.py: its rows, recall and bytes, and that it measures what it says."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quantization import compact
from benchmarks.quantization_grid import CODES, FLOAT, Setting, matryoshka, recall, searches, settings
from benchmarks.quantization_memory import RememberedScores
from benchmarks.quantization_report import Values, cost, frontier, paired, record_of, together
from benchmarks.quantization_run import OutOfTimeError, Run
from benchmarks.quantization_systems import SYSTEMS, index_config, remembered_scores
from benchmarks.quantization_tables import filled, interval, markdown
from pipelines import TwoStagePipeline
from retrieval.config import Config, EncoderConfig
from retrieval.datatypes import Document, FloatArray, Quantization
from retrieval.evaluation import BeirCollection, evaluate_run
from retrieval.models import open_encoder
from tests.conftest import paper_corpus

BINARY, TURBO = Quantization("binary", 1), Quantization("turbo", 2)
QUERIES = {
    "pipe": ("copper pipe leak plumber", {"pipe-1": 1, "pipe-2": 1}),
    "star": ("bright star galaxy telescope", {"star-2": 1}),
    "bread": ("sour bread dough flour", {"bread-4": 1}),
}


def beir_folder(folder: Path, documents: Sequence[Document]) -> BeirCollection:
    (folder / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": one.id, "title": "", "text": one.text}) for one in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    lines = [json.dumps({"_id": name, "text": text}) for name, (text, _) in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = [f"{name}\t{one}\t{grade}" for name, (_, grades) in QUERIES.items() for one, grade in grades.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(rows), encoding="utf-8")
    return BeirCollection.open(folder)


def row(dims: int, code: Quantization, ndcgs: Sequence[float], size: float = 0.0) -> tuple[Setting, dict[str, object]]:
    ones = [1.0] * len(ndcgs)
    values = {"recall_same_dims": ones, "recall_all_dims": ones, "code_bytes": size, "in_effect": 1.0}
    return Setting(dims, code), {**values, "p50_ms": 1.0, "p95_ms": 2.0, "static": list(ndcgs)}


def test_every_way_that_is_asked_for_is_a_row_of_its_own() -> None:
    rows = list(settings((256, 128)))
    names = [one.name for one in rows]
    assert len(set(names)) == len(names) == 2 * (1 + 5 + 11 * 3)
    assert names[0] == "256 dims, float"
    for wanted in (
        "256 dims, binary 1 bit, codes only",
        *(f"128 dims, binary 1 bit, rescored x{factor}" for factor in (1, 2, 3, 4)),
        "256 dims, binary 1 bit, queries 8 bit, rescored x3",
        "256 dims, binary 1 bit, queries 4 bit, codes only",
        "256 dims, binary 1.5 bit, codes only",
        "256 dims, binary 2 bit, queries 8 bit, rescored x1",
        "256 dims, scalar int8, codes only",
        *(f"128 dims, turbo {bits} bit, codes only" for bits in ("1", "1.5", "2", "4")),
    ):
        assert wanted in names


def test_the_codes_alone_are_searched_without_oversampling_and_all_searches_share_the_codes() -> None:
    for code in CODES:
        alone, *rescored = searches(code)
        assert (alone.rescore, alone.oversampling) == (False, 1.0)
        assert all(one.rescore for one in rescored)
        assert {(one.kind, one.bits, one.query_bits) for one in (alone, *rescored)} == {
            (code.kind, code.bits, code.query_bits)
        }
    assert searches(FLOAT) == (FLOAT,)


def test_dimensions_are_halved_as_far_as_they_are_whole() -> None:
    assert matryoshka(256) == (256, 128, 64, 32)
    assert matryoshka(12) == (12, 6, 3)
    assert matryoshka(7) == (7,)


def test_fewer_dimensions_are_the_first_ones_at_unit_length() -> None:
    text = ["copper pipes leak in old houses"]
    whole = open_encoder(EncoderConfig()).encode_documents(text)[0]
    for dims in matryoshka(256)[1:]:
        cut = open_encoder(index_config(dims).encoder).encode_documents(text)[0]
        expected = whole[:dims] / math.sqrt(float((whole[:dims].astype(np.float64) ** 2).sum()))
        assert cut == pytest.approx(expected, abs=1e-6)
        assert np.linalg.norm(cut) == pytest.approx(1, abs=1e-6)


def test_recall_is_the_share_of_the_exact_list() -> None:
    assert recall(["a", "b", "c", "d"], ["d", "x", "a"]) == 0.5
    assert recall(["a"], []) == 0
    assert recall([], ["a"]) == 1


def test_a_loss_is_above_zero_and_its_interval_is_paired() -> None:
    assert paired([1.0, 0.5, 0.0], [0.75, 0.25, -0.25]) == {"mean": 0.25, "low": 0.25, "high": 0.25}
    loss = paired([1.0] * 50 + [0.0] * 50, [0.0] * 50 + [0.0] * 50)
    assert loss["mean"] == 0.5
    assert 0.35 < loss["low"] < 0.5 < loss["high"] < 0.65


def test_losses_are_against_float_of_as_many_dimensions_and_of_all() -> None:
    rows = dict([row(8, FLOAT, [0.8, 0.6]), row(4, FLOAT, [0.6, 0.4]), row(4, searches(BINARY)[2], [0.5, 0.3], 16)])
    values = Values("tiny", "test", "as bundled", 12, rows)
    float_row, _, binary_row = record_of(values)["rows"]
    assert float_row["searched_bytes"] == 32
    assert (binary_row["searched_bytes"], binary_row["original_bytes"]) == (16, 16)
    assert binary_row["systems"]["static"]["loss_same_dims"]["mean"] == pytest.approx(0.1)
    assert binary_row["systems"]["static"]["loss_all_dims"]["mean"] == pytest.approx(0.3)
    assert binary_row["systems"]["static"]["verdict"] == "not distinguishable with 2 queries"


def test_the_file_keeps_changes_as_three_numbers() -> None:
    kept = compact([{"loss": {"mean": 0.123456, "low": 0.1, "high": 0.2}, "verdict": "worse", "bytes": 16, "n": None}])
    assert kept == [{"loss": [0.1235, 0.1, 0.2], "bytes": 16, "n": None}]


def test_collections_together_count_every_query() -> None:
    parts = [
        Values("one", "test", "as bundled", 10, dict([row(8, FLOAT, [1.0])])),
        Values("two", "test", "as bundled", 20, dict([row(8, FLOAT, [0.0, 0.5])])),
    ]
    record = record_of(together(parts))
    assert record["passages"] == 30
    assert record["queries"] == {"static": 3}
    assert record["rows"][0]["systems"]["static"]["nDCG@10"] == 0.5
    assert "p50_ms" not in record["rows"][0]


def test_the_frontier_leaves_out_what_costs_more_and_gives_no_more() -> None:
    alone, once, *_ = searches(BINARY)
    rows = dict(
        [
            row(8, FLOAT, [0.50]),
            row(8, alone, [0.40], 16),
            row(8, once, [0.45], 16),
            row(4, FLOAT, [0.40]),
        ]
    )
    table = record_of(Values("tiny", "test", "as bundled", 12, {**rows} | _rescored(rows)))["rows"]

    def names(*, originals: bool) -> list[tuple[int, str, float]]:
        best = frontier(table, "static", originals=originals)
        return [(one["dims"], one["search"], cost(one, originals=originals)) for one in best]

    # Rescored codes of 16 bytes beat float at 4 dimensions, which takes 16 bytes too.
    assert names(originals=False) == [(8, "rescored x1", 16), (8, "", 32)]
    # Where the originals of 32 bytes count, rescoring takes 48 bytes, more than float.
    assert names(originals=True) == [(8, "codes only", 16), (8, "", 32)]


def _rescored(rows: dict[Setting, dict[str, object]]) -> dict[Setting, dict[str, object]]:
    return dict([row(8, searches(BINARY)[3], [0.45], 16)])


def test_an_interval_reads_as_a_change() -> None:
    assert interval({"mean": 0.0123, "low": 0.005, "high": 0.02}, -1) == "-.012 [-.020, -.005]"
    assert interval({"mean": 0.0, "low": 0.0, "high": 0.0}) == "0"
    assert interval({"mean": 1.0, "low": 0.99996, "high": 1.0}) == "+1.000 [+1.000, +1.000]"


def test_a_page_gets_its_tables_again() -> None:
    record = record_of(Values("tiny", "test", "as bundled", 12, dict([row(8, FLOAT, [0.5])])))
    page = "before\n<!-- size tiny -->\nold\n<!-- end -->\nbetween\n<!-- rows tiny -->\n<!-- end -->\nafter\n"
    once = filled(page, [record])
    assert "<!-- size tiny -->\n\n12 passages. Queries: static 1.\n\n<!-- end -->\nbetween" in once
    assert "| 8 | float |  | 32 | 1.000 | 1.000 | 0.500 | 1.00 |" in once
    assert "old" not in once
    assert filled(once, [record]) == once
    with pytest.raises(ValueError, match="no table 'rows' of 'other'"):
        filled("<!-- rows other -->\n<!-- end -->", [record])


class Counting:
    """A reranker that counts what it reads: the logit is the length of the text."""

    name = "counting"

    def __init__(self) -> None:
        self.read: list[str] = []

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        self.read += texts
        return np.array([len(text) for text in texts], np.float32)


def test_every_pair_is_read_once_also_by_the_next_process(tmp_path: Path) -> None:
    counting = Counting()
    scores = RememberedScores(counting, tmp_path / "logits", "model a")
    assert scores.score("q", ["bb", "a", "bb"]).tolist() == [2, 1, 2]
    assert scores.score("q", ["a", "ccc"]).tolist() == [1, 3]
    assert sorted(counting.read) == ["a", "bb", "ccc"]
    scores.score("another", ["a"])
    assert (len(counting.read), scores.read) == (4, 4)
    scores.close()
    again = RememberedScores(counting, tmp_path / "logits", "model a")
    assert again.score("q", ["ccc", "bb"]).tolist() == [3, 2]
    assert (len(counting.read), again.read) == (4, 0)
    again.close()
    other = RememberedScores(counting, tmp_path / "logits", "model b")
    other.score("q", ["bb"])
    assert other.read == 1
    other.close()


def small_run(place: Path, codes: Sequence[Quantization], dims: Sequence[int], deadline: float = math.inf) -> Run:
    folder = place / "paper"
    collection = BeirCollection.open(folder) if folder.exists() else beir_folder(folder, paper_corpus())
    return Run(collection, place / "work", Config(), codes=codes, dims=dims, deadline=deadline)


def test_a_run_measures_the_engine_and_the_pipeline_as_they_are(tmp_path: Path) -> None:
    scores = remembered_scores(tmp_path / "logits", Config())
    with small_run(tmp_path, (BINARY, TURBO), (256, 32)) as run:
        for dims in run.dims:
            run.measure(scores, dims)
        values, collection, read = run.values(), run.collection, scores.read
    record = record_of(values)
    rows = {Setting(one["dims"], Quantization(**one["quantization"])).name: one for one in record["rows"]}
    assert len(rows) == 2 * (1 + 5 + 3)
    # As the engine lays codes out: binary in blocks of 128 bits, turbo with 8 bytes beside its codes.
    assert [rows[f"{dims} dims, binary 1 bit, codes only"]["searched_bytes"] for dims in (256, 32)] == [32, 16]
    assert [rows[f"{dims} dims, turbo 2 bit, rescored x3"]["searched_bytes"] for dims in (256, 32)] == [72, 16]
    assert all(one["in_effect"] == 1 for one in rows.values() if one["search"])
    # Twelve documents are all among the best hundred.
    assert all(one["recall_all_dims"] == 1 for one in rows.values())
    # The same as the pipeline without any memory, in an index of the default settings.
    with TwoStagePipeline.open(tmp_path / "plain", Config()) as pipeline:
        pipeline.ingest(paper_corpus())
        for system, arguments in SYSTEMS.items():
            found = {name: pipeline.search(text, 10, **arguments) for name, (text, _) in QUERIES.items()}
            best = {name: [(hit.document_id, hit.score) for hit in hits] for name, hits in found.items()}
            expected = evaluate_run(collection.qrels, best, ["nDCG@10"]).means["nDCG@10"]
            assert rows["256 dims, float"]["systems"][system]["nDCG@10"] == pytest.approx(expected)
    assert "| 32 | turbo 2 bit | codes only | 16 |" in markdown([record])

    with small_run(tmp_path, (BINARY, TURBO), (256, 32)) as again:
        for dims in again.dims:
            again.measure(scores, dims)
        assert (scores.read, again.values()) == (read, values)
    scores.close()


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_run(tmp_path, (), (32,), deadline=0) as stopped:
        with pytest.raises(OutOfTimeError):
            stopped.measure(Counting(), 32, ["static", "hybrid"])
        before = stopped.measured.get("32", "32 dims, float", "search")
        assert before["in_effect"] == 0
        assert stopped.measured.get("32", "32 dims, float", "static") is None
    with small_run(tmp_path, (), (32,)) as going_on:
        going_on.measure(Counting(), 32, ["static", "hybrid"])
        after = going_on.values().rows[Setting(32, FLOAT)]
    assert {key: after[key] for key in before} == before
    assert len(after["hybrid"]) == 3
    assert "static + cross-encoder" not in after
    assert "32 dims, float" in capsys.readouterr().err


def test_a_code_that_is_not_in_effect_is_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.quantization_run.Bench.switch", lambda bench, quantization: None)
    with (
        small_run(tmp_path, (Quantization("scalar"),), (32,)) as run,
        pytest.raises(RuntimeError, match="32 dims, scalar int8, codes only: in effect for 0% of the vectors only"),
    ):
        run.measure(Counting(), 32)
