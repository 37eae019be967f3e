"""Compressing a live index: what is measured, kept and taken back, and that search does what the index says."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines import TwoStagePipeline
from pipelines.plan import code_bytes
from pipelines.quantization.queries import SampledQueries, evenly, pseudo_queries, read_judged, read_queries
from retrieval.config import Config, parse_config
from retrieval.datatypes import Document, Quantization, ScoredPoint, SearchRequest
from retrieval.errors import DocumentError, StoreError
from retrieval.stores import open_store
from tests.adapt_corpus import CONCEPTS, DIM, documents, word, write_model
from tests.store_folders import quick_folder
from tests.test_cli import COLUMNS, run

PASSAGES = 400
TURBO = Quantization("turbo", 2)
BINARY = Quantization("binary", 1, rescore=False)
NOTHING = Quantization()


def settings(model: Path, **sections: Any) -> Config:
    return parse_config({"encoder": {"model": str(model)}, **sections})


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with quick_folder() as folder:
        with TwoStagePipeline.open(folder / "index", settings(write_model(folder / "tiny"))) as pipeline:
            pipeline.ingest(documents(PASSAGES))
        yield folder


@pytest.fixture
def index(room: Path) -> Iterator[Path]:
    with quick_folder() as folder:
        shutil.copytree(room / "index", folder / "index")
        yield folder / "index"


@pytest.fixture
def pipeline(index: Path) -> Iterator[TwoStagePipeline]:
    with TwoStagePipeline.open(index) as opened:
        yield opened


def answers(pipeline: TwoStagePipeline, **arguments: Any) -> list[list[ScoredPoint]]:
    queries = [" ".join(word(concept, 0) for concept in (one, one + 3)) for one in range(8)]
    vectors = pipeline.encoder.encode_queries(queries)
    return pipeline.store.search([SearchRequest(vector, 20, **arguments) for vector in vectors])


def is_float_search(pipeline: TwoStagePipeline) -> bool:
    """Whether plain search gives exactly what exact search gives, to the last bit of every score."""
    return answers(pipeline) == answers(pipeline, exact=True)


def judged() -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """The first sentence of every twentieth document, which is relevant for it, and it alone."""
    chosen = documents(PASSAGES)[::20]
    queries = {f"q{name}": text.split(". ")[0] for name, text in chosen}
    return queries, {f"q{name}": {name: 1} for name, _ in chosen}


def test_what_costs_little_is_kept_and_shown(index: Path) -> None:
    with TwoStagePipeline.open(index) as pipeline:
        report = pipeline.quantize(sample=30)
        assert (report.outcome, report.quantization, report.done) == ("kept", TURBO, True)
        assert report.before is not None
        assert report.after is not None
        assert (report.asked, report.queries, report.measure, report.passages) == ("pseudo", 30, "overlap@100", 400)
        # Two bits for each of 32 dimensions and eight bytes beside them, instead of four bytes a dimension.
        assert (report.before.bytes_per_passage, report.after.bytes_per_passage) == (128, 16)
        assert (report.before.bytes, report.after.bytes) == (128 * 400, 16 * 400)
        assert (report.before.in_effect, report.before.overlap, report.after.in_effect) == (0.0, 1.0, 1.0)
        # 300 candidates of 400 are rescored: few of the exact 100 can be missed.
        assert report.after.overlap >= 0.98
        assert report.loss == pytest.approx(1 - report.after.overlap)
        assert report.loss is not None
        assert report.loss_interval is not None
        assert report.loss_interval[0] <= report.loss <= report.loss_interval[1]
        assert report.after.first_stage.p95 >= report.after.first_stage.p50 > 0
        assert (report.before.ndcg, report.after.first_stage_ndcg) == (None, None)
        assert [len(points) for points in answers(pipeline, rescore=False)] == [20] * 8
        assert answers(pipeline, rescore=False) != answers(pipeline, exact=True)
    record = json.loads(run("info", "--index", index, "--json").out)
    assert record["quantization"] == {
        "kind": "turbo",
        "bits": 2,
        "query_bits": None,
        "rescore": True,
        "oversampling": 3.0,
    }
    assert record["quantization_interrupted"] is False
    with TwoStagePipeline.open(index) as pipeline:
        assert pipeline.store.quantization == TURBO
        assert pipeline.quantize(NOTHING).outcome == "off"
        assert is_float_search(pipeline)


def test_what_loses_too_much_is_taken_back(pipeline: TwoStagePipeline, index: Path) -> None:
    report = pipeline.quantize(BINARY, sample=30)
    assert (report.outcome, report.quantization, report.wanted, report.done) == ("taken back", NOTHING, BINARY, False)
    assert report.after is not None
    assert report.after.overlap < 0.9
    assert report.loss == pytest.approx(1 - report.after.overlap)
    assert "may be lost); it was taken back" in report.reason
    assert is_float_search(pipeline)
    assert "quantization_config" not in json.loads(next(index.rglob("edge_config.json")).read_text())
    assert "none" in next(line for line in run("info", "--index", index).out.splitlines() if "quantization" in line)


def test_judgements_decide_where_there_are_any(pipeline: TwoStagePipeline) -> None:
    queries, qrels = judged()
    report = pipeline.quantize(BINARY, queries=queries, qrels=qrels)
    assert (report.asked, report.queries, report.measure) == ("judged", 20, "nDCG@10")
    assert report.before is not None
    assert report.after is not None
    assert report.before.ndcg is not None
    assert report.after.ndcg is not None
    assert report.loss == pytest.approx(report.before.ndcg - report.after.ndcg)
    assert report.outcome == "taken back"
    assert report.loss is not None
    assert report.loss > 0.005
    kept = pipeline.quantize(BINARY, queries=queries, qrels=qrels, max_loss=report.loss + 1e-9)
    assert (kept.outcome, pipeline.store.quantization) == ("kept", BINARY)
    assert kept.loss == pytest.approx(report.loss)


def test_a_compressed_index_is_compared_with_exact_search(pipeline: TwoStagePipeline) -> None:
    assert pipeline.quantize(BINARY, sample=30, max_loss=1).outcome == "kept"
    again = pipeline.quantize(BINARY, sample=30)
    assert again.before is not None
    assert again.before.overlap < 0.9
    # Nothing got worse, and yet too much is lost.
    assert again.outcome == "taken back"
    assert again.loss == pytest.approx(1 - again.before.overlap)
    queries, qrels = judged()
    turbo = pipeline.quantize(TURBO, queries=queries, qrels=qrels)
    assert turbo.outcome == "kept"
    assert turbo.before is not None
    assert turbo.after is not None
    assert turbo.before.ndcg is not None
    assert turbo.after.ndcg is not None
    assert turbo.after.ndcg > turbo.before.ndcg
    assert turbo.loss == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("threshold", [100, 1_000])
def test_scalar_is_in_effect_with_a_graph_and_without(index: Path, room: Path, threshold: int) -> None:
    with TwoStagePipeline.open(index, settings(room / "tiny", hnsw={"threshold": threshold})) as pipeline:
        report = pipeline.quantize(Quantization("scalar"), sample=20)
        assert report.outcome == "kept"
        assert report.after is not None
        assert (report.after.in_effect, report.after.bytes_per_passage) == (1.0, 36)


@pytest.mark.parametrize(
    "quantization", [Quantization("turbo", 1.5), Quantization("binary", 1), Quantization("scalar")], ids=str
)
def test_the_bytes_are_those_of_the_engine(tmp_path: Path, quantization: Quantization) -> None:
    import numpy as np

    from tests.test_store_edge import points

    config = parse_config({"store": {"kind": "edge"}, "hnsw": {"threshold": 1, "m": 4, "ef_construct": 8}})
    store = open_store(config, dim=8, path=tmp_path / "index")
    store.upsert(points(1, 300))
    store.set_quantization(quantization)
    found = store.search([SearchRequest(np.eye(8, dtype=np.float32)[0], 5, rescore=False)])
    assert len(found[0]) == 5
    store.close()
    (codes,) = (tmp_path / "index").rglob("quantized.data")
    assert codes.stat().st_size == 300 * code_bytes(quantization, 8)


def test_a_store_in_memory_compresses_nothing(room: Path) -> None:
    with TwoStagePipeline.open(config=settings(room / "tiny", store={"kind": "memory"})) as pipeline:
        with pytest.raises(StoreError, match="has no passages to make queries of"):
            pipeline.quantize()
        pipeline.ingest(documents(30))
        report = pipeline.quantize()
        assert report.outcome == "not in effect"
        assert "a store in memory compresses nothing" in report.reason


def test_searches_go_on_and_are_right(pipeline: TwoStagePipeline) -> None:
    text = documents(PASSAGES)[7][1]
    expected = [hit.document_id for hit in pipeline.search(text, 3, rerank=False, first_stage="dense")]
    stop, wrong, seen = threading.Event(), list[object](), [0]

    def search() -> None:
        while not stop.is_set():
            try:
                found = [hit.document_id for hit in pipeline.search(text, 3, rerank=False, first_stage="dense")]
            except Exception as error:
                wrong.append(error)
                return
            seen[0] += 1
            if found != expected:
                wrong.append(found)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for wanted in (TURBO, NOTHING):
            assert pipeline.quantize(wanted, sample=20 if wanted.kind != "none" else None).done
    finally:
        stop.set()
        thread.join()
    assert not wrong
    assert seen[0] > 5


@pytest.mark.parametrize("stage", ["switching to turbo", "after"])
def test_what_is_interrupted_is_taken_back(pipeline: TwoStagePipeline, stage: str) -> None:
    def interrupt(doing: str, done: int, of: int) -> None:
        if doing.startswith(stage):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.quantize(TURBO, sample=20, on_progress=interrupt)
    assert pipeline.store.quantization == NOTHING
    assert is_float_search(pipeline)
    assert pipeline.ingest([("new", word(1, 0))]).added == 1


def test_a_rebuild_that_fails_leaves_float_search_and_says_so(
    pipeline: TwoStagePipeline, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.stores import edge_engine

    with monkeypatch.context() as broken:
        broken.setattr(edge_engine, "_OPTIMIZE", "raise SystemExit('no luck')")
        with pytest.raises(StoreError, match=r"no luck.*; taking it back failed too: .*no luck"):
            pipeline.quantize(BINARY, sample=20)
        assert is_float_search(pipeline)
        shown = " ".join(run("info", "--index", index).out.split())
        assert "quantization none; a change of it was interrupted or is under way" in shown
        assert json.loads(run("info", "--index", index, "--json").out)["quantization_interrupted"] is True
    assert pipeline.quantize(NOTHING).outcome == "off"
    assert json.loads(run("info", "--index", index, "--json").out)["quantization_interrupted"] is False
    assert is_float_search(pipeline)


def test_judgements_of_other_documents_change_nothing(pipeline: TwoStagePipeline) -> None:
    queries, _ = judged()
    foreign = {name: {"elsewhere": 1} for name in queries}
    with pytest.raises(ValueError, match="not one of 20 queries finds a document that is relevant"):
        pipeline.quantize(queries=queries, qrels=foreign)
    assert pipeline.store.quantization == NOTHING
    with pytest.raises(StoreError, match="no vectors that are near to any of 1 queries"):
        pipeline.quantize(queries=["qqqq"])
    for max_loss in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="max_loss is from 0 to 1"):
            pipeline.quantize(queries=queries, max_loss=max_loss)


def test_a_sample_of_queries() -> None:
    assert evenly(list("abcdefgh"), 3) == ["a", "c", "f"]
    assert evenly(["a"], 5) == ["a"]
    store: Any = None
    sampled = SampledQueries.of(store, {"1": "one", "2": " ", "3": "three", "4": "four"}, {"3": {"d": 1}, "2": {}}, 5)
    assert (sampled.kind, dict(sampled.texts), sampled.qrels) == ("judged", {"3": "three"}, {"3": {"d": 1}})
    real = SampledQueries.of(store, [f"query {n}" for n in range(2_000)], None, None)
    assert (real.kind, len(real.texts), real.texts["1"], real.qrels) == ("real", 1_000, "query 0", None)
    refused: list[tuple[Any, Any, int | None, str]] = [
        (["a"], None, 0, "sample is a whole number from 1"),
        ([" "], None, None, "there is no query"),
        ({"1": "a"}, {"2": {"d": 1}}, None, "none of 1 queries is judged"),
        (None, {"2": {"d": 1}}, None, "give the queries too"),
    ]
    for queries, qrels, sample, message in refused:
        with pytest.raises(ValueError, match=message):
            SampledQueries.of(store, queries, qrels, sample)
    with pytest.raises(TypeError, match="not the string 'a'"):
        SampledQueries.of(store, "a", None, None)


def test_pseudo_queries_are_titles_and_sentences(room: Path) -> None:
    texts: Mapping[str, str] = {
        "title": "Short one. This sentence in the middle has eight words. No.",
        "long": " ".join(f"w{n}" for n in range(60)),
        "few": "two words",
    }
    with TwoStagePipeline.open(config=settings(room / "tiny", store={"kind": "memory"})) as pipeline:
        pipeline.ingest(Document(id=name, text=text) for name, text in texts.items())
        made = pseudo_queries(pipeline.store, 10)
        assert sorted(made) == [
            "This sentence in the middle has eight words.",
            " ".join(f"w{n}" for n in range(30, 46)),
        ]
        assert pseudo_queries(pipeline.store, 10) == made
        assert pseudo_queries(pipeline.store, 1) == made[:1]
        pipeline.delete(list(texts))
        titled = [Document(id=str(n), text=f"word{n} " * 6, title=f"The title number {n}") for n in range(20)]
        pipeline.ingest(titled)
        made = pseudo_queries(pipeline.store, 20)
        assert sum(query.startswith("The title number") for query in made) == 10


def test_query_files(tmp_path: Path) -> None:
    lines = tmp_path / "queries.txt"
    lines.write_text("\ufeffhow does it work?\n\n  where is it \n", encoding="utf-8")
    assert read_queries(lines) == {"1": "how does it work?", "3": "where is it"}
    objects = tmp_path / "queries.jsonl"
    objects.write_text('{"_id": "a", "text": "one"}\n\n{"text": "two"}\n{"_id": "c", "text": ""}\n')
    assert read_queries(objects) == {"a": "one", "3": "two"}
    judgements = tmp_path / "test.tsv"
    judgements.write_text("query-id\tcorpus-id\tscore\na\td1\t1\n")
    assert read_judged(judgements, objects) == ({"a": "one", "3": "two"}, {"a": {"d1": 1}})
    with pytest.raises(ValueError, match="need their queries"):
        read_judged(judgements, None)
    with pytest.raises(ValueError, match="has its own queries"):
        read_judged(tmp_path, objects)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no query"),
        ("a.txt", b"\n \n", "holds no query"),
        ("a.txt", b"caf\xe9", "not a text file in UTF-8"),
        ("a.txt", b"a\0b", "zero bytes"),
        ("a.jsonl", b"{", r"a\.jsonl#1 is not JSON"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl#1 is not JSON"),
        ("a.jsonl", b'{"query": "x"}', r"a\.jsonl#1 is no query"),
        ("a.jsonl", b"3", r"a\.jsonl#1 is no query"),
        ("missing.txt", None, "cannot read the queries"),
    ],
)
def test_query_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        read_queries(tmp_path / name)


def test_the_command_keeps_takes_back_and_explains(index: Path, tmp_path: Path) -> None:
    done = run("quantize", "--index", index, "--sample", 20)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].split() == ["before", "after"]
    assert "vectors searched, bytes a passage" in done.out
    assert f"take it back any time with: retrieval quantize --off --index {index}" in " ".join(done.out.split())
    queries, qrels = judged()
    asked, judgements = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    asked.write_text("\n".join(json.dumps({"_id": name, "text": text}) for name, text in queries.items()))
    judgements.write_text("\n".join(f"{q}\t{d}\t{g}" for q, grades in qrels.items() for d, g in grades.items()))
    options = ["--kind", "binary", "--no-rescore", "--queries", asked, "--qrels", judgements, "--index", index]
    lost = run("quantize", *options)
    assert lost.code == 1
    assert "nDCG@10, static arm" in lost.out
    assert max(map(len, lost.out.splitlines())) <= COLUMNS
    assert lost.err.startswith("error: binary 1 bit, not rescored loses 0.")
    record = json.loads(run("quantize", *options, "--max-loss", 1, "--json").out)
    assert (record["outcome"], record["asked"], record["measure"]) == ("kept", "judged", "nDCG@10")
    assert record["quantization"]["kind"] == "binary"
    assert record["after"]["bytes_per_passage"] == 16
    off = run("quantize", "--off", "--index", index)
    assert (off.code, "binary 1 bit, not rescored is off" in off.out) == (0, True)
    off_again = json.loads(run("quantize", "--off", "--index", index, "--json").out)
    assert (off_again["outcome"], off_again["measure"], off_again["before"]) == ("off", None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--off", "--kind", "turbo"], "--off stands alone"),
        (["--off", "--sample", "3"], "--off stands alone"),
        (["--kind", "none"], "say --off"),
        (["--kind", "zip"], "quantization.kind"),
        (["--bits", "3"], "bits is 1, 1.5, 2, 4 or 8, not 3"),
        (["--query-bits", "8"], "query_bits is a setting of binary quantization"),
        (["--oversampling", "0.5"], "oversampling"),
        (["--max-loss", "2"], "max_loss is from 0 to 1"),
        (["--qrels", "nowhere.tsv"], "need their queries"),
    ],
)
def test_bad_usage(room: Path, options: list[str], message: str) -> None:
    done = run("quantize", "--index", room / "index", *options)
    assert (done.code, message in " ".join(done.err.split())) == (2, True), done.err
    assert run("quantize", "--index", room / "nowhere").code == 1


def test_random_words_do_not_end_it(pipeline: TwoStagePipeline) -> None:
    chosen = random.Random(4)
    words = ["\u202e", "\0", "🙂", "not known", word(chosen.randrange(CONCEPTS), 1), "", "x" * 10_000]
    report = pipeline.quantize(TURBO, queries=[" ".join(chosen.sample(words, 3)) for _ in range(20)], max_loss=1)
    assert report.outcome == "kept"
    assert DIM == 32
