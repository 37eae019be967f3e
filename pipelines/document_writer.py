"""Documents become passages, passages become points: what one writer does with the documents that come to it.

What makes it repeatable: a point id is a UUID of document key, content hash and position, so the same content has the
same ids; the first passage of a document is written last, so its presence says that the document is complete; older
versions of a document are removed only after that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipelines.point_writer import PointWriter
from pipelines.points import passage_id, passage_payload
from pipelines.tally import Tally, document_mark
from pipelines.tracing import span, traced
from retrieval.chunking import Chunker
from retrieval.datatypes import Document, Passage, Point, Rejected
from retrieval.protocols import Encoder, SparseEncoder

PASSAGES_PER_BATCH = 512
_DOCUMENTS_PER_LOOKUP = 256
_CHARACTERS_PER_LOOKUP = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that has to be written, with its passages in document order, and whether it replaces an older version.

    Args:
        document: The document.
        digest: Content hash of the document and of how it is cut.
        passages: What it was cut into.
        replaces: Whether the index may hold an older version.
    """

    document: Document
    digest: str
    passages: tuple[Passage, ...]
    replaces: bool


class DocumentWriter:
    """Writes what is new or changed and skips the rest.

    Args:
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        chunker: Cuts documents into passages.
        writer: Writes the points.
        tally: Where the work is counted.
        empty: Whether the index held nothing before, so that there are no older versions.
        on_first: Called before the first write of each batch of documents with what it is going to write.
        on_batch: Called after every batch of points.
        sift: Chooses what is written of the documents that are new or changed.
    """

    def __init__(
        self,
        encoder: Encoder,
        sparse: SparseEncoder,
        chunker: Chunker,
        writer: PointWriter,
        tally: Tally,
        *,
        empty: bool,
        on_first: Callable[[Sequence[Pending]], None] = lambda pending: None,
        on_batch: Callable[[], None] = lambda: None,
        sift: Callable[[Sequence[Pending]], list[Pending]] = list,
    ) -> None:
        self._encoder = encoder
        self._sparse = sparse
        self._chunker = chunker
        self._chunking = json.dumps(chunker.fingerprint, sort_keys=True)
        self._writer = writer
        self._tally = tally
        self._empty = empty
        self._on_first = on_first
        self._on_batch = on_batch
        self._sift = sift
        self.seen: set[bytes] = set()
        """Marks of all documents that came, usable or not."""

    def write(self, documents: Sequence[Document]) -> None:
        """Bring one batch of documents into the index."""
        pending = self._sift(self._prepare(documents))
        if not pending:
            return
        self._on_first(pending)
        stream = ((item, passage) for item in pending for passage in (*item.passages[1:], item.passages[0]))
        searchable: set[str] = set()
        while batch := list(islice(stream, PASSAGES_PER_BATCH)):
            self._write_batch(batch, searchable)
            self._on_batch()

    @traced("prepare")
    def _prepare(self, batch: Sequence[Document]) -> list[Pending]:
        """Leave out what is empty, repeated or already stored under the same hash."""
        fresh: dict[str, tuple[Document, str]] = {}
        for document in batch:
            self._tally.documents += 1
            mark = document_mark(document.key)
            if mark in self.seen:
                self._tally.reject(came_twice(document.source, document.id))
                continue
            self.seen.add(mark)
            digest = self._digest(document)
            fresh[passage_id(document.key, digest, 0)] = (document, digest)
        for point_id in self._writer.present(list(fresh)):
            document, _ = fresh.pop(point_id)
            self._tally.unchanged += 1
            self._writer.complete(document.key, point_id, "unchanged")
        keys = [document.key for document, _ in fresh.values()]
        older = self._writer.older(keys) if keys and not self._empty else set()
        pending = []
        for document, digest in fresh.values():
            passages = tuple(self._chunker.split(document))
            if passages:
                pending.append(Pending(document, digest, passages, document.key in older))
            else:
                self._tally.reject(Rejected(document.source or document.id, "the text is empty"))
        return pending

    def _digest(self, document: Document) -> str:
        content = [document.id, document.title, document.text, document.metadata, document.source, self._chunking]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    @traced("batch")
    def _write_batch(self, batch: Sequence[tuple[Pending, Passage]], searchable: set[str]) -> None:
        """Encode and upsert one batch, then replace the older versions of the documents it completes.

        A passage without any known token is left out, a document of only such passages is rejected. The first passage
        comes last and is written in any case when another one is searchable, because it marks the document as complete.
        """
        points: list[Point] = []
        completed: list[tuple[Pending, str]] = []
        for (item, passage), point in zip(batch, self._points(batch), strict=True):
            key = item.document.key
            if key in self._writer.refused:
                continue
            if point.dense is not None or point.sparse is not None:
                searchable.add(key)
            elif passage.index or key not in searchable:
                if not passage.index:
                    name = item.document.source or item.document.id
                    self._tally.reject(Rejected(name, "no word of it is known to either arm"))
                continue
            points.append(point)
            if not passage.index:
                completed.append((item, point.id))
        with span("upsert", passages=len(points)):
            self._tally.passages += self._writer.upsert(points)
        for item, point_id in completed:
            self._complete(item, point_id)

    def _complete(self, item: Pending, point_id: str) -> None:
        key = item.document.key
        if key in self._writer.refused:
            return
        if item.replaces:
            self._writer.replace(key, item.digest)
            self._tally.changed += 1
        else:
            self._tally.added += 1
        self._writer.complete(key, point_id, "changed" if item.replaces else "added")

    def _points(self, batch: Sequence[tuple[Pending, Passage]]) -> Iterator[Point]:
        texts = [passage.indexed_text for _, passage in batch]
        manifest = self._writer.manifest
        with span("encode", passages=len(texts)):
            dense = self._encoder.encode_documents(texts)
            sparse, lengths = self._sparse.encode_documents(texts, manifest.average_length)
        known = np.any(dense, axis=1).tolist()
        for row, (item, passage) in enumerate(batch):
            yield Point(
                id=passage_id(item.document.key, item.digest, passage.index),
                dense=dense[row] if known[row] else None,
                sparse=sparse[row] if len(sparse[row].indices) else None,
                payload=passage_payload(
                    item.document, passage, digest=item.digest, terms=lengths[row], run=manifest.runs
                ),
            )


def document_batches(documents: Iterable[Document]) -> Iterator[tuple[list[Document], bool]]:
    """Documents to look up together: few enough that huge ones do not pile up in memory.

    Yields:
        A batch, and whether it is known to be the last.
    """
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _DOCUMENTS_PER_LOOKUP or characters >= _CHARACTERS_PER_LOOKUP:
            yield batch, False
            batch, characters = [], 0
    if batch:
        yield batch, True


def came_twice(source: str, document_id: str) -> Rejected:
    """The rejection of a document whose id has come before in the same run."""
    return Rejected(source or document_id, f"document id {document_id!r} came twice in this run")
