"""LangChain: a retriever, a document compressor that reranks, and embeddings.

```python
from pipelines import TwoStagePipeline
from retrieval.integrations.langchain import TwoStageRetriever

retriever = TwoStageRetriever(pipeline=TwoStagePipeline.open("my-index"), top_k=5)
retriever.invoke("pipe not broken but leaking", budget_ms=50)
```

Needs ``pip install 'two-stage-retrieval[langchain]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack

from retrieval.datatypes import FirstStage, GroupBy, Results
from retrieval.errors import MissingExtraError
from retrieval.integrations.opened import shared_encoder, shared_reranker
from retrieval.integrations.searching import SearchPipeline, SearchSettings, hit_metadata, merged

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
except ImportError as error:
    raise MissingExtraError(error.name or "langchain_core", "langchain", "retrieval.integrations.langchain") from error

__all__ = ["CrossEncoderCompressor", "StaticEmbeddings", "TwoStageRetriever"]


class TwoStageRetriever(BaseRetriever):
    """Both stages as a LangChain retriever.

    A document has the passage as its text and the id of the passage as its id. Its metadata is that of the indexed
    document, with ``document_id``, ``title`` and ``source``, the final score as ``relevance_score``, and ranks, scores,
    place and timings under ``two_stage``.

    Every field but ``pipeline`` may be given with a call: ``retriever.invoke(query, top_k=3, where={...})``.

    Args:
        pipeline: An open `TwoStagePipeline`, which the caller closes, or a `LazyPipeline`.
        top_k: How many documents; as all that follow ``None`` takes the configured value.
        candidates: How many passages the first stage fetches.
        depth: How many of them the cross-encoder may read.
        budget_ms: Milliseconds after which it stops reading.
        rerank: ``False`` keeps the order of the first stage.
        first_stage: Arms that fetch candidates: ``hybrid``, ``dense`` or ``bm25``.
        where: Qdrant REST filter; metadata stands under ``metadata.``.
        group_by: ``document`` for the best passage of each document, ``passage`` for all.
        min_score: Hits with a lower probability are left out; ``auto`` takes the threshold stored with the index.
        exact: Search without the graph and over the original vectors.
    """

    pipeline: SearchPipeline
    top_k: int | None = None
    candidates: int | None = None
    depth: int | None = None
    budget_ms: float | None = None
    rerank: bool | None = None
    first_stage: FirstStage | None = None
    where: dict[str, Any] | None = None
    group_by: GroupBy | None = None
    min_score: float | Literal["auto"] | None = None
    exact: bool | None = None

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **call: Unpack[SearchSettings]
    ) -> list[Document]:
        return _documents(self.pipeline.search(query, **merged(self._settings(), call)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **call: Unpack[SearchSettings]
    ) -> list[Document]:
        return _documents(await self.pipeline.asearch(query, **merged(self._settings(), call)))

    def _settings(self) -> SearchSettings:
        given = {name: getattr(self, name) for name in SearchSettings.__annotations__}
        return merged({}, {name: value for name, value in given.items() if value is not None})


class CrossEncoderCompressor(BaseDocumentCompressor):
    """Reranks the documents of any retriever with a cross-encoder and keeps the best.

    The metadata of a document keeps what it had; ``relevance_score`` and, under ``two_stage``, the rank, the score, the
    probability, the raw ``rerank_score``, what was read and the ``input_rank`` are set.

    Args:
        model: Bundled name, folder or hub name of the cross-encoder; opened at the first call.
        top_n: How many documents are kept; ``None`` for all.
        budget_ms: Milliseconds after which it stops reading; the rest keeps its order behind. ``None`` for no limit.
    """

    model: str = "starter-reranker"
    top_n: int | None = None
    budget_ms: float | None = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents, best first; see `TextReranker.rerank`.

        Raises:
            ModelError: The model is not found or malformed.
            ValueError: ``top_n`` or ``budget_ms`` is out of range.
        """
        texts = [document.page_content for document in documents]
        return [
            documents[reread.position].model_copy(
                update={
                    "metadata": reread.over({**documents[reread.position].metadata, "relevance_score": reread.score})
                }
            )
            for reread in shared_reranker(self.model).rerank(query, texts, self.top_n, self.budget_ms)
        ]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` on a worker thread."""
        return await run_in_executor(None, self.compress_documents, documents, query, callbacks)


class StaticEmbeddings(Embeddings):
    """The static encoder as LangChain embeddings; vectors have unit length, or are zero for a text of unknown words.

    Args:
        model: Bundled name, folder or hub name; opened at the first call.
        dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.
    """

    def __init__(self, model: str = "starter-static", dimensions: int | None = None) -> None:
        self.model = model
        self.dimensions = dimensions

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text.

        Raises:
            ModelError: The model is not found or malformed.
            ValueError: It has fewer dimensions than asked for.
        """
        vectors: list[list[float]] = shared_encoder(self.model, self.dimensions).encode_documents(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query; see `embed_documents`."""
        vector: list[float] = shared_encoder(self.model, self.dimensions).encode_queries([text])[0].tolist()
        return vector


def _documents(results: Results) -> list[Document]:
    return [
        Document(
            page_content=hit.text,
            metadata={**hit_metadata(hit, results), "relevance_score": float(hit.score)},
            id=hit.passage_id,
        )
        for hit in results
    ]
