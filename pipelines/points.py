"""What a passage looks like in the store: its id, its payload, and back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from retrieval.datatypes import Document, Passage

_NAMESPACE = uuid.UUID("5a2f6f4e-6f0b-5d0e-9d2b-3f6d1c8a7b40")


def passage_id(key: str, digest: str, index: int) -> str:
    """Id of a passage: the same document with the same content gets the same ids."""
    return str(uuid.uuid5(_NAMESPACE, f"{key}\0{digest}\0{index}"))


def passage_from_payload(payload: Mapping[str, Any]) -> Passage:
    """The passage that a payload describes."""
    return Passage(
        document_id=payload["document_id"],
        index=payload["index"],
        text=payload["text"],
        start=payload["start"],
        end=payload["end"],
        title=payload["title"],
        headings=tuple(payload["headings"]),
    )


def passage_payload(document: Document, passage: Passage, *, digest: str, terms: int, run: int) -> dict[str, Any]:
    """The payload of a passage.

    Args:
        document: The document.
        passage: One of its passages.
        digest: Content hash of the document.
        terms: Length of the passage in BM25 terms.
        run: Number of the ingest run that writes it.
    """
    return {
        "document": document.key,
        "document_id": document.id,
        "source": document.source,
        "hash": digest,
        "index": passage.index,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "title": passage.title,
        "headings": list(passage.headings),
        "terms": terms,
        "run": run,
        "metadata": dict(document.metadata),
    }


def readable_text(payload: Mapping[str, Any], text: str) -> str:
    """What the cross-encoder reads of a stored passage: ``text``, a stretch of it, after a title that it lacks."""
    title = str(payload["title"])
    return text if not title or title in text else f"{title}. {text}"
