"""The whole pipeline over real parts: bundled models, both local stores, documents small enough to reason about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines import TwoStagePipeline
from pipelines.counts import repair
from retrieval.config import Config, parse_config
from retrieval.datatypes import Document, IngestProgress, Point
from retrieval.errors import DocumentError, IndexMismatchError, ModelError, StoreError, StoreInputError

TEXTS = {
    "pump": "The pump in the cellar moves water out of the house when it rains.",
    "pipe": "A leaking pipe under the sink can be sealed with epoxy putty until the plumber arrives.",
    "bread": "Knead the dough for ten minutes and let the bread rise overnight in the fridge.",
    "yeast": "Yeast turns sugar into carbon dioxide, and this gas makes dough rise.",
    "fermat": "Fermat wrote that the margin of his book was too narrow for the proof.",
    "prime": "A prime number has exactly two divisors, one and itself.",
    "whale": "The blue whale is the largest animal that has ever lived on earth.",
    "bat": "Bats find their way in the dark by listening to the echo of their own calls.",
    "moon": "The moon pulls the oceans and so causes the tides twice a day.",
    "sun": "Sunlight needs about eight minutes to travel from the sun to the earth.",
    "guitar": "A guitar has six strings, which are tuned from low to high E A D G B E.",
    "violin": "A violin is played with a bow of horse hair and is held under the chin.",
}


@pytest.fixture(params=["memory", "edge"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TwoStagePipeline]:
    config = parse_config({"store": {"kind": request.param}})
    with TwoStagePipeline.open(tmp_path / "index", config) as opened:
        yield opened


def pairs() -> list[tuple[str, str]]:
    return list(TEXTS.items())


def ids(results: object) -> list[str]:
    return [hit.document_id for hit in results]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("how do I seal a leaking pipe", "pipe"),
        ("why does dough rise", "yeast"),
        ("how many strings does a guitar have", "guitar"),
        ("what causes the tides", "moon"),
        ("largest animal on earth", "whale"),
    ],
)
def test_the_passage_that_answers_comes_first(pipeline: TwoStagePipeline, query: str, expected: str) -> None:
    pipeline.ingest(pairs())
    assert pipeline.search(query, top_k=3)[0].document_id == expected


def test_a_hit_carries_ranks_and_scores_of_both_stages(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    results = pipeline.search("leaking pipe under the sink", top_k=3)
    best = results[0]
    assert best.document_id == "pipe"
    assert best.first_stage_rank == 1
    assert best.first_stage_score == pytest.approx(1.0)
    assert best.arms["dense"].rank == 1
    assert best.arms["bm25"].rank == 1
    assert best.rerank_score is not None
    assert best.read == (0, len(TEXTS["pipe"]))
    assert best.text == TEXTS["pipe"][best.start : best.end]
    assert [hit.rank for hit in results] == [1, 2, 3]
    assert [hit.score for hit in results] == sorted((hit.score for hit in results), reverse=True)
    assert results.timings.total >= results.timings.encode + results.timings.retrieve
    assert results.stopped in {"complete", "settled", "likely"}
    assert 1 <= results.reranked <= 12


def test_without_reranking_the_first_stage_stands(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    results = pipeline.search("why does bread dough rise", top_k=12, rerank=False)
    assert [hit.first_stage_rank for hit in results] == list(range(1, len(results) + 1))
    assert {hit.rerank_score for hit in results} == {None}
    assert (results.reranked, results.stopped) == (0, "off")


def test_one_arm_alone(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    lexical = pipeline.search("dough", top_k=12, rerank=False, first_stage="bm25")
    assert set(ids(lexical)) == {"bread", "yeast"}
    assert all(set(hit.arms) == {"bm25"} for hit in lexical)
    dense = pipeline.search("dough", top_k=12, rerank=False, first_stage="dense")
    assert len(dense) == 12
    assert all(set(hit.arms) == {"dense"} for hit in dense)


def test_top_five_is_the_prefix_of_top_ten(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    for query in ("the earth and the sun", "what makes dough rise", "music instruments with strings"):
        few, many = pipeline.search(query, top_k=5), pipeline.search(query, top_k=10)
        assert [(hit.passage_id, hit.score) for hit in few] == [(hit.passage_id, hit.score) for hit in many][:5]


def test_search_many_equals_single_searches(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    queries = ["why does dough rise", "", "tides", "strings of a guitar"]
    together = pipeline.search_many(queries, top_k=4)
    alone = [pipeline.search(query, top_k=4) for query in queries]
    assert [results.hits for results in together] == [results.hits for results in alone]
    assert [results.query for results in together] == queries


def test_asearch_gives_the_same(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    assert asyncio.run(pipeline.asearch("what causes tides", 3)).hits == pipeline.search("what causes tides", 3).hits


def test_filters_hold_in_both_arms(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(
        Document(name, text, metadata={"number": position, "even": position % 2 == 0})
        for position, (name, text) in enumerate(TEXTS.items())
    )
    where = {"must": [{"key": "metadata.number", "range": {"lt": 4}}]}
    assert set(ids(pipeline.search("water and dough", top_k=12, where=where))) <= {"pump", "pipe", "bread", "yeast"}
    even = {"must": [{"key": "metadata.even", "match": {"value": True}}]}
    assert set(ids(pipeline.search("earth", top_k=12, where=even, first_stage="dense"))) == set(list(TEXTS)[::2])


def test_grouping_keeps_the_best_passage_of_a_document(tmp_path: Path) -> None:
    config = parse_config({"store": {"kind": "memory"}, "chunking": {"max_tokens": 16, "overlap_tokens": 0}})
    book = " ".join(TEXTS.values())
    with TwoStagePipeline.open(tmp_path, config) as pipeline:
        pipeline.ingest([("book", book), ("pipe", TEXTS["pipe"])])
        assert pipeline.manifest.passages > 10
        grouped = pipeline.search("leaking pipe", top_k=5)
        assert sorted(ids(grouped)) == ["book", "pipe"]
        passages = pipeline.search("leaking pipe", top_k=5, group_by="passage")
        assert ids(passages).count("book") >= 3


def test_second_ingest_changes_nothing(pipeline: TwoStagePipeline) -> None:
    first = pipeline.ingest(pairs())
    assert (first.added, first.changed, first.unchanged, first.passages) == (12, 0, 0, 12)
    before = pipeline.manifest
    second = pipeline.ingest(pairs())
    assert (second.added, second.changed, second.unchanged, second.passages) == (0, 0, 12, 0)
    assert pipeline.manifest == before


def test_a_changed_document_replaces_the_old_one(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    report = pipeline.ingest([("pipe", "A rubber clamp also stops a leaking pipe."), ("bat", TEXTS["bat"])])
    assert (report.added, report.changed, report.unchanged) == (0, 1, 1)
    assert pipeline.store.count() == pipeline.manifest.passages == 12
    assert pipeline.search("leaking pipe")[0].text == "A rubber clamp also stops a leaking pipe."


def test_manifest_counts_equal_the_store(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    pipeline.ingest([("pipe", "Something else about pipes."), ("new", "A new text about gardens.")])
    pipeline.delete(["whale"])
    counts = repair(pipeline.store)
    assert (
        counts.as_manifest_fields().items()
        <= {
            field: getattr(pipeline.manifest, field) for field in ("documents", "passages", "terms", "ids_digest")
        }.items()
    )
    assert (counts.documents, counts.passages) == (12, 12)


def test_delete_removes_documents_and_counts_them(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    assert pipeline.delete(["pipe", "unknown"]) == 1
    assert pipeline.delete(["pipe"]) == 0
    assert "pipe" not in ids(pipeline.search("leaking pipe", top_k=12))
    with pytest.raises(TypeError, match="the string 'pump'"):
        pipeline.delete("pump")


def test_rejected_documents_have_reasons_and_the_rest_goes_in(pipeline: TwoStagePipeline) -> None:
    report = pipeline.ingest([("ok", "A usable text."), ("empty", "   "), ("same", "One."), ("same", "Two.")])
    assert (report.added, report.rejected_count) == (2, 2)
    reasons = {item.source: item.reason for item in report.rejected}
    assert "empty" in reasons["empty"]
    assert "'same'" in reasons["same"]


def test_a_document_without_any_known_word_is_rejected(pipeline: TwoStagePipeline) -> None:
    report = pipeline.ingest([("odd", "\u2063 \u200b"), ("good", "plain words")])
    assert report.added == 1
    assert [item.source for item in report.rejected] == ["odd"]


def test_sync_removes_what_vanished_only_inside_the_folder(pipeline: TwoStagePipeline, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        for name in ("pump", "pipe", "bread"):
            (folder / f"{name}.txt").write_text(f"{folder.name}: {TEXTS[name]}", encoding="utf-8")
    pipeline.ingest(here)
    pipeline.ingest(there)
    (here / "pipe.txt").unlink()
    assert pipeline.ingest(here).removed == 0
    report = pipeline.ingest(here, sync=True)
    assert (report.removed, report.unchanged, pipeline.manifest.documents) == (1, 2, 5)
    for path in here.iterdir():
        path.unlink()
    with pytest.raises(DocumentError, match="nothing was read"):
        pipeline.ingest(here, sync=True)
    with pytest.raises(ValueError, match="sync"):
        pipeline.ingest(pairs(), sync=True)


def test_average_length_follows_the_corpus(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest([("short", "two words")])
    assert pipeline.manifest.average_length == 2
    pipeline.ingest([("long", "garden flower tree house river mountain"), ("longer", " ".join(TEXTS.values()))])
    exact = pipeline.manifest.terms / pipeline.manifest.passages
    assert pipeline.manifest.average_length == exact
    # The stored weights are those of the new average, also for the passage that came before.
    expected, _ = pipeline.sparse.encode_documents(["two words"], exact)
    weight = pipeline.search("words", first_stage="bm25", rerank=False)[0].arms["bm25"].score
    assert weight == pytest.approx(float(expected[0].values[0]) * np.log(1 + (3 - 1 + 0.5) / 1.5), rel=1e-4)


def test_progress_is_reported(pipeline: TwoStagePipeline) -> None:
    seen: list[IngestProgress] = []
    pipeline.ingest(pairs(), on_progress=seen.append)
    assert seen[-1].stage == "committing"
    assert (seen[-1].documents, seen[-1].passages) == (12, 12)


def test_empty_and_hopeless_queries_give_warnings_not_errors(pipeline: TwoStagePipeline) -> None:
    assert len(pipeline.search("anything at all")) == 0
    pipeline.ingest(pairs())
    empty = pipeline.search("  ")
    assert (len(empty), empty.warnings) == (0, ("the query is empty",))
    assert "nothing matches" in pipeline.search("\u2063").warnings[0]


def test_negation_is_announced_and_read_deeper(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    results = pipeline.search("an animal that is not a whale", depth=2, top_k=12)
    assert "'not'" in results.warnings[0]
    assert "may read 4 candidates" in results.warnings[0]
    assert results.reranked == 4
    unread = pipeline.search("an animal that is not a whale", rerank=False)
    assert "the cross-encoder did not read" in unread.warnings[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"top_k": 0},
        {"top_k": True},
        {"candidates": 0},
        {"depth": -1},
        {"budget_ms": 0.0},
        {"budget_ms": float("nan")},
        {"first_stage": "both"},
        {"group_by": "page"},
    ],
    ids=lambda arguments: "-".join(f"{key}={value}" for key, value in arguments.items()),
)
def test_bad_arguments_are_refused(pipeline: TwoStagePipeline, arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        pipeline.search("query", **arguments)  # type: ignore[arg-type]


def test_a_query_must_be_text(pipeline: TwoStagePipeline) -> None:
    with pytest.raises(TypeError, match="strings"):
        pipeline.search(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="strings"):
        pipeline.search_many("a string")


def test_a_missing_reranker_leaves_the_first_stage_and_says_so(tmp_path: Path) -> None:
    config = parse_config({"store": {"kind": "memory"}, "rerank": {"model": str(tmp_path / "nowhere")}})
    with TwoStagePipeline.open(tmp_path, config) as pipeline:
        pipeline.ingest(pairs())
        results = pipeline.search("why does dough rise")
    assert results[0].document_id == "yeast"
    assert results.stopped == "off"
    assert "not reranked" in results.warnings[0]


def test_the_index_survives_closing_and_remembers_its_settings(tmp_path: Path) -> None:
    config = parse_config({"encoder": {"dimensions": 128}, "bm25": {"language": "german"}})
    with TwoStagePipeline.open(tmp_path / "index", config) as pipeline:
        pipeline.ingest(pairs())
        expected = pipeline.search("what causes tides").hits
    with TwoStagePipeline.open(tmp_path / "index") as pipeline:
        assert pipeline.config.encoder.dimensions == 128
        assert pipeline.config.bm25.language == "german"
        assert pipeline.search("what causes tides").hits == expected


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"encoder": {"dimensions": 64}}, ["256 dims", "64 dims"]),
        ({"bm25": {"language": "german"}}, ["english", "german"]),
    ],
    ids=["encoder", "bm25"],
)
def test_an_index_of_other_settings_is_refused(tmp_path: Path, settings: dict[str, object], names: list[str]) -> None:
    with TwoStagePipeline.open(tmp_path / "index", Config()) as pipeline:
        pipeline.ingest(pairs())
    with pytest.raises(IndexMismatchError) as caught:
        TwoStagePipeline.open(tmp_path / "index", parse_config(settings))
    for name in names:
        assert name in str(caught.value)
    # The refusal released the index.
    TwoStagePipeline.open(tmp_path / "index").close()


def test_an_unknown_model_names_the_bundled_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="starter-static"):
        TwoStagePipeline.open(tmp_path / "index", parse_config({"encoder": {"model": "starter-statik"}}))


def test_use_after_close_is_an_error(tmp_path: Path) -> None:
    pipeline = TwoStagePipeline.open(tmp_path / "index")
    pipeline.close()
    pipeline.close()
    with pytest.raises(StoreError):
        pipeline.search("anything")


def test_from_config_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({"store": {"kind": "edge", "path": str(tmp_path / "here")}}), encoding="utf-8")
    with TwoStagePipeline.from_config(file, overrides=["search.top_k=2"]) as pipeline:
        pipeline.ingest(pairs())
        assert len(pipeline.search("the earth")) == 2
    assert (tmp_path / "here" / "manifest.json").is_file()


def test_explain_tells_what_matched(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    explanation = pipeline.explain("the leaking pipes", rerank=False)
    best = explanation.results[0]
    assert (best.document_id, best.first_stage_rank, set(best.arms)) == ("pipe", 1, {"dense", "bm25"})
    assert explanation.matched[0] == ("leaking", "pipe")
    assert explanation.terms.ignored == ("the",)
    assert explanation.terms.unknown == ()
    assert len(explanation.results) == len(explanation.matched) == 12


def test_what_the_store_refuses_is_rejected_document_by_document(
    pipeline: TwoStagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert = pipeline.store.upsert

    def strict(points: Sequence[Point]) -> None:
        for point in points:
            if point.payload["index"] == 1 and point.payload["document_id"] == "book":
                raise StoreInputError("this passage is not usable")
        upsert(points)

    monkeypatch.setattr(pipeline.store, "upsert", strict)
    book = "\n\n".join(f"Chapter {number}. " + TEXTS["pipe"] * 60 for number in range(3))
    report = pipeline.ingest([*pairs(), ("book", book)])
    assert (report.added, report.rejected_count) == (12, 1)
    assert report.rejected[0].reason == "this passage is not usable"
    assert "book" not in ids(pipeline.search("leaking pipe", top_k=13, first_stage="bm25"))
    assert pipeline.manifest.documents == 12


def test_searches_from_several_threads_agree(pipeline: TwoStagePipeline) -> None:
    pipeline.ingest(pairs())
    queries = ["why does dough rise", "strings of a guitar", "largest animal", "echo in the dark"] * 5
    expected = [pipeline.search(query, top_k=3).hits for query in queries]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda query: pipeline.search(query, top_k=3).hits, queries))
    assert found == expected
