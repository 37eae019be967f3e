"""Documents become passages, passages become points: what one writer does with the documents that come to it.

What makes it repeatable: a point id is a UUID of document key, content hash and position, so the same content has the
same ids; the first passage of a document is written last, so its presence says that the document is complete; older
versions of a document are removed only after that.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines.point_writer import PointWriter
from pipelines.points import passage_id, passage_payload
from pipelines.preparation import PASSAGES_PER_BATCH, Preparation, ReadBatch, in_writing_order
from pipelines.tally import Tally, document_mark
from pipelines.tracing import span, traced
from retrieval.datatypes import Document, Passage, Point, Rejected, SparseVector
from retrieval.encoders import EncodedPassages


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that has to be written, with its passages in document order, and whether it replaces an older version.

    Args:
        document: The document.
        digest: Content hash of the document and of how it is cut.
        point_id: Id of its first passage.
        passages: What it was cut into.
        replaces: Whether the index may hold an older version.
    """

    document: Document
    digest: str
    point_id: str
    passages: tuple[Passage, ...]
    replaces: bool


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A batch that was looked up, and what has to be written of it: the id of each first passage, and its row."""

    batch: ReadBatch
    twice: Sequence[Document]
    unchanged: Sequence[tuple[str, str]]
    fresh: Mapping[str, int]
    older: set[str]


class DocumentWriter:
    """Writes what is new or changed and skips the rest.

    Args:
        writer: Writes the points.
        tally: Where the work is counted.
        empty: Whether the index held nothing before, so that there are no older versions.
        on_first: Called before the first write of each batch of documents with what it is going to write, and whether
            no document comes behind them.
        on_batch: Called after every batch of points.
        on_documents: Called after every batch of documents.
        sift: Chooses what is written of the documents that are new or changed.
    """

    def __init__(
        self,
        writer: PointWriter,
        tally: Tally,
        *,
        empty: bool,
        on_first: Callable[[Sequence[Pending], bool], None] = lambda pending, is_last: None,
        on_batch: Callable[[], None] = lambda: None,
        on_documents: Callable[[], None] = lambda: None,
        sift: Callable[[Sequence[Pending]], list[Pending]] = list,
    ) -> None:
        self._writer = writer
        self._tally = tally
        self._empty = empty
        self._on_first = on_first
        self._on_batch = on_batch
        self._on_documents = on_documents
        self._sift = sift
        self.seen: set[bytes] = set()
        """Marks of all documents that came, usable or not."""

    def write(self, source: Preparation) -> None:
        """Bring all documents of a source into the index.

        An error of the source is raised when everything that it gave before is written.
        """
        waiting: deque[_Chosen] = deque()
        failure: Exception | None = None
        ended = False
        while True:
            while not ended and len(waiting) < source.ahead and (not waiting or source.has_read()):
                try:
                    batch = source.read()
                except Exception as error:
                    batch, failure = None, error
                if batch is None:
                    ended = True
                else:
                    waiting.append(self._choose(batch))
                    source.cut(batch, list(waiting[-1].fresh.values()))
            if not waiting:
                break
            self._write(waiting.popleft(), source)
            self._on_documents()
        if failure is not None:
            raise failure

    @traced("prepare")
    def _choose(self, batch: ReadBatch) -> _Chosen:
        """Leave out what is repeated or already stored under the same hash."""
        twice: list[Document] = []
        fresh: dict[str, int] = {}
        for row, document in enumerate(batch.documents):
            mark = document_mark(document.key)
            if mark in self.seen:
                twice.append(document)
                continue
            self.seen.add(mark)
            fresh[passage_id(document.key, batch.digests[row], 0)] = row
        unchanged = []
        older: set[str] = set()
        if not self._empty and fresh:
            for point_id in self._writer.present(list(fresh)):
                unchanged.append((batch.documents[fresh.pop(point_id)].key, point_id))
            keys = [batch.documents[row].key for row in fresh.values()]
            older = self._writer.older(keys) if keys else set()
        return _Chosen(batch, twice, unchanged, fresh, older)

    def _write(self, chosen: _Chosen, source: Preparation) -> None:
        for rejection in chosen.batch.rejected:
            self._tally.reject(rejection)
        self._tally.documents += len(chosen.batch.documents)
        for document in chosen.twice:
            self._tally.reject(came_twice(document.source, document.id))
        self._tally.unchanged += len(chosen.unchanged)
        for key, point_id in chosen.unchanged:
            self._writer.complete(key, point_id, "unchanged")
        pending = self._sift(self._pending(chosen, source.passages()))
        if not pending:
            return
        self._on_first(pending, chosen.batch.is_last)
        stream = (
            (pending[number], passage) for number, passage in in_writing_order([item.passages for item in pending])
        )
        batches: list[list[tuple[Pending, Passage]]] = []
        while batch := list(islice(stream, PASSAGES_PER_BATCH)):
            batches.append(batch)
        groups = [[passage for _, passage in batch] for batch in batches]
        searchable: set[str] = set()
        encoded = source.encoded(groups, self._writer.manifest.average_length)
        for batch in batches:
            with span("encode", passages=len(batch)):
                vectors = next(encoded)
            started = time.perf_counter()
            self._write_batch(batch, vectors, searchable)
            self._tally.write_seconds += time.perf_counter() - started
            self._tally.read_seconds, self._tally.encode_seconds = source.busy.read, source.busy.encode
            self._on_batch()

    def _pending(self, chosen: _Chosen, passages: Sequence[Sequence[Passage]]) -> list[Pending]:
        """What has passages; the rest is rejected."""
        pending = []
        for (point_id, row), of_document in zip(chosen.fresh.items(), passages, strict=True):
            document = chosen.batch.documents[row]
            if of_document:
                digest, replaces = chosen.batch.digests[row], document.key in chosen.older
                pending.append(Pending(document, digest, point_id, tuple(of_document), replaces))
            else:
                self._tally.reject(Rejected(document.source or document.id, "the text is empty"))
        return pending

    @traced("batch")
    def _write_batch(
        self, batch: Sequence[tuple[Pending, Passage]], vectors: EncodedPassages, searchable: set[str]
    ) -> None:
        """Upsert one batch, then replace the older versions of the documents it completes.

        A passage without any known token is left out, a document of only such passages is rejected. The first passage
        comes last and is written in any case when another one is searchable, because it marks the document as complete.
        """
        points: list[Point] = []
        completed: list[tuple[Pending, str]] = []
        for (item, passage), point in zip(batch, self._points(batch, vectors), strict=True):
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

    def _points(self, batch: Sequence[tuple[Pending, Passage]], vectors: EncodedPassages) -> list[Point]:
        run = self._writer.manifest.runs
        terms = itertools.pairwise(vectors.offsets.tolist())
        rows = zip(batch, vectors.dense, vectors.known.tolist(), terms, vectors.lengths.tolist(), strict=True)
        return [
            Point(
                id=passage_id(item.document.key, item.digest, passage.index) if passage.index else item.point_id,
                dense=dense if known else None,
                sparse=SparseVector(vectors.indices[start:end], vectors.weights[start:end]) if end > start else None,
                payload=passage_payload(item.document, passage, digest=item.digest, terms=length, run=run),
            )
            for (item, passage), dense, known, (start, end), length in rows
        ]


def came_twice(source: str, document_id: str) -> Rejected:
    """The rejection of a document whose id has come before in the same run."""
    return Rejected(source or document_id, f"document id {document_id!r} came twice in this run")
