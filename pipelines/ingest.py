"""The write path: documents become passages, passages become points, batch by batch.

What makes it repeatable: a point id is a UUID of document key, content hash and position, so the same content has the
same ids; the first passage of a document is written last, so its presence says that the document is complete; older
versions of a document are removed only after that.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from pipelines.counts import COUNTED_FIELDS
from pipelines.points import passage_id, passage_payload
from pipelines.writer import IndexWriter
from retrieval.chunking import Chunker
from retrieval.datatypes import (
    Document,
    IndexManifest,
    IngestProgress,
    IngestReport,
    Passage,
    Point,
    Rejected,
    StoredPoint,
)
from retrieval.errors import DocumentError
from retrieval.protocols import Encoder, SparseEncoder, Store

ProgressCallback = Callable[[IngestProgress], None]

_DOCUMENTS_PER_LOOKUP = 256
_CHARACTERS_PER_LOOKUP = 16 * 2**20
_PASSAGES_PER_BATCH = 512
_PASSAGES_TO_MEASURE = 4096
_KEPT_REJECTIONS = 1000


@dataclass(slots=True)
class _Tally:
    """What one run has done; the only mutable state of an ingest."""

    started: float = field(default_factory=time.perf_counter)
    documents: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    rejected_count: int = 0
    rejected_sources: set[str] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)

    def reject(self, rejection: Rejected) -> None:
        self.rejected_count += 1
        if len(self.rejected) < _KEPT_REJECTIONS:
            self.rejected.append(rejection)
        self.rejected_sources.add(rejection.source)

    def report(self) -> IngestReport:
        seconds = time.perf_counter() - self.started
        return IngestReport(
            added=self.added,
            changed=self.changed,
            unchanged=self.unchanged,
            removed=self.removed,
            rejected=tuple(self.rejected),
            rejected_count=self.rejected_count,
            passages=self.passages,
            seconds=seconds,
        )


@dataclass(frozen=True, slots=True)
class _Pending:
    """A document that has to be written: its passages in document order and the older versions to remove after."""

    document: Document
    digest: str
    passages: tuple[Passage, ...]
    replaces: bool


class Ingest:
    """One run over one source; `run` may be called once.

    Args:
        store: Open store.
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        chunker: Cuts documents into passages.
        manifest: Manifest of the index as it stands.
        on_progress: Called after every batch.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        sparse: SparseEncoder,
        chunker: Chunker,
        manifest: IndexManifest,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._sparse = sparse
        self._chunker = chunker
        self._on_progress = on_progress
        self._chunking = json.dumps(chunker.fingerprint, sort_keys=True)
        self._tally = _Tally()
        self._writer = IndexWriter(store, sparse, manifest, self.reject)
        self._started_empty = False

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as last written."""
        return self._writer.manifest

    def reject(self, rejection: Rejected) -> None:
        """Put something on the rejected list; readers call this."""
        self._tally.reject(rejection)

    def run(self, documents: Iterable[Document], *, sync_root: str | None = None) -> IngestReport:
        """Write what is new or changed, skip the rest.

        Args:
            documents: Stream of documents.
            sync_root: Absolute path of a file or folder; documents from there that the stream no longer brings are
                removed. ``None`` removes nothing.

        Returns:
            The report; `manifest` has changed with it.

        Raises:
            StoreError: The store refused; what was written stays and the next run goes on from there.
        """
        if self.manifest.state != "ready":
            self._report_progress("repairing")
            self._writer.repair()
        self._started_empty = self._writer.is_empty
        for batch in _batches(documents):
            self._write(self._prepare(batch))
            self._report_progress("reading")
        if sync_root is not None:
            self._remove_vanished(sync_root)
        self._report_progress("committing")
        self._writer.commit(
            lambda done: self._report_progress("reweighting", passages=done), chunking=dict(self._chunker.fingerprint)
        )
        return self._tally.report()

    def _prepare(self, batch: Sequence[Document]) -> list[_Pending]:
        """Leave out what is empty, repeated or already stored under the same hash."""
        fresh: dict[str, tuple[Document, str]] = {}
        for document in batch:
            self._tally.documents += 1
            mark = self._mark(document.key)
            if mark in self._tally.seen:
                self.reject(
                    Rejected(document.source or document.id, f"document id {document.id!r} came twice in this run")
                )
                continue
            self._tally.seen.add(mark)
            digest = self._digest(document)
            fresh[passage_id(document.key, digest, 0)] = (document, digest)
        for point in self._store.get(list(fresh), payload=False):
            del fresh[point.id]
            self._tally.unchanged += 1
        older = self._keys_in_store([document.key for document, _ in fresh.values()])
        pending = []
        for document, digest in fresh.values():
            passages = tuple(self._chunker.split(document))
            if passages:
                pending.append(_Pending(document, digest, passages, document.key in older))
            else:
                self.reject(Rejected(document.source or document.id, "the text is empty"))
        return pending

    @staticmethod
    def _mark(key: str) -> bytes:
        return hashlib.blake2b(key.encode(), digest_size=16).digest()

    def _digest(self, document: Document) -> str:
        content = [document.id, document.title, document.text, document.metadata, document.source, self._chunking]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def _keys_in_store(self, keys: Sequence[str]) -> set[str]:
        if self._started_empty or not keys:
            return set()
        found = self._store.scan({"must": [{"key": "document", "match": {"any": list(keys)}}]}, payload=["document"])
        return {point.payload["document"] for point in found}

    def _write(self, pending: Sequence[_Pending]) -> None:
        if not pending:
            return
        self._begin(pending)
        stream = ((item, passage) for item in pending for passage in (*item.passages[1:], item.passages[0]))
        searchable: set[str] = set()
        while batch := list(islice(stream, _PASSAGES_PER_BATCH)):
            self._write_batch(batch, searchable)
            self._report_progress("reading")

    def _begin(self, pending: Sequence[_Pending]) -> None:
        """Before the first write: fix the average length and mark the index as being written."""
        average = None
        if not self.manifest.average_length:
            passages = islice((p for item in pending for p in item.passages), _PASSAGES_TO_MEASURE)
            _, lengths = self._sparse.encode_documents([p.indexed_text for p in passages], 0.0)
            average = max(1.0, float(np.mean(lengths)))
        self._writer.begin(average)

    def _write_batch(self, batch: Sequence[tuple[_Pending, Passage]], searchable: set[str]) -> None:
        """Encode and upsert one batch, then remove the older versions of the documents it completes.

        A passage without any known token is left out, a document of only such passages is rejected. The first passage
        comes last and is written in any case when another one is searchable, because it marks the document as complete.
        """
        points: list[Point] = []
        completed: list[_Pending] = []
        for (item, passage), point in zip(batch, self._points(batch), strict=True):
            key = item.document.key
            if key in self._writer.refused:
                continue
            if point.dense is not None or point.sparse is not None:
                searchable.add(key)
            elif passage.index or key not in searchable:
                if not passage.index:
                    self.reject(
                        Rejected(item.document.source or item.document.id, "no word of it is known to either arm")
                    )
                continue
            points.append(point)
            if not passage.index:
                completed.append(item)
        self._tally.passages += self._writer.upsert(points)
        for item in completed:
            if item.document.key in self._writer.refused:
                continue
            if item.replaces:
                self._remove_older(item)
                self._tally.changed += 1
            else:
                self._tally.added += 1

    def _points(self, batch: Sequence[tuple[_Pending, Passage]]) -> Iterator[Point]:
        texts = [passage.indexed_text for _, passage in batch]
        dense = self._encoder.encode_documents(texts)
        sparse, lengths = self._sparse.encode_documents(texts, self.manifest.average_length)
        known = np.any(dense, axis=1).tolist()
        for row, (item, passage) in enumerate(batch):
            yield Point(
                id=passage_id(item.document.key, item.digest, passage.index),
                dense=dense[row] if known[row] else None,
                sparse=sparse[row] if len(sparse[row].indices) else None,
                payload=passage_payload(
                    item.document, passage, digest=item.digest, terms=lengths[row], run=self.manifest.runs
                ),
            )

    def _remove_older(self, item: _Pending) -> None:
        self._writer.remove_where(
            {
                "must": [{"key": "document", "match": {"value": item.document.key}}],
                "must_not": [{"key": "hash", "match": {"value": item.digest}}],
            }
        )

    def _remove_vanished(self, root: str) -> None:
        """Remove the documents under ``root`` that this run did not see; what it could not read stays."""
        self._report_progress("removing")
        if not self._tally.seen:
            raise DocumentError(
                f"nothing was read under {root}, so nothing there is removed; delete documents by id instead"
            )
        vanished: list[StoredPoint] = []
        for point in self._store.scan(payload=["source", *COUNTED_FIELDS]):
            source = point.payload["source"]
            if not _is_under(source, root) or self._mark(point.payload["document"]) in self._tally.seen:
                continue
            if not any(_is_under(source, rejected) for rejected in self._tally.rejected_sources):
                vanished.append(point)
        if vanished:
            self._writer.begin()
            self._tally.removed = self._writer.remove(vanished)

    def _report_progress(self, stage: str, passages: int | None = None) -> None:
        if self._on_progress is not None:
            tally = self._tally
            self._on_progress(
                IngestProgress(
                    stage=stage,
                    documents=tally.documents,
                    passages=tally.passages if passages is None else passages,
                    rejected=tally.rejected_count,
                    seconds=time.perf_counter() - tally.started,
                )
            )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents to look up together: few enough that huge ones do not pile up in memory."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _DOCUMENTS_PER_LOOKUP or characters >= _CHARACTERS_PER_LOOKUP:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _is_under(source: str, root: str) -> bool:
    return source == root or source.startswith((root.rstrip(os.sep) + os.sep, root + "#"))
