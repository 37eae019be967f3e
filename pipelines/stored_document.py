"""A document as an index holds it: its passages in order, and the text that they make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import Filter, StoredPoint

_SHOWN_SOURCES = 100


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """One passage of a document.

    Args:
        id: Point id.
        index: Position among the passages of the document, from 0.
        start: First character in the document.
        end: One past the last character.
        text: The text.
        headings: Heading path above the passage.
    """

    id: str
    index: int
    start: int
    end: int
    text: str
    headings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document, or a stretch of its passages.

    Args:
        id: Id of the document.
        source: Where it came from.
        title: Its title.
        metadata: Its metadata.
        passages: The passages that were asked for.
        total_passages: How many the document has.
        other_sources: Further documents with this id, the first 100.
    """

    id: str
    source: str
    title: str
    metadata: Mapping[str, Any]
    passages: tuple[StoredPassage, ...]
    total_passages: int
    other_sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextSlice:
    """A stretch of the text of a document, in its own characters.

    Args:
        text: The stretch; what lies between passages and is not in the index is a blank line.
        start: First character.
        end: One past the last character.
        length: One past the last character of the whole document, as far as the index knows it.
    """

    text: str
    start: int
    end: int
    length: int


def read_document(
    pipeline: TwoStagePipeline,
    name: str,
    *,
    where: Filter | None = None,
    source: str | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> StoredDocument | None:
    """Read a document from the index.

    Args:
        pipeline: Open pipeline.
        name: Id of the document.
        where: Which passages count; ``None`` for all with this id.
        source: Which of several documents with the same id; ``None`` for the first.
        offset: First passage to read.
        limit: How many passages at most; ``None`` for all.

    Returns:
        The document; ``None`` where there is none.

    Raises:
        StoreError: The store failed.
    """
    wanted = where if where is not None else {"must": [{"key": "document_id", "match": {"value": name}}]}
    with pipeline.reading() as serving:
        places = sorted(
            (str(point.payload["source"]), str(point.payload["document"]), int(point.payload["index"]), point.id)
            for point in serving.store.scan(wanted, payload=["source", "document", "index"])
        )
        keys = sorted({(at, key) for at, key, _, _ in places})
        chosen = next((key for at, key in keys if source is None or at == source), None)
        if chosen is None:
            return None
        ids = [point for _, key, _, point in places if key == chosen]
        shown = ids[offset:] if limit is None else ids[offset : offset + limit]
        points = serving.store.get(shown or ids[:1])
    if not points:  # deleted meanwhile
        return None
    first = points[0].payload
    return StoredDocument(
        id=name,
        source=str(first["source"]),
        title=str(first["title"]),
        metadata=dict(first.get("metadata", {})),
        passages=tuple(_passage(point) for point in points) if shown else (),
        total_passages=len(ids),
        other_sources=tuple(at for at, key in keys if key != chosen)[:_SHOWN_SOURCES],
    )


def joined_text(passages: Sequence[StoredPassage]) -> str:
    """The text of passages in their order: an overlap once, and a blank line where characters between were left out."""
    return "".join(text for _, _, text in _pieces(passages))


def text_slice(passages: Sequence[StoredPassage], offset: int, length: int) -> TextSlice:
    """Some characters of a document.

    Args:
        passages: All passages of the document, in order.
        offset: First character, from 0.
        length: How many at most.
    """
    total = max((passage.end for passage in passages), default=0)
    end = min(total, offset + length)
    parts: list[str] = []
    for start, stop, text in _pieces(passages):
        if start < end and stop > offset:
            # A blank line stands for whitespace that may be longer or shorter.
            parts.append(text[max(0, offset - start) : end - start] if len(text) == stop - start else text)
    start = min(offset, total)
    return TextSlice("".join(parts), start, max(start, end), total)


def _pieces(passages: Sequence[StoredPassage]) -> list[tuple[int, int, str]]:
    """``(start, end, text)`` of what each passage adds, and a blank line where something between is missing."""
    pieces: list[tuple[int, int, str]] = []
    at: int | None = None
    for passage in passages:
        if at is not None and passage.start > at:
            pieces.append((at, passage.start, "\n\n"))
        begin = passage.start if at is None else max(passage.start, min(at, passage.end))
        pieces.append((begin, passage.end, passage.text[begin - passage.start :]))
        at = max(at or 0, passage.end)
    return pieces


def _passage(point: StoredPoint) -> StoredPassage:
    payload = point.payload
    return StoredPassage(
        id=point.id,
        index=int(payload["index"]),
        start=int(payload["start"]),
        end=int(payload["end"]),
        text=str(payload["text"]),
        headings=tuple(payload.get("headings", ())),
    )
