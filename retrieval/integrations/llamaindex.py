"""LlamaIndex: a retriever, a node postprocessor that reranks, and an embedding model.

```python
from pipelines import TwoStagePipeline
from retrieval.integrations.llamaindex import TwoStageRetriever

retriever = TwoStageRetriever(TwoStagePipeline.open("my-index"), top_k=5)
retriever.retrieve("pipe not broken but leaking")
```

Needs ``pip install 'two-stage-retrieval[llamaindex]'``.
"""

from __future__ import annotations

import asyncio
from typing import Any, Unpack

from retrieval.datatypes import Results
from retrieval.errors import MissingExtraError
from retrieval.integrations.opened import Reread, shared_encoder, shared_reranker
from retrieval.integrations.searching import DETAILS, SearchPipeline, SearchSettings, hit_metadata, merged

try:
    from llama_index.core import instrumentation
    from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
except ImportError as error:
    raise MissingExtraError(error.name or "llama_index", "llamaindex", "retrieval.integrations.llamaindex") from error

__all__ = ["CrossEncoderPostprocessor", "StaticEmbedding", "TwoStageRetriever"]

_FOR_PROGRAMS = [DETAILS, "document_id"]
"""Metadata that neither a language model nor an embedding model should read."""

_dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]


class TwoStageRetriever(BaseRetriever):
    """Both stages as a LlamaIndex retriever.

    A node has the passage as its text, the id of the passage as its id, the place in the document as
    ``start_char_idx`` and ``end_char_idx``, and the document as its source (``ref_doc_id``). Its metadata is that of
    the indexed document, with ``document_id``, ``title`` and ``source``, and ranks, scores, place and timings under
    ``two_stage``, which language models are not shown.

    Args:
        pipeline: An open `TwoStagePipeline`, which the caller closes, or a `LazyPipeline`.
        callback_manager: Gets the events of LlamaIndex; ``None`` for a new one.
        verbose: What LlamaIndex makes of it.
        settings: Of every search, see `SearchSettings`: ``top_k``, ``where``, ``budget_ms`` ...

    Raises:
        TypeError: There is no search setting of that name.
    """

    def __init__(
        self,
        pipeline: SearchPipeline,
        *,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
        **settings: Unpack[SearchSettings],
    ) -> None:
        super().__init__(callback_manager=callback_manager, verbose=verbose)
        self._pipeline = pipeline
        self._search_settings = merged({}, settings)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._pipeline.search(query_bundle.query_str, **self._search_settings))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self._pipeline.asearch(query_bundle.query_str, **self._search_settings))


class CrossEncoderPostprocessor(BaseNodePostprocessor):
    """Reranks the nodes of any retriever with a cross-encoder and keeps the best.

    The metadata of a node keeps what it had; under ``two_stage`` the rank, the score, the probability, the raw
    ``rerank_score``, what was read and the ``input_rank`` are set.

    Args:
        model: Bundled name, folder or hub name of the cross-encoder; opened at the first call.
        top_n: How many nodes are kept; ``None`` for all.
        budget_ms: Milliseconds after which it stops reading; the rest keeps its order behind. ``None`` for no limit.
    """

    model: str = "starter-reranker"
    top_n: int | None = None
    budget_ms: float | None = None

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes when it serializes."""
        return "CrossEncoderPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("reranking needs the query: postprocess_nodes(nodes, query_str=...)")
        query = query_bundle.query_str
        _dispatcher.event(
            ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n or len(nodes), model_name=self.model)
        )
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            texts = [node.node.get_content(MetadataMode.NONE) for node in nodes]
            reread = shared_reranker(self.model).rerank(query, texts, self.top_n, self.budget_ms)
            best = [_reread_node(nodes[one.position], one) for one in reread]
            event.on_end(payload={EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))
        return best


class StaticEmbedding(BaseEmbedding):
    """The static encoder as an embedding model; vectors have unit length, or are zero for a text of unknown words.

    Args:
        model_name: Bundled name, folder or hub name; opened at the first call.
        dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.
    """

    model_name: str = "starter-static"
    dimensions: int | None = None

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes when it serializes."""
        return "StaticEmbedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await self._aget_text_embedding(query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = shared_encoder(self.model_name, self.dimensions).encode_documents(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def _nodes(results: Results) -> list[NodeWithScore]:
    return [
        NodeWithScore(
            node=TextNode(
                id_=hit.passage_id,
                text=hit.text,
                metadata=hit_metadata(hit, results),
                excluded_llm_metadata_keys=list(_FOR_PROGRAMS),
                excluded_embed_metadata_keys=list(_FOR_PROGRAMS),
                start_char_idx=hit.start,
                end_char_idx=hit.end,
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.document_id)},
            ),
            score=float(hit.score),
        )
        for hit in results
    ]


def _reread_node(given: NodeWithScore, reread: Reread) -> NodeWithScore:
    node = given.node.model_copy(
        update={
            "metadata": reread.over(given.node.metadata),
            "excluded_llm_metadata_keys": list({**dict.fromkeys(given.node.excluded_llm_metadata_keys), DETAILS: None}),
            "excluded_embed_metadata_keys": list(
                {**dict.fromkeys(given.node.excluded_embed_metadata_keys), DETAILS: None}
            ),
        }
    )
    return NodeWithScore(node=node, score=reread.score)
