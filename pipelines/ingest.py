"""The write path of one process: read, cut, encode and write in batches, and the manifest before and after."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from pipelines.average_length import estimated_length
from pipelines.corpus_views.incoming import Incoming, Treatment
from pipelines.document_writer import DocumentWriter, Pending
from pipelines.preparation import Preparation, PreparationHere, Preparing
from pipelines.preparation_beside import PreparationBeside, PreparationShared
from pipelines.second_process import SecondProcess
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
        second: Starts a process that reads and encodes; ``None`` does all in this one.
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
        second: SecondProcess | None = None,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._sparse = sparse
        self._chunker = chunker
        self._on_progress = on_progress
        self._tally = Tally()
        self._writer = IndexWriter(store, sparse, manifest, self._tally.reject)
        self._unread: list[Rejected] = []
        self._sample: Sample | None = None
        self._estimate: float | None = None
        self._second = second
        self._duplicates = duplicates

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as last written."""
        return self._writer.manifest

    def reject(self, rejection: Rejected) -> None:
        """Put something on the rejected list, in its place among the documents; readers call this."""
        self._unread.append(rejection)

    @traced("ingest")
    def run(
        self,
        documents: Iterable[Document],
        *,
        path: Path | None = None,
        sync_root: str | None = None,
        sample: Sample | None = None,
    ) -> IngestReport:
        """Write what is new or changed, skip the rest.

        Args:
            documents: Stream of documents.
            path: What they are read from, so that the second process may read it in the place of this one; ``None`` for
                documents handed over in Python.
            sync_root: Absolute path of a file or folder; documents from there that the stream no longer brings are
                removed. ``None`` removes nothing.
            sample: Gives documents from all over the stream, each with the number of documents that it stands for.
                Called at most once, for an index that has no average length yet. ``None`` takes the first batch.

        Returns:
            The report; `manifest` has changed with it.

        Raises:
            StoreError: The store refused; what was written stays and the next run goes on from there.
            RetrievalError: The second process died; the same holds.
        """
        if self.manifest.state != "ready":
            self._report_progress("repairing")
            self._writer.repair()
        self._sample = sample
        writer = DocumentWriter(
            self._writer,
            self._tally,
            empty=self._writer.is_empty,
            on_first=self._begin,
            on_batch=lambda: self._report_progress("reading"),
            on_documents=lambda: self._report_progress("reading"),
            sift=list if self._duplicates == "keep" else self._incoming().sift,
        )
        with self._store.bulk(lambda: self._report_progress("indexing")):
            with contextlib.closing(self._preparation(documents, path)) as source:
                writer.write(source)
            if sync_root is not None:
                self._remove_vanished(sync_root, writer.seen)
            self._report_progress("committing")
            self._writer.commit(
                lambda done: self._report_progress("reweighting", passages=done),
                chunking=dict(self._chunker.fingerprint),
            )
        return self._tally.report()

    def _preparation(self, documents: Iterable[Document], path: Path | None) -> Preparation:
        """Where documents are read, cut and encoded: here, or beside."""
        work = Preparing(self._encoder, self._sparse, self._chunker)
        second = self._second
        # Near-equal documents are looked for in what was written of the batch before.
        if second is None or self._duplicates != "keep":
            return PreparationHere(work, documents, self._unread)
        if path is None:
            return PreparationShared(
                work,
                documents,
                self._unread,
                start=second.for_documents,
                average_length=lambda: self.manifest.average_length,
            )
        process = second.for_path(path)
        if process is None:
            return PreparationHere(work, documents, self._unread)
        try:
            # The other process starts meanwhile.
            average = self.manifest.average_length or self._estimated_length()
            if average and process.is_ready(wait=True):
                return PreparationBeside(process, work, average)
        except BaseException:
            process.close()
            raise
        process.close()
        return PreparationHere(work, documents, self._unread)

    def _incoming(self) -> Incoming:
        return Incoming(self._store, self._encoder, self._tally, skip=self._duplicates == "skip")

    def _begin(self, pending: Sequence[Pending], is_last: bool) -> None:
        """Before the first write: fix the average length and mark the index as being written."""
        average = None
        if not self.manifest.average_length:
            average = None if is_last else self._estimated_length()
            if average is None:
                passages = islice((p for item in pending for p in item.passages), _PASSAGES_TO_MEASURE)
                _, lengths = self._sparse.encode_documents([p.indexed_text for p in passages], 0.0)
                average = max(1.0, float(np.mean(lengths)))
        self._writer.begin(average)

    def _estimated_length(self) -> float | None:
        """The average length by the sample, which is read once; ``None`` without a sample."""
        if self._sample is not None:
            self._report_progress("sampling")
            self._estimate = estimated_length(self._sample(), self._chunker, self._sparse)
            self._sample = None
        return self._estimate

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
