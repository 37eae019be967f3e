from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from pipelines import LazyPipeline, TwoStagePipeline
from retrieval.errors import ModelError
from retrieval.integrations.langchain import CrossEncoderCompressor, StaticEmbeddings, TwoStageRetriever
from tests.adapter_index import PIPES, build_index, keeps, of_year


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_index(tmp_path_factory.mktemp("langchain") / "index")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Iterator[LazyPipeline]:
    with LazyPipeline(folder) as opened:
        yield opened


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def by_words(pipeline: LazyPipeline) -> TwoStageRetriever:
    """BM25 alone, whose order is known."""
    return TwoStageRetriever(pipeline=pipeline, first_stage="bm25", rerank=False)


def ids(documents: list[Document]) -> list[str]:
    return [document.metadata["document_id"] for document in documents]


@pytest.mark.anyio
class TestTheRetrieverOfTheStandardTests(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _opened(self, pipeline: LazyPipeline) -> None:
        self.pipeline = pipeline

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return TwoStageRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"pipeline": self.pipeline}

    @property
    def retriever_query_example(self) -> str:
        return PIPES

    @property
    def num_results_arg_name(self) -> str:
        return "top_k"


class TestTheEmbeddingsOfTheUnitTests(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[StaticEmbeddings]:
        return StaticEmbeddings


@pytest.mark.anyio
class TestTheEmbeddingsOfTheIntegrationTests(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[StaticEmbeddings]:
        return StaticEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"dimensions": 32}


@keeps("langchain.TwoStageRetriever", "scores", "ranks")
def test_ranks_and_scores_of_both_stages_are_kept(pipeline: LazyPipeline) -> None:
    documents = TwoStageRetriever(pipeline=pipeline, top_k=4).invoke(PIPES)
    hits = pipeline.search(PIPES, top_k=4)
    assert len(documents) == 4
    for document, hit in zip(documents, hits, strict=True):
        details = document.metadata["two_stage"]
        assert document.metadata["relevance_score"] == details["score"] == hit.score
        assert (details["rank"], details["first_stage_rank"]) == (hit.rank, hit.first_stage_rank)
        assert (details["first_stage_score"], details["rerank_score"]) == (hit.first_stage_score, hit.rerank_score)
        assert details["probability"] == hit.probability
        for arm in ("dense", "bm25"):
            assert (details[arm]["rank"], details[arm]["score"]) == (hit.arms[arm].rank, hit.arms[arm].score)
        assert all(type(details[name]) is float for name in ("score", "probability", "rerank_score"))
    bm25 = {document.metadata["document_id"]: document.metadata["two_stage"]["bm25"]["rank"] for document in documents}
    assert bm25 == {"pipe-1": 1, "pipe-2": 2, "pipe-3": 3, "pipe-4": 4}


@keeps("langchain.TwoStageRetriever", "metadata")
def test_the_metadata_of_the_document_is_kept(pipeline: LazyPipeline) -> None:
    (document,) = TwoStageRetriever(pipeline=pipeline, top_k=1).invoke("what do tides follow?")
    assert document.page_content == "Tides follow the moon."
    known = {name: document.metadata[name] for name in ("document_id", "title", "source", "tags", "topic")}
    assert known == {
        "document_id": "moon",
        "title": "Tides",
        "source": "/notes/moon.md",
        "tags": ["sea", "sky"],
        "topic": "moon",
    }
    details = document.metadata["two_stage"]
    assert document.id == details["passage_id"]
    assert (details["start"], details["end"], details["read"]) == (0, 22, [0, 22])
    assert details["search"]["stopped"] in {"complete", "settled", "likely"}
    assert details["search"]["timings_ms"]["total"] > 0
    assert json.loads(json.dumps(document.metadata)) == document.metadata


def test_warnings_of_the_search_are_kept(by_words: TwoStageRetriever) -> None:
    (document,) = by_words.invoke("vanilla without sugar", where=of_year(2012))
    assert "'without'" in document.metadata["two_stage"]["search"]["warnings"][0]


def test_settings_of_the_retriever_and_of_the_call(by_words: TwoStageRetriever) -> None:
    assert ids(by_words.invoke(PIPES, top_k=2)) == ["pipe-1", "pipe-2"]
    assert ids(by_words.invoke(PIPES, where=of_year(2003))) == ["pipe-3"]
    assert ids(by_words.bind(top_k=1).invoke(PIPES)) == ["pipe-1"]
    unlimited = by_words.model_copy(update={"top_k": 1, "where": of_year(2003)})
    assert ids(unlimited.invoke(PIPES, top_k=None, where=None)) == ["pipe-1", "pipe-2", "pipe-3", "pipe-4"]
    (document,) = by_words.invoke(PIPES, top_k=1)
    assert document.metadata["two_stage"]["rerank_score"] is None
    (document,) = by_words.invoke(PIPES, top_k=1, rerank=True, budget_ms=10_000)
    assert document.metadata["two_stage"]["rerank_score"] is not None


def test_settings_from_the_configuration_of_a_run(by_words: TwoStageRetriever) -> None:
    retriever = by_words.configurable_fields(top_k=ConfigurableField(id="top_k"))
    assert ids(retriever.invoke(PIPES, {"configurable": {"top_k": 3}})) == ["pipe-1", "pipe-2", "pipe-3"]


def test_wrong_settings(by_words: TwoStageRetriever, pipeline: LazyPipeline) -> None:
    with pytest.raises(TypeError, match="there is no search setting 'k'; there are top_k, candidates,"):
        by_words.invoke(PIPES, k=3)
    with pytest.raises(ValueError, match="top_k is a whole number from 1, not 0"):
        by_words.invoke(PIPES, top_k=0)
    with pytest.raises(ValueError, match="first_stage"):
        TwoStageRetriever(pipeline=pipeline, first_stage="words")
    with pytest.raises(ValueError, match="retrieval calibrate"):
        TwoStageRetriever(pipeline=pipeline, min_score="auto").invoke(PIPES)
    with pytest.raises(ValueError, match="SearchPipeline"):
        TwoStageRetriever(pipeline="my-index")


@keeps("langchain.TwoStageRetriever", "async")
def test_async_calls_side_by_side(by_words: TwoStageRetriever) -> None:
    async def ask() -> list[list[Document]]:
        calls = (by_words.ainvoke(PIPES, top_k=count) for count in (1, 2, 3, 4))
        return [*await asyncio.gather(*calls), *await by_words.abatch(["vanilla", PIPES])]

    answers = [ids(documents) for documents in asyncio.run(ask())]
    pipes = ["pipe-1", "pipe-2", "pipe-3", "pipe-4"]
    assert answers == [pipes[:1], pipes[:2], pipes[:3], pipes, ["bread-4"], pipes]


def test_a_batch_on_several_threads(by_words: TwoStageRetriever) -> None:
    answers = by_words.batch([PIPES, "vanilla"] * 10, {"max_concurrency": 8}, top_k=1)
    assert [ids(documents) for documents in answers] == [["pipe-1"], ["bread-4"]] * 10


@keeps("langchain.TwoStageRetriever", "streaming")
def test_a_chain_streams_the_documents_before_what_follows(by_words: TwoStageRetriever) -> None:
    def words(found: dict[str, Any]) -> Iterator[str]:
        for document in found["documents"]:
            yield document.metadata["document_id"]

    chain = {"documents": by_words} | RunnableLambda(words)
    assert list(chain.stream(PIPES)) == ["pipe-1", "pipe-2", "pipe-3", "pipe-4"]
    assert [ids(chunk) for chunk in by_words.stream(PIPES, top_k=2)] == [["pipe-1", "pipe-2"]]


def test_callbacks_see_start_end_and_failure(by_words: TwoStageRetriever) -> None:
    class Seen(BaseCallbackHandler):
        def __init__(self) -> None:
            self.events: list[Any] = []

        def on_retriever_start(self, serialized: Any, query: str, **_: Any) -> None:
            self.events.append(query)

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            self.events.append(ids(documents))

        def on_retriever_error(self, error: BaseException, **_: Any) -> None:
            self.events.append(type(error))

    seen = Seen()
    by_words.invoke(PIPES, {"callbacks": [seen]}, top_k=1)
    with pytest.raises(ValueError, match="depth"):
        by_words.invoke(PIPES, {"callbacks": [seen]}, depth=-1)
    assert seen.events == [PIPES, ["pipe-1"], PIPES, ValueError]


@keeps("langchain.TwoStageRetriever", "copied and written")
def test_a_retriever_is_copied_and_pickled_by_the_address_of_its_index(by_words: TwoStageRetriever) -> None:
    for twin in (copy.deepcopy(by_words), pickle.loads(pickle.dumps(by_words))):
        assert twin.pipeline is not by_words.pipeline
        assert ids(twin.invoke(PIPES, top_k=2)) == ["pipe-1", "pipe-2"]


def test_an_open_pipeline_stays_open_and_its_documents_as_they_are(tmp_path: Path) -> None:
    path = build_index(tmp_path / "index")
    with TwoStagePipeline.open(path) as opened:
        retriever = TwoStageRetriever(pipeline=opened, top_k=1)
        (document,) = retriever.invoke("tides moon")
        document.metadata["tags"].append("changed by the caller")
        del retriever
        (again,) = TwoStageRetriever(pipeline=opened, top_k=1).invoke("tides moon")
        assert again.metadata["tags"] == ["sea", "sky"]


ANSWER = "Yeast makes dough rise because it ferments sugar into gas."
TEXTS = ["The moon causes the tides.", "Rye flour is grey.", ANSWER]


def given() -> list[Document]:
    return [Document(page_content=text, metadata={"place": place}, id=str(place)) for place, text in enumerate(TEXTS)]


@keeps("langchain.CrossEncoderCompressor", "scores", "ranks", "metadata")
def test_the_compressor_puts_the_answer_first() -> None:
    documents = given()
    best = CrossEncoderCompressor(top_n=2).compress_documents(documents, "why does dough rise?")
    assert best[0].page_content == ANSWER
    assert (best[0].id, best[0].metadata["place"], len(best)) == ("2", 2, 2)
    details = [document.metadata["two_stage"] for document in best]
    assert (details[0]["rank"], details[0]["input_rank"], details[1]["rank"]) == (1, 3, 2)
    assert best[0].metadata["relevance_score"] == details[0]["score"] > details[1]["score"]
    assert details[0]["probability"] > 3 * details[1]["probability"] > 0
    assert details[0]["rerank_score"] > details[1]["rerank_score"]
    assert details[0]["read"] == [0, len(ANSWER)]
    assert json.loads(json.dumps(best[0].metadata)) == best[0].metadata
    assert documents == given()


def test_the_compressor_keeps_what_the_first_search_found(by_words: TwoStageRetriever) -> None:
    found = by_words.invoke(PIPES)
    best = CrossEncoderCompressor().compress_documents(found, "gutter of a roof")
    first = best[0].metadata["two_stage"]
    assert best[0].metadata["document_id"] == "pipe-4"
    assert (first["rank"], first["input_rank"], first["first_stage_rank"], first["bm25"]["rank"]) == (1, 4, 4, 4)


def test_the_compressor_reads_the_window_of_a_long_text_that_fits() -> None:
    filler = "The committee met again on a rainy day and spoke of nothing at all. " * 60
    text = filler + ANSWER + " " + filler
    (document,) = CrossEncoderCompressor().compress_documents([Document(page_content=text)], "why does dough rise?")
    start, end = document.metadata["two_stage"]["read"]
    assert start < text.index(ANSWER) < end < len(text)
    assert end - start < 600


def test_a_compressor_with_little_time_keeps_the_rest_in_order() -> None:
    documents = [Document(page_content=f"{text} {number}") for number in range(20) for text in TEXTS]
    best = CrossEncoderCompressor(budget_ms=1e-6).compress_documents(documents, "why does dough rise?")
    read = [document for document in best if document.metadata["two_stage"]["rerank_score"] is not None]
    unread = best[len(read) :]
    assert 0 < len(read) < 60 == len(best)
    places = [document.metadata["two_stage"]["input_rank"] for document in unread]
    assert places == sorted(places)
    assert {document.metadata["relevance_score"] for document in unread} == {0.0}


def test_limits_of_the_compressor() -> None:
    assert CrossEncoderCompressor().compress_documents([], "nothing") == []
    for wrong, words in (({"top_n": 0}, "top_n is at least 1"), ({"budget_ms": -1.0}, "budget_ms is above 0")):
        with pytest.raises(ValueError, match=words):
            CrossEncoderCompressor(**wrong).compress_documents(given(), "why?")
    with pytest.raises(ModelError, match="'no such model' is neither bundled"):
        CrossEncoderCompressor(model="no such model").compress_documents(given(), "why?")


@keeps("langchain.CrossEncoderCompressor", "async")
def test_the_compressor_in_an_event_loop() -> None:
    compressor = CrossEncoderCompressor(top_n=1)

    async def ask() -> list[Any]:
        return await asyncio.gather(
            *(compressor.acompress_documents(given(), query) for query in ("why does dough rise?", "cause of tides"))
        )

    assert [best[0].page_content for best in asyncio.run(ask())] == [ANSWER, TEXTS[0]]


@keeps("langchain.CrossEncoderCompressor", "copied and written")
def test_a_compressor_is_written_as_its_settings() -> None:
    compressor = CrossEncoderCompressor(top_n=1, budget_ms=500)
    assert compressor.model_dump() == {"model": "starter-reranker", "top_n": 1, "budget_ms": 500}
    for twin in (
        CrossEncoderCompressor(**json.loads(compressor.model_dump_json())),
        copy.deepcopy(compressor),
        pickle.loads(pickle.dumps(compressor)),
    ):
        assert twin.compress_documents(given(), "why does dough rise?")[0].page_content == ANSWER


def test_embeddings_are_those_of_the_static_encoder(folder: Path) -> None:
    with TwoStagePipeline.open(folder.parent / "other") as opened:
        expected = opened.encoder.encode_documents(TEXTS)
    embeddings = StaticEmbeddings()
    assert embeddings.embed_documents(TEXTS) == expected.tolist()
    assert embeddings.embed_query(TEXTS[0]) == expected[0].tolist()
    assert embeddings.embed_documents([]) == []
    assert len(StaticEmbeddings(dimensions=64).embed_query("tides")) == 64
    with pytest.raises(ValueError, match="dimensions is 1 to 256"):
        StaticEmbeddings(dimensions=257).embed_query("tides")


@keeps("langchain.StaticEmbeddings", "metadata")
def test_a_vector_store_of_langchain_searches_with_the_embeddings() -> None:
    store = InMemoryVectorStore(StaticEmbeddings())
    store.add_documents(given())
    assert store.similarity_search("what makes dough rise", k=1)[0].metadata == {"place": 2}


@keeps("langchain.StaticEmbeddings", "async")
def test_embeddings_in_an_event_loop() -> None:
    embeddings = StaticEmbeddings(dimensions=16)

    async def ask() -> Any:
        return await asyncio.gather(embeddings.aembed_query("moon"), embeddings.aembed_documents(["sun", "moon"]))

    query, documents = asyncio.run(ask())
    assert (query, len(documents)) == (documents[1], 2)


@keeps("langchain.StaticEmbeddings", "copied and written")
def test_embeddings_are_pickled_as_their_settings() -> None:
    twin = pickle.loads(pickle.dumps(StaticEmbeddings(dimensions=16)))
    assert (twin.model, twin.dimensions) == ("starter-static", 16)
    assert twin.embed_query("moon") == StaticEmbeddings(dimensions=16).embed_query("moon")
