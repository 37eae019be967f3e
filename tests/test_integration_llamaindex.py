from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pydantic import Field

from pipelines import LazyPipeline, TwoStagePipeline
from retrieval.errors import ModelError
from retrieval.integrations.llamaindex import CrossEncoderPostprocessor, StaticEmbedding, TwoStageRetriever
from tests.adapter_index import PIPES, build_index, keeps, of_year


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_index(tmp_path_factory.mktemp("llamaindex") / "index")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Iterator[LazyPipeline]:
    with LazyPipeline(folder) as opened:
        yield opened


@pytest.fixture
def by_words(pipeline: LazyPipeline) -> TwoStageRetriever:
    """BM25 alone, whose order is known."""
    return TwoStageRetriever(pipeline, first_stage="bm25", rerank=False)


def ids(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.metadata["document_id"] for node in nodes]


@keeps("llamaindex.TwoStageRetriever", "scores", "ranks")
def test_ranks_and_scores_of_both_stages_are_kept(pipeline: LazyPipeline) -> None:
    nodes = TwoStageRetriever(pipeline, top_k=4).retrieve(PIPES)
    hits = pipeline.search(PIPES, top_k=4)
    assert len(nodes) == 4
    for node, hit in zip(nodes, hits, strict=True):
        details = node.metadata["two_stage"]
        assert node.score == details["score"] == hit.score
        assert type(node.score) is float
        assert (details["rank"], details["first_stage_rank"]) == (hit.rank, hit.first_stage_rank)
        assert (details["first_stage_score"], details["rerank_score"]) == (hit.first_stage_score, hit.rerank_score)
        assert details["probability"] == hit.probability
        for arm in ("dense", "bm25"):
            assert (details[arm]["rank"], details[arm]["score"]) == (hit.arms[arm].rank, hit.arms[arm].score)
    assert {node.metadata["document_id"]: node.metadata["two_stage"]["bm25"]["rank"] for node in nodes} == {
        "pipe-1": 1,
        "pipe-2": 2,
        "pipe-3": 3,
        "pipe-4": 4,
    }


@keeps("llamaindex.TwoStageRetriever", "metadata")
def test_the_metadata_and_the_place_of_the_document_are_kept(pipeline: LazyPipeline) -> None:
    (found,) = TwoStageRetriever(pipeline, top_k=1).retrieve("what do tides follow?")
    node = found.node
    assert isinstance(node, TextNode)
    assert (node.text, node.start_char_idx, node.end_char_idx) == ("Tides follow the moon.", 0, 22)
    assert (node.node_id, node.ref_doc_id) == (node.metadata["two_stage"]["passage_id"], "moon")
    assert (node.metadata["title"], node.metadata["source"]) == ("Tides", "/notes/moon.md")
    assert node.metadata["tags"] == ["sea", "sky"]
    assert json.loads(json.dumps(node.metadata)) == node.metadata


def test_a_language_model_is_shown_the_metadata_of_the_document_only(pipeline: LazyPipeline) -> None:
    (found,) = TwoStageRetriever(pipeline, top_k=1).retrieve("what do tides follow?")
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        shown = found.node.get_content(mode)
        assert "source: /notes/moon.md" in shown
        assert "topic: moon" in shown
        assert "two_stage" not in shown
        assert "document_id" not in shown


def test_settings_of_a_search(pipeline: LazyPipeline, by_words: TwoStageRetriever) -> None:
    assert ids(by_words.retrieve(PIPES)) == ["pipe-1", "pipe-2", "pipe-3", "pipe-4"]
    filtered = TwoStageRetriever(pipeline, first_stage="bm25", where=of_year(2003))
    assert ids(filtered.retrieve(PIPES)) == ["pipe-3"]
    with pytest.raises(TypeError, match="there is no search setting 'similarity_top_k'; there are top_k,"):
        TwoStageRetriever(pipeline, similarity_top_k=3)
    with pytest.raises(ValueError, match="top_k is a whole number from 1, not 0"):
        TwoStageRetriever(pipeline, top_k=0).retrieve(PIPES)


@keeps("llamaindex.TwoStageRetriever", "async")
def test_async_calls_side_by_side(by_words: TwoStageRetriever) -> None:
    async def ask() -> list[list[NodeWithScore]]:
        return await asyncio.gather(*(by_words.aretrieve(query) for query in (PIPES, "vanilla", "submarine")))

    answers = [ids(nodes) for nodes in asyncio.run(ask())]
    assert answers == [["pipe-1", "pipe-2", "pipe-3", "pipe-4"], ["bread-4"], []]


@keeps("llamaindex.TwoStageRetriever", "copied and written")
def test_a_retriever_is_copied_and_pickled_by_the_address_of_its_index(by_words: TwoStageRetriever) -> None:
    for twin in (copy.deepcopy(by_words), pickle.loads(pickle.dumps(by_words))):
        assert ids(twin.retrieve("vanilla")) == ["bread-4"]
    node = by_words.retrieve("vanilla")[0].node
    assert TextNode.from_dict(json.loads(node.to_json())) == node


class Callbacks(BaseCallbackHandler):
    def __init__(self) -> None:
        super().__init__([], [])
        self.ends: list[tuple[CBEventType, list[str]]] = []

    def on_event_start(self, event_type: CBEventType, payload: Any = None, event_id: str = "", **_: Any) -> str:
        return event_id

    def on_event_end(self, event_type: CBEventType, payload: Any = None, event_id: str = "", **_: Any) -> None:
        self.ends.append((event_type, [node.node.text for node in payload[EventPayload.NODES]]))

    def start_trace(self, trace_id: str | None = None) -> None:
        pass

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        pass


class Events(BaseEventHandler):
    seen: list[str] = Field(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self.seen.append(event.class_name())


def test_events_and_callbacks_of_the_framework(pipeline: LazyPipeline) -> None:
    callbacks, events = Callbacks(), Events()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(events)
    try:
        manager = CallbackManager([callbacks])
        nodes = TwoStageRetriever(pipeline, callback_manager=manager, top_k=1).retrieve("what do tides follow?")
        CrossEncoderPostprocessor(callback_manager=manager).postprocess_nodes(nodes, query_str="tides")
    finally:
        dispatcher.event_handlers.remove(events)
    assert callbacks.ends == [
        (kind, ["Tides follow the moon."]) for kind in (CBEventType.RETRIEVE, CBEventType.RERANKING)
    ]
    assert events.seen == ["RetrievalStartEvent", "RetrievalEndEvent", "ReRankStartEvent", "ReRankEndEvent"]


ANSWER = "Yeast makes dough rise because it ferments sugar into gas."
TEXTS = ["The moon causes the tides.", "Rye flour is grey.", ANSWER]


def given() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(place), text=text, metadata={"place": place}), score=0.5)
        for place, text in enumerate(TEXTS)
    ]


@keeps("llamaindex.CrossEncoderPostprocessor", "scores", "ranks", "metadata")
def test_the_postprocessor_puts_the_answer_first() -> None:
    nodes = given()
    best = CrossEncoderPostprocessor(top_n=2).postprocess_nodes(nodes, query_str="why does dough rise?")
    details = [node.metadata["two_stage"] for node in best]
    assert (best[0].node.node_id, best[0].metadata["place"], len(best)) == ("2", 2, 2)
    assert (details[0]["rank"], details[0]["input_rank"], details[1]["rank"]) == (1, 3, 2)
    assert best[0].score == details[0]["score"] > details[1]["score"] == best[1].score
    assert details[0]["probability"] > 3 * details[1]["probability"] > 0
    assert details[0]["rerank_score"] > details[1]["rerank_score"]
    assert "two_stage" not in best[0].node.get_content(MetadataMode.LLM)
    assert [(node.score, node.metadata) for node in nodes] == [(0.5, {"place": place}) for place in range(3)]


def test_the_postprocessor_keeps_what_the_first_search_found(by_words: TwoStageRetriever) -> None:
    best = CrossEncoderPostprocessor().postprocess_nodes(by_words.retrieve(PIPES), query_str="gutter of a roof")
    first = best[0].metadata["two_stage"]
    assert best[0].metadata["document_id"] == "pipe-4"
    assert (first["rank"], first["input_rank"], first["first_stage_rank"], first["bm25"]["rank"]) == (1, 4, 4, 4)


def test_limits_of_the_postprocessor() -> None:
    assert CrossEncoderPostprocessor().postprocess_nodes([], query_str="nothing") == []
    with pytest.raises(ValueError, match="reranking needs the query"):
        CrossEncoderPostprocessor().postprocess_nodes(given())
    with pytest.raises(ValueError, match="top_n is at least 1, not -1"):
        CrossEncoderPostprocessor(top_n=-1).postprocess_nodes(given(), query_str="why?")
    with pytest.raises(ModelError, match="'no such model' is neither bundled"):
        CrossEncoderPostprocessor(model="no such model").postprocess_nodes(given(), query_str="why?")


@keeps("llamaindex.CrossEncoderPostprocessor", "async")
def test_the_postprocessor_in_an_event_loop() -> None:
    postprocessor = CrossEncoderPostprocessor(top_n=1)

    async def ask() -> list[Any]:
        queries = ("why does dough rise?", "cause of tides")
        return await asyncio.gather(*(postprocessor.apostprocess_nodes(given(), query_str=query) for query in queries))

    assert [best[0].node.node_id for best in asyncio.run(ask())] == ["2", "0"]


@keeps("llamaindex.CrossEncoderPostprocessor", "copied and written")
def test_a_postprocessor_is_written_as_its_settings() -> None:
    postprocessor = CrossEncoderPostprocessor(top_n=1, budget_ms=500)
    written = json.loads(postprocessor.to_json())
    assert written == {
        "class_name": "CrossEncoderPostprocessor",
        "model": "starter-reranker",
        "top_n": 1,
        "budget_ms": 500,
    }
    for twin in (
        CrossEncoderPostprocessor.from_dict(written),
        copy.deepcopy(postprocessor),
        pickle.loads(pickle.dumps(postprocessor)),
    ):
        (best,) = twin.postprocess_nodes(given(), query_str="why does dough rise?")
        assert best.node.node_id == "2"


def test_embeddings_are_those_of_the_static_encoder(tmp_path: Path) -> None:
    with TwoStagePipeline.open(tmp_path / "index") as opened:
        expected = opened.encoder.encode_documents(TEXTS).tolist()
    embedding = StaticEmbedding()
    assert embedding.get_text_embedding_batch(TEXTS) == expected
    assert embedding.get_text_embedding(TEXTS[0]) == embedding.get_query_embedding(TEXTS[0]) == expected[0]
    assert len(StaticEmbedding(dimensions=64).get_query_embedding("tides")) == 64
    with pytest.raises(ValueError, match="dimensions is 1 to 256"):
        StaticEmbedding(dimensions=257).get_query_embedding("tides")


@keeps("llamaindex.StaticEmbedding", "metadata")
def test_an_index_of_llamaindex_searches_with_the_embedding() -> None:
    index = VectorStoreIndex([node.node for node in given()], embed_model=StaticEmbedding())
    (best,) = index.as_retriever(similarity_top_k=1).retrieve("what makes dough rise")
    assert best.metadata == {"place": 2}


@keeps("llamaindex.StaticEmbedding", "async")
def test_embeddings_in_an_event_loop() -> None:
    embedding = StaticEmbedding(dimensions=16, embed_batch_size=2)

    async def ask() -> Any:
        return await asyncio.gather(
            embedding.aget_query_embedding("moon"),
            embedding.aget_text_embedding_batch(["sun", "sky", "moon"]),
        )

    query, documents = asyncio.run(ask())
    assert (query, len(documents)) == (documents[2], 3)


@keeps("llamaindex.StaticEmbedding", "copied and written")
def test_an_embedding_is_written_as_its_settings() -> None:
    embedding = StaticEmbedding(dimensions=16)
    written = json.loads(embedding.to_json())
    assert (written["class_name"], written["model_name"], written["dimensions"]) == (
        "StaticEmbedding",
        "starter-static",
        16,
    )
    for twin in (StaticEmbedding.from_dict(written), pickle.loads(pickle.dumps(embedding))):
        assert twin.get_text_embedding("moon") == embedding.get_text_embedding("moon")
