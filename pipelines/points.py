"""What a passage looks like in the store: its id, its payload, and back."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from retrieval.datatypes import Document, Passage

_NAMESPACE = uuid.UUID("5a2f6f4e-6f0b-5d0e-9d2b-3f6d1c8a7b40").bytes


def passage_id(key: str, digest: str, index: int) -> str:
    """Id of a passage: the same document with the same content gets the same ids."""
    # uuid.uuid5 spelled out, which takes half as long.
    name = f"{key}\0{digest}\0{index}".encode()
    made = bytearray(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    made[6] = made[6] & 0x0F | 0x50
    made[8] = made[8] & 0x3F | 0x80
    digits = made.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def passage_from_payload(payload: Mapping[str, Any]) -> Passage:
    """The passage that a payload describes."""
    return Passage(
        document_id=payload["document_id"],
        index=payload["index"],
        text=payload["text"],
        start=payload["start"],
        end=payload["end"],
        title=payload["title"],
        headings=tuple(payload.get("headings", ())),
    )


def passage_payload(document: Document, passage: Passage, *, digest: str, terms: int, run: int) -> dict[str, Any]:
    """The payload of a passage; ``headings`` and ``metadata`` only where there are any.

    Args:
        document: The document.
        passage: One of its passages.
        digest: Content hash of the document.
        terms: Length of the passage in BM25 terms.
        run: Number of the ingest run that writes it.
    """
    payload: dict[str, Any] = {
        "document": document.key,
        "document_id": document.id,
        "source": document.source,
        "hash": digest,
        "index": passage.index,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "title": passage.title,
        "terms": terms,
        "run": run,
    }
    # An engine takes far longer over an empty list than over a missing one.
    if passage.headings:
        payload["headings"] = list(passage.headings)
    if document.metadata:
        payload["metadata"] = dict(document.metadata)
    return payload


def readable_text(payload: Mapping[str, Any], text: str) -> str:
    """What the cross-encoder reads of a stored passage: ``text``, a stretch of it, after a title that it lacks."""
    title = str(payload["title"])
    return text if not title or title in text else f"{title}. {text}"
