"""The write path of one process: read, cut, encode and write in batches, and the manifest before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import numpy as np

from pipelines.average_length import estimated_length
from pipelines.corpus_views.incoming import Incoming, Treatment
from pipelines.document_writer import DocumentWriter, Pending, document_batches
from pipelines.tally import Tally
from pipelines.tracing import traced
from pipelines.vanished import vanished_points
from pipelines.writer import IndexWriter
from retrieval.chunking import Chunker
from retrieval.datatypes import Document, IndexManifest, IngestProgress, IngestReport, Rejected
from retrieval.protocols import Encoder, SparseEncoder, Store

ProgressCallback = Callable[[IngestProgress], None]
Sample = Callable[[], Iterable[tuple[Document, float]]]

_PASSAGES_TO_MEASURE = 4096


class Ingest:
    """One run over one source; `run` may be called once.

    Args:
        store: Open store.
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        chunker: Cuts documents into passages.
        manifest: Manifest of the index as it stands.
        on_progress: Called after every batch.
        duplicates: What becomes of near-equal documents.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        sparse: SparseEncoder,
        chunker: Chunker,
        manifest: IndexManifest,
        on_progress: ProgressCallback | None = None,
        duplicates: Treatment = "keep",
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._sparse = sparse
        self._chunker = chunker
        self._on_progress = on_progress
        self._tally = Tally()
        self._writer = IndexWriter(store, sparse, manifest, self.reject)
        self._sample: Sample | None = None
        self._duplicates = duplicates

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as last written."""
        return self._writer.manifest

    def reject(self, rejection: Rejected) -> None:
        """Put something on the rejected list; readers call this."""
        self._tally.reject(rejection)

    @traced("ingest")
    def run(
        self, documents: Iterable[Document], *, sync_root: str | None = None, sample: Sample | None = None
    ) -> IngestReport:
        """Write what is new or changed, skip the rest.

        Args:
            documents: Stream of documents.
            sync_root: Absolute path of a file or folder; documents from there that the stream no longer brings are
                removed. ``None`` removes nothing.
            sample: Gives documents from all over the stream, each with the number of documents that it stands for.
                Called at most once, for an index that has no average length yet. ``None`` takes the first batch.

        Returns:
            The report; `manifest` has changed with it.

        Raises:
            StoreError: The store refused; what was written stays and the next run goes on from there.
        """
        if self.manifest.state != "ready":
            self._report_progress("repairing")
            self._writer.repair()
        writer = DocumentWriter(
            self._encoder,
            self._sparse,
            self._chunker,
            self._writer,
            self._tally,
            empty=self._writer.is_empty,
            on_first=self._begin,
            on_batch=lambda: self._report_progress("reading"),
            sift=list if self._duplicates == "keep" else self._incoming().sift,
        )
        with self._store.bulk(lambda: self._report_progress("indexing")):
            for batch, is_last in document_batches(documents):
                self._sample = None if is_last else sample
                writer.write(batch)
                self._report_progress("reading")
            if sync_root is not None:
                self._remove_vanished(sync_root, writer.seen)
            self._report_progress("committing")
            self._writer.commit(
                lambda done: self._report_progress("reweighting", passages=done),
                chunking=dict(self._chunker.fingerprint),
            )
        return self._tally.report()

    def _incoming(self) -> Incoming:
        return Incoming(self._store, self._encoder, self._tally, skip=self._duplicates == "skip")

    def _begin(self, pending: Sequence[Pending]) -> None:
        """Before the first write: fix the average length and mark the index as being written."""
        average = None
        if not self.manifest.average_length:
            if self._sample is not None:
                self._report_progress("sampling")
                average = estimated_length(self._sample(), self._chunker, self._sparse)
            if average is None:
                passages = islice((p for item in pending for p in item.passages), _PASSAGES_TO_MEASURE)
                _, lengths = self._sparse.encode_documents([p.indexed_text for p in passages], 0.0)
                average = max(1.0, float(np.mean(lengths)))
        self._writer.begin(average)

    def _remove_vanished(self, root: str, seen: set[bytes]) -> None:
        self._report_progress("removing")
        vanished = vanished_points(
            self._store,
            root,
            was_seen=seen.__contains__,
            any_seen=bool(seen),
            rejected=self._tally.rejected_sources,
        )
        if vanished:
            self._writer.begin()
            self._tally.removed = self._writer.remove(vanished)

    def _report_progress(self, stage: str, passages: int | None = None) -> None:
        if self._on_progress is not None:
            self._on_progress(self._tally.progress(stage, passages))
