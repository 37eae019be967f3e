"""Haystack: a retriever, a ranker, and embedders of texts and documents.

```python
from pipelines import LazyPipeline
from retrieval.integrations.haystack import TwoStageRetriever

retriever = TwoStageRetriever(LazyPipeline("my-index"), top_k=5)
retriever.run(query="pipe not broken but leaking")["documents"]
```

To load a pipeline from YAML: ``Pipeline.loads(text, allowed_modules=["retrieval", "pipelines"])``.

Needs ``pip install 'two-stage-retrieval[haystack]'``.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Unpack

from retrieval.datatypes import Results
from retrieval.errors import MissingExtraError
from retrieval.integrations.haystack_embedders import StaticDocumentEmbedder, StaticTextEmbedder
from retrieval.integrations.opened import shared_reranker
from retrieval.integrations.searching import (
    AddressedPipeline,
    SearchPipeline,
    SearchSettings,
    hit_metadata,
    merged,
    search_details,
)

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.core.errors import SerializationError
    from haystack.core.serialization import import_class_by_name
except ImportError as error:
    raise MissingExtraError(error.name or "haystack", "haystack", "retrieval.integrations.haystack") from error

__all__ = ["CrossEncoderRanker", "StaticDocumentEmbedder", "StaticTextEmbedder", "TwoStageRetriever"]


@component
class TwoStageRetriever:
    """Both stages as a Haystack retriever.

    A document has the passage as its content, the id of the passage as its id and the final score. Its meta is the
    metadata of the indexed document, with ``document_id``, ``title`` and ``source``, and ranks, scores, place and
    timings under ``two_stage``.

    Args:
        pipeline: A `LazyPipeline`, which is opened by `warm_up` and can be written to YAML, or an open
            `TwoStagePipeline`, which the caller closes and which cannot.
        settings: Of every search, see `SearchSettings`: ``top_k``, ``where``, ``budget_ms`` ...

    Raises:
        TypeError: There is no search setting of that name.
    """

    def __init__(self, pipeline: SearchPipeline, **settings: Unpack[SearchSettings]) -> None:
        self.pipeline = pipeline
        self.settings = merged({}, settings)

    def warm_up(self) -> None:
        """Open a `LazyPipeline`.

        Raises:
            StoreError: There is no index in the place that it names.
        """
        if isinstance(self.pipeline, AddressedPipeline):
            self.pipeline.open_once()

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop."""
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Release a `LazyPipeline`; the next run opens it again."""
        if isinstance(self.pipeline, AddressedPipeline):
            self.pipeline.close()

    @component.output_types(documents=list[Document], search=dict[str, Any])
    def run(
        self,
        query: str,
        top_k: int | None = None,
        where: dict[str, Any] | None = None,
        budget_ms: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Search.

        Args:
            query: The query.
            top_k: How many documents; here and below ``None`` takes what the component was given.
            where: Qdrant REST filter; metadata stands under ``meta`` there, ``metadata.`` here.
            budget_ms: Milliseconds after which the cross-encoder stops reading.
            settings: Any other setting of this search, see `SearchSettings`.

        Returns:
            ``documents``, best first, and ``search``: what was read, timings in milliseconds, warnings.

        Raises:
            TypeError: There is no search setting of that name.
            ValueError: An argument is out of range.
            StoreError: The store failed or the filter is not usable.
        """
        return _found(self.pipeline.search(query, **self._merged(top_k, where, budget_ms, settings)))

    @component.output_types(documents=list[Document], search=dict[str, Any])
    async def run_async(
        self,
        query: str,
        top_k: int | None = None,
        where: dict[str, Any] | None = None,
        budget_ms: float | None = None,
        settings: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`run` without blocking the event loop."""
        return _found(await self.pipeline.asearch(query, **self._merged(top_k, where, budget_ms, settings)))

    def to_dict(self) -> dict[str, Any]:
        """The component as JSON values.

        Raises:
            SerializationError: The pipeline is an open one.
        """
        if not isinstance(self.pipeline, AddressedPipeline):
            raise SerializationError(
                f"an open {type(self.pipeline).__name__} cannot be written; give the component LazyPipeline(FOLDER)"
            )
        return default_to_dict(self, pipeline=self.pipeline.to_dict(), **self.settings)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TwoStageRetriever:
        """The component that `to_dict` wrote; its index is opened by `warm_up` or the first run.

        Raises:
            DeserializationError: ``pipelines`` is not among the modules that may be loaded.
        """
        parameters = dict(data.get("init_parameters", {}))
        pipeline = parameters.get("pipeline")
        if isinstance(pipeline, dict):
            named: Any = import_class_by_name(pipeline["type"])
            parameters["pipeline"] = named.from_dict(pipeline)
        made: TwoStageRetriever = default_from_dict(cls, {**data, "init_parameters": parameters})
        return made

    def _merged(
        self,
        top_k: int | None,
        where: dict[str, Any] | None,
        budget_ms: float | None,
        settings: dict[str, Any] | None,
    ) -> SearchSettings:
        call = {"top_k": top_k, "where": where, "budget_ms": budget_ms}
        given = {name: value for name, value in call.items() if value is not None}
        return merged(self.settings, {**(settings or {}), **given})


@component
class CrossEncoderRanker:
    """Reranks documents with a cross-encoder and keeps the best.

    The meta of a document keeps what it had; under ``two_stage`` the rank, the score, the probability, the raw
    ``rerank_score``, what was read and the ``input_rank`` are set.

    Args:
        model: Bundled name, folder or hub name of the cross-encoder; opened by `warm_up` or the first run.
        top_k: How many documents are kept; ``None`` for all.
        budget_ms: Milliseconds after which it stops reading; the rest keeps its order behind. ``None`` for no limit.
    """

    def __init__(
        self, model: str = "starter-reranker", top_k: int | None = None, budget_ms: float | None = None
    ) -> None:
        self.model = model
        self.top_k = top_k
        self.budget_ms = budget_ms

    def warm_up(self) -> None:
        """Open the model.

        Raises:
            ModelError: It is not found or malformed.
        """
        shared_reranker(self.model)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, documents: list[Document], top_k: int | None = None, budget_ms: float | None = None
    ) -> dict[str, list[Document]]:
        """Rerank.

        Args:
            query: The query.
            documents: Likeliest first; one without text counts as an empty one.
            top_k: How many are kept; ``None`` takes what the component was given, as below.
            budget_ms: Milliseconds after which the cross-encoder stops reading.

        Returns:
            ``documents``, best first: copies with the score and meta of this reading.

        Raises:
            ModelError: The model is not found or malformed.
            ValueError: ``top_k`` or ``budget_ms`` is out of range.
        """
        reread = shared_reranker(self.model).rerank(
            query,
            [document.content or "" for document in documents],
            self.top_k if top_k is None else top_k,
            self.budget_ms if budget_ms is None else budget_ms,
        )
        given = [documents[one.position] for one in reread]
        return {
            "documents": [
                replace(document, score=one.score, meta=one.over(document.meta))
                for document, one in zip(given, reread, strict=True)
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None, budget_ms: float | None = None
    ) -> dict[str, list[Document]]:
        """`run` on a worker thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k, budget_ms)

    def to_dict(self) -> dict[str, Any]:
        """The component as JSON values."""
        return default_to_dict(self, model=self.model, top_k=self.top_k, budget_ms=self.budget_ms)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossEncoderRanker:
        """The component that `to_dict` wrote."""
        made: CrossEncoderRanker = default_from_dict(cls, data)
        return made


def _found(results: Results) -> dict[str, Any]:
    documents = [
        Document(id=hit.passage_id, content=hit.text, meta=hit_metadata(hit, results), score=float(hit.score))
        for hit in results
    ]
    return {"documents": documents, "search": search_details(results)}
