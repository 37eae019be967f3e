"""Haystack: embedders of texts and documents; `retrieval.integrations.haystack` offers them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from retrieval.errors import MissingExtraError
from retrieval.integrations.opened import shared_encoder

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise MissingExtraError(error.name or "haystack", "haystack", "retrieval.integrations.haystack") from error

__all__ = ["StaticDocumentEmbedder", "StaticTextEmbedder"]


@component
class StaticTextEmbedder:
    """The vector of a query, of unit length, or zero for a text of unknown words.

    Args:
        model: Bundled name, folder or hub name; opened by `warm_up` or the first run.
        dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.
    """

    def __init__(self, model: str = "starter-static", dimensions: int | None = None) -> None:
        self.model = model
        self.dimensions = dimensions

    def warm_up(self) -> None:
        """Open the model.

        Raises:
            ModelError: It is not found or malformed.
            ValueError: It has fewer dimensions than asked for.
        """
        shared_encoder(self.model, self.dimensions)

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str) -> dict[str, Any]:
        """Embed.

        Args:
            text: The query.

        Returns:
            ``embedding``, and ``meta`` with the name and digest of the model.

        Raises:
            TypeError: ``text`` is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is a string, not {type(text).__name__}; documents go to StaticDocumentEmbedder")
        encoder = shared_encoder(self.model, self.dimensions)
        return {"embedding": encoder.encode_queries([text])[0].tolist(), "meta": {"model": str(encoder.fingerprint)}}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str) -> dict[str, Any]:
        """`run` on a worker thread."""
        return await asyncio.to_thread(self.run, text)

    def to_dict(self) -> dict[str, Any]:
        """The component as JSON values."""
        return default_to_dict(self, model=self.model, dimensions=self.dimensions)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StaticTextEmbedder:
        """The component that `to_dict` wrote."""
        made: StaticTextEmbedder = default_from_dict(cls, data)
        return made


@component
class StaticDocumentEmbedder:
    """The vectors of documents; see `StaticTextEmbedder`.

    Args:
        model: Bundled name, folder or hub name; opened by `warm_up` or the first run.
        dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.
        meta_fields_to_embed: Meta that is embedded with the content, before it, one a line.
    """

    def __init__(
        self,
        model: str = "starter-static",
        dimensions: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
    ) -> None:
        self.model = model
        self.dimensions = dimensions
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])

    def warm_up(self) -> None:
        """Open the model; see `StaticTextEmbedder.warm_up`."""
        shared_encoder(self.model, self.dimensions)

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embed.

        Args:
            documents: The documents; one without text counts as an empty one.

        Returns:
            ``documents``: copies with their embedding, and ``meta`` with the name and digest of the model.

        Raises:
            TypeError: ``documents`` is no list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError("documents is a list of Document; a query goes to StaticTextEmbedder")
        encoder = shared_encoder(self.model, self.dimensions)
        vectors = encoder.encode_documents([self._text(document) for document in documents]).tolist()
        return {
            "documents": [
                replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)
            ],
            "meta": {"model": str(encoder.fingerprint)},
        }

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """`run` on a worker thread."""
        return await asyncio.to_thread(self.run, documents)

    def to_dict(self) -> dict[str, Any]:
        """The component as JSON values."""
        return default_to_dict(
            self, model=self.model, dimensions=self.dimensions, meta_fields_to_embed=self.meta_fields_to_embed
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StaticDocumentEmbedder:
        """The component that `to_dict` wrote."""
        made: StaticDocumentEmbedder = default_from_dict(cls, data)
        return made

    def _text(self, document: Document) -> str:
        fields = [str(document.meta[name]) for name in self.meta_fields_to_embed if document.meta.get(name) is not None]
        return "\n".join([*fields, document.content or ""])
