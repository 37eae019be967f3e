from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.core.errors import DeserializationError, SerializationError
from haystack.document_stores.in_memory import InMemoryDocumentStore

from pipelines import LazyPipeline, TwoStagePipeline
from retrieval.errors import ModelError, StoreError
from retrieval.integrations.haystack import (
    CrossEncoderRanker,
    StaticDocumentEmbedder,
    StaticTextEmbedder,
    TwoStageRetriever,
)
from tests.adapter_index import PIPES, build_index, keeps, of_year

ALLOWED = ["retrieval", "pipelines"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_index(tmp_path_factory.mktemp("haystack") / "index")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Iterator[LazyPipeline]:
    with LazyPipeline(folder) as opened:
        yield opened


@pytest.fixture
def by_words(pipeline: LazyPipeline) -> TwoStageRetriever:
    """BM25 alone, whose order is known."""
    return TwoStageRetriever(pipeline, first_stage="bm25", rerank=False)


def ids(documents: list[Document]) -> list[str]:
    return [document.meta["document_id"] for document in documents]


@keeps("haystack.TwoStageRetriever", "scores", "ranks")
def test_ranks_and_scores_of_both_stages_are_kept(pipeline: LazyPipeline) -> None:
    documents = TwoStageRetriever(pipeline, top_k=4).run(query=PIPES)["documents"]
    hits = pipeline.search(PIPES, top_k=4)
    assert len(documents) == 4
    for document, hit in zip(documents, hits, strict=True):
        details = document.meta["two_stage"]
        assert document.score == details["score"] == hit.score
        assert type(document.score) is float
        assert (details["rank"], details["first_stage_rank"]) == (hit.rank, hit.first_stage_rank)
        assert (details["first_stage_score"], details["rerank_score"]) == (hit.first_stage_score, hit.rerank_score)
        assert details["probability"] == hit.probability
        for arm in ("dense", "bm25"):
            assert (details[arm]["rank"], details[arm]["score"]) == (hit.arms[arm].rank, hit.arms[arm].score)
    assert {document.meta["document_id"]: document.meta["two_stage"]["bm25"]["rank"] for document in documents} == {
        "pipe-1": 1,
        "pipe-2": 2,
        "pipe-3": 3,
        "pipe-4": 4,
    }


@keeps("haystack.TwoStageRetriever", "metadata")
def test_the_metadata_of_the_document_is_kept(pipeline: LazyPipeline) -> None:
    found = TwoStageRetriever(pipeline, top_k=1).run(query="what do tides follow?")
    (document,) = found["documents"]
    assert document.content == "Tides follow the moon."
    assert (document.meta["document_id"], document.meta["title"]) == ("moon", "Tides")
    assert (document.meta["source"], document.meta["tags"]) == ("/notes/moon.md", ["sea", "sky"])
    assert document.id == document.meta["two_stage"]["passage_id"]
    assert (document.meta["two_stage"]["start"], document.meta["two_stage"]["end"]) == (0, 22)
    assert found["search"] == document.meta["two_stage"]["search"]
    assert json.loads(json.dumps(document.meta)) == document.meta
    assert Document.from_dict(document.to_dict()) == document


def test_a_search_without_hits_says_why(by_words: TwoStageRetriever) -> None:
    found = by_words.run(query="submarine")
    assert found["documents"] == []
    assert "nothing matches" in found["search"]["warnings"][0]


def test_settings_of_the_component_and_of_a_run(by_words: TwoStageRetriever) -> None:
    assert ids(by_words.run(query=PIPES, top_k=2)["documents"]) == ["pipe-1", "pipe-2"]
    assert ids(by_words.run(query=PIPES, where=of_year(2003))["documents"]) == ["pipe-3"]
    (document,) = by_words.run(query=PIPES, top_k=1, budget_ms=10_000, settings={"rerank": True})["documents"]
    assert document.meta["two_stage"]["rerank_score"] is not None
    with pytest.raises(TypeError, match="there is no search setting 'filters'; there are top_k,"):
        by_words.run(query=PIPES, settings={"filters": {}})
    with pytest.raises(ValueError, match="top_k is a whole number from 1, not 0"):
        by_words.run(query=PIPES, top_k=0)


@keeps("haystack.TwoStageRetriever", "async")
def test_async_runs_side_by_side(by_words: TwoStageRetriever) -> None:
    async def ask() -> list[Any]:
        return await asyncio.gather(*(by_words.run_async(query=query) for query in (PIPES, "vanilla")))

    answers = [ids(found["documents"]) for found in asyncio.run(ask())]
    assert answers == [["pipe-1", "pipe-2", "pipe-3", "pipe-4"], ["bread-4"]]


def two_stages(folder: Path) -> Pipeline:
    """First the words of one query, then the cross-encoder with another."""
    built = Pipeline()
    built.add_component("retriever", TwoStageRetriever(LazyPipeline(folder), first_stage="bm25", rerank=False, top_k=4))
    built.add_component("ranker", CrossEncoderRanker(top_k=1))
    built.connect("retriever.documents", "ranker.documents")
    return built


QUERIES = {"retriever": {"query": PIPES}, "ranker": {"query": "gutter of a roof"}}


@keeps("haystack.TwoStageRetriever", "copied and written")
@keeps("haystack.CrossEncoderRanker", "copied and written")
def test_a_pipeline_is_written_to_yaml_and_read_back(folder: Path) -> None:
    built = two_stages(folder)
    text = built.dumps()
    assert f"index: {folder}" in text
    loaded = Pipeline.loads(text, allowed_modules=ALLOWED)
    assert loaded.dumps() == text
    try:
        assert ids(loaded.run(QUERIES)["ranker"]["documents"]) == ["pipe-4"]
        assert ids(built.run(QUERIES)["ranker"]["documents"]) == ["pipe-4"]
    finally:
        loaded.close()
        built.close()


def test_a_pipeline_that_is_closed_releases_the_index(tmp_path: Path) -> None:
    path = build_index(tmp_path / "index")
    built = two_stages(path)
    built.run(QUERIES)
    with pytest.raises(StoreError):
        TwoStagePipeline.open(path)
    built.close()
    TwoStagePipeline.open(path).close()
    assert ids(built.run(QUERIES)["ranker"]["documents"]) == ["pipe-4"]
    built.close()


def test_a_pipeline_is_run_in_an_event_loop(folder: Path) -> None:
    built = two_stages(folder)
    try:
        assert ids(asyncio.run(built.run_async(QUERIES))["ranker"]["documents"]) == ["pipe-4"]
    finally:
        built.close()


def test_nothing_is_opened_before_the_first_run(tmp_path: Path) -> None:
    built = two_stages(tmp_path / "nowhere")
    with pytest.raises(
        StoreError, match=r"there is no index in .*nowhere; make one with 'retrieval ingest PATH --index"
    ):
        built.warm_up()
    assert not (tmp_path / "nowhere").exists()


def test_yaml_may_only_name_what_is_allowed(folder: Path) -> None:
    text = two_stages(folder).dumps()
    with pytest.raises(DeserializationError, match=r"retrieval\.integrations\.haystack"):
        Pipeline.loads(text)
    with pytest.raises(DeserializationError, match=r"pipelines\.lazy"):
        Pipeline.loads(text, allowed_modules=["retrieval"])


def test_an_open_pipeline_is_not_written(tmp_path: Path) -> None:
    with TwoStagePipeline.open(build_index(tmp_path / "index")) as opened:
        retriever = TwoStageRetriever(opened, top_k=1)
        retriever.warm_up()
        assert ids(retriever.run(query="vanilla")["documents"]) == ["bread-4"]
        with pytest.raises(SerializationError, match=r"give the component LazyPipeline\(FOLDER\)"):
            retriever.to_dict()
        retriever.close()
        assert opened.search("vanilla")[0].document_id == "bread-4"


ANSWER = "Yeast makes dough rise because it ferments sugar into gas."
TEXTS = ["The moon causes the tides.", "Rye flour is grey.", ANSWER]


def given() -> list[Document]:
    return [Document(id=str(place), content=text, meta={"place": place}) for place, text in enumerate(TEXTS)]


@keeps("haystack.CrossEncoderRanker", "scores", "ranks", "metadata")
def test_the_ranker_puts_the_answer_first() -> None:
    documents = given()
    best = CrossEncoderRanker(top_k=2).run(query="why does dough rise?", documents=documents)["documents"]
    details = [document.meta["two_stage"] for document in best]
    assert (best[0].id, best[0].meta["place"], len(best)) == ("2", 2, 2)
    assert (details[0]["rank"], details[0]["input_rank"], details[1]["rank"]) == (1, 3, 2)
    assert best[0].score == details[0]["score"] > details[1]["score"] == best[1].score
    assert details[0]["probability"] > 3 * details[1]["probability"] > 0
    assert documents == given()


def test_limits_of_the_ranker() -> None:
    ranker = CrossEncoderRanker()
    assert ranker.run(query="nothing", documents=[])["documents"] == []
    assert len(ranker.run(query="empty", documents=[Document(content=None), Document(content="")])["documents"]) == 2
    assert len(ranker.run(query="why?", documents=given(), top_k=1)["documents"]) == 1
    with pytest.raises(ValueError, match="top_n is at least 1, not -1"):
        ranker.run(query="why?", documents=given(), top_k=-1)
    with pytest.raises(ModelError, match="'no such model' is neither bundled"):
        CrossEncoderRanker("no such model").warm_up()


@keeps("haystack.CrossEncoderRanker", "async")
def test_the_ranker_in_an_event_loop() -> None:
    ranker = CrossEncoderRanker(top_k=1)

    async def ask() -> list[Any]:
        queries = ("why does dough rise?", "cause of tides")
        return await asyncio.gather(*(ranker.run_async(query=query, documents=given()) for query in queries))

    assert [found["documents"][0].id for found in asyncio.run(ask())] == ["2", "0"]


@keeps("haystack.StaticDocumentEmbedder", "metadata")
def test_a_document_store_of_haystack_searches_with_the_embedders() -> None:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    documents = given()
    store.write_documents(StaticDocumentEmbedder().run(documents=documents)["documents"])
    assert all(document.embedding is None for document in documents)
    searching = Pipeline()
    searching.add_component("embedder", StaticTextEmbedder())
    searching.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    searching.connect("embedder.embedding", "retriever.query_embedding")
    found = searching.run({"embedder": {"text": "what makes dough rise"}}, include_outputs_from={"embedder"})
    assert found["retriever"]["documents"][0].meta == {"place": 2}
    assert found["embedder"]["meta"]["model"].startswith("starter-static@")


def test_embeddings_are_those_of_the_static_encoder(tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "index") as opened:
        expected = opened.encoder.encode_documents([*TEXTS, "2\n" + ANSWER]).tolist()
    embedded = StaticDocumentEmbedder().run(documents=given())["documents"]
    assert [document.embedding for document in embedded] == expected[:3]
    assert StaticTextEmbedder().run(text=TEXTS[0])["embedding"] == expected[0]
    with_place = StaticDocumentEmbedder(meta_fields_to_embed=["place", "absent"]).run(documents=given())["documents"]
    assert with_place[2].embedding == expected[3]
    assert StaticDocumentEmbedder().run(documents=[])["documents"] == []
    assert len(StaticTextEmbedder(dimensions=64).run(text="tides")["embedding"]) == 64


def test_embedders_are_not_confused() -> None:
    with pytest.raises(TypeError, match="documents go to StaticDocumentEmbedder"):
        StaticTextEmbedder().run(text=given())
    with pytest.raises(TypeError, match="a query goes to StaticTextEmbedder"):
        StaticDocumentEmbedder().run(documents="tides")
    with pytest.raises(ValueError, match="dimensions is 1 to 256"):
        StaticTextEmbedder(dimensions=257).warm_up()


@keeps("haystack.StaticTextEmbedder", "async")
@keeps("haystack.StaticDocumentEmbedder", "async")
def test_embedders_in_an_event_loop() -> None:
    async def ask() -> Any:
        return await asyncio.gather(
            StaticTextEmbedder(dimensions=16).run_async(text=ANSWER),
            StaticDocumentEmbedder(dimensions=16).run_async(documents=given()),
        )

    query, documents = asyncio.run(ask())
    assert query["embedding"] == documents["documents"][2].embedding


@keeps("haystack.StaticTextEmbedder", "copied and written")
@keeps("haystack.StaticDocumentEmbedder", "copied and written")
def test_embedders_are_written_to_yaml_and_read_back() -> None:
    built = Pipeline()
    built.add_component("text", StaticTextEmbedder(dimensions=16))
    built.add_component("documents", StaticDocumentEmbedder(dimensions=16, meta_fields_to_embed=["place"]))
    text = built.dumps()
    loaded = Pipeline.loads(text, allowed_modules=ALLOWED)
    assert loaded.dumps() == text
    found = loaded.run({"text": {"text": "2\n" + ANSWER}, "documents": {"documents": given()}})
    assert found["text"]["embedding"] == found["documents"]["documents"][2].embedding
