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
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from pipelines.counts import COUNTED_FIELDS, Counts, repair
from pipelines.points import indexed_text, passage_id, passage_payload
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
from retrieval.errors import DocumentError, StoreInputError
from retrieval.manifest import manifest_to_json
from retrieval.protocols import Encoder, SparseEncoder, Store

ProgressCallback = Callable[[IngestProgress], None]

_DOCUMENTS_PER_LOOKUP = 256
_CHARACTERS_PER_LOOKUP = 16 * 2**20
_PASSAGES_PER_BATCH = 512
_PASSAGES_TO_MEASURE = 4096
_PASSAGES_PER_FLUSH = 32_768
_KEPT_REJECTIONS = 1000
_AVERAGE_LENGTH_TOLERANCE = 0.1


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
        self._manifest = manifest
        self._on_progress = on_progress
        self._chunking = json.dumps(chunker.fingerprint, sort_keys=True)
        self._tally = _Tally()
        self._unflushed = 0
        self._refused: set[str] = set()
        self._counts = Counts(manifest.documents, manifest.passages, manifest.terms, int(manifest.ids_digest, 16))
        self._started_empty = False
        self._writing = False

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as last written."""
        return self._manifest

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
        if self._manifest.state != "ready":
            self._report_progress("repairing")
            self._counts = repair(self._store)
        self._started_empty = self._counts.passages == 0
        for batch in _batches(documents):
            self._write(self._prepare(batch))
            self._report_progress("reading")
        if sync_root is not None:
            self._remove_vanished(sync_root)
        self._commit()
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
        if self._writing:
            return
        average = self._manifest.average_length
        if not average:
            passages = islice((p for item in pending for p in item.passages), _PASSAGES_TO_MEASURE)
            _, lengths = self._sparse.encode_documents([p.indexed_text for p in passages], 0.0)
            average = max(1.0, float(np.mean(lengths)))
        self._begin_writing(average)

    def _write_batch(self, batch: Sequence[tuple[_Pending, Passage]], searchable: set[str]) -> None:
        """Encode and upsert one batch, then remove the older versions of the documents it completes.

        A passage without any known token is left out, a document of only such passages is rejected. The first passage
        comes last and is written in any case when another one is searchable, because it marks the document as complete.
        """
        points: list[Point] = []
        completed: list[_Pending] = []
        for (item, passage), point in zip(batch, self._points(batch), strict=True):
            key = item.document.key
            if key in self._refused:
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
        self._upsert(points)
        for item in completed:
            if item.document.key in self._refused:
                continue
            if item.replaces:
                self._remove_older(item)
                self._tally.changed += 1
            else:
                self._tally.added += 1

    def _points(self, batch: Sequence[tuple[_Pending, Passage]]) -> Iterator[Point]:
        texts = [passage.indexed_text for _, passage in batch]
        dense = self._encoder.encode_documents(texts)
        sparse, lengths = self._sparse.encode_documents(texts, self._manifest.average_length)
        known = np.any(dense, axis=1).tolist()
        for row, (item, passage) in enumerate(batch):
            yield Point(
                id=passage_id(item.document.key, item.digest, passage.index),
                dense=dense[row] if known[row] else None,
                sparse=sparse[row] if len(sparse[row].indices) else None,
                payload=passage_payload(
                    item.document, passage, digest=item.digest, terms=lengths[row], run=self._manifest.runs
                ),
            )

    def _upsert(self, points: Sequence[Point]) -> None:
        """Write a batch; where it is refused, point by point, and no further point of a document with a refused one."""
        if not points:
            return
        try:
            self._store.upsert(points)
            written = list(points)
        except StoreInputError:
            written = [point for point in points if self._upsert_alone(point)]
        for point in written:
            self._counts.add(point.id, point.payload)
        self._tally.passages += len(written)
        self._unflushed += len(written)
        if self._unflushed >= _PASSAGES_PER_FLUSH:
            self._store.flush()
            self._unflushed = 0

    def _upsert_alone(self, point: Point) -> bool:
        key = point.payload["document"]
        if key in self._refused:
            return False
        try:
            self._store.upsert([point])
        except StoreInputError as error:
            self._refused.add(key)
            self.reject(Rejected(key, str(error)))
        return key not in self._refused

    def _remove_older(self, item: _Pending) -> None:
        where = {
            "must": [{"key": "document", "match": {"value": item.document.key}}],
            "must_not": [{"key": "hash", "match": {"value": item.digest}}],
        }
        self._remove(list(self._store.scan(where, payload=list(COUNTED_FIELDS))))

    def _remove(self, points: Sequence[StoredPoint]) -> None:
        self._store.delete([point.id for point in points])
        for point in points:
            self._counts.subtract(point.id, point.payload)

    def _remove_vanished(self, root: str) -> None:
        """Remove the documents under ``root`` that this run did not see; what it could not read stays."""
        self._report_progress("removing")
        if not self._tally.seen:
            raise DocumentError(
                f"nothing was read under {root}, so nothing there is removed; delete documents by id instead"
            )
        vanished: list[StoredPoint] = []
        keys: set[str] = set()
        for point in self._store.scan(payload=["source", *COUNTED_FIELDS]):
            source = point.payload["source"]
            if not _is_under(source, root) or self._mark(point.payload["document"]) in self._tally.seen:
                continue
            if any(_is_under(source, rejected) for rejected in self._tally.rejected_sources):
                continue
            vanished.append(point)
            keys.add(source)
        self._begin_writing(self._manifest.average_length)
        for start in range(0, len(vanished), _PASSAGES_PER_BATCH):
            self._remove(vanished[start : start + _PASSAGES_PER_BATCH])
        self._tally.removed = len(keys)

    def _commit(self) -> None:
        """Make the run durable and record what the index holds."""
        self._report_progress("committing")
        if self._manifest.state == "ready":
            return
        self._store.flush()
        terms, passages = self._counts.terms, self._counts.passages
        average = terms / passages if passages else 0.0
        drift = abs(average / self._manifest.average_length - 1) if self._manifest.average_length else 0.0
        if self._manifest.state == "reweighting" or drift > _AVERAGE_LENGTH_TOLERANCE:
            self._reweight(average)
        self._save(
            replace(
                self._manifest,
                chunking=dict(self._chunker.fingerprint),
                **self._counts.as_manifest_fields(),
                state="ready",
            )
        )

    def _reweight(self, average: float) -> None:
        """Encode the BM25 weights of all passages again for a new average length."""
        self._save(replace(self._manifest, average_length=average, state="reweighting"))
        points = self._store.scan(vectors=True)
        done = 0
        while batch := list(islice(points, _PASSAGES_PER_BATCH)):
            sparse, _ = self._sparse.encode_documents([indexed_text(point.payload) for point in batch], average)
            self._store.upsert(
                [
                    Point(point.id, point.dense, weights if len(weights.indices) else None, point.payload)
                    for point, weights in zip(batch, sparse, strict=True)
                ]
            )
            done += len(batch)
            self._report_progress("reweighting", passages=done)
        self._store.flush()

    def _begin_writing(self, average_length: float) -> None:
        if self._writing:
            return
        self._writing = True
        # A reweighting that was interrupted stays on record until it is done again.
        state = self._manifest.state if self._manifest.state == "reweighting" else "ingesting"
        runs = self._manifest.runs + 1
        self._save(replace(self._manifest, average_length=average_length, state=state, runs=runs))

    def _save(self, manifest: IndexManifest) -> None:
        self._manifest = manifest
        self._store.write_manifest(manifest_to_json(manifest))

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
