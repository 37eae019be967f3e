"""Ingest on many machines: Ray hands out the parts of a source, workers write them to a Qdrant server.

The driver lists the parts, fixes the BM25 average length from a sample of them, announces the run in the manifest, and
when all reports have come removes what was replaced and writes counts and manifest, once. A worker that dies is
replaced and its part is written again (`pipelines.ray_ingest.worker`). Where the driver dies, the manifest says so; the
next ingest, with Ray or without, removes what is half done and skips what is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.average_length import estimated_length
from pipelines.ray_ingest.cluster import cluster, written
from pipelines.ray_ingest.reports import PartReports
from pipelines.ray_ingest.worker import IndexState
from pipelines.tally import Tally
from pipelines.tracing import traced
from pipelines.vanished import vanished_points
from pipelines.writer import IndexWriter
from retrieval.chunking import Chunker
from retrieval.config import Config, ServerStoreConfig
from retrieval.datatypes import IndexManifest, IngestProgress, IngestReport
from retrieval.documents import Part, list_parts, sample_documents
from retrieval.errors import ConfigError, StoreError
from retrieval.manifest import manifest_from_json
from retrieval.protocols import Encoder, SparseEncoder, Store
from retrieval.stores.server import ServerStore

PART_BYTES = 16 * 2**20
"""Size of a part of a source, roughly: what is lost with a worker, and what has to pay for handing it out."""
_logger = logging.getLogger(__name__)


class DistributedIngest:
    """One run over one source; `run` may be called once.

    Args:
        config: Configuration of the index, whose store is a server.
        store: Open store.
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        chunker: Cuts documents into passages.
        manifest: Manifest of the index as it stands.
        on_progress: Called after every part.

    Raises:
        ConfigError: The store is no server: an embedded index has one writer.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        encoder: Encoder,
        sparse: SparseEncoder,
        chunker: Chunker,
        manifest: IndexManifest,
        on_progress: Callable[[IngestProgress], None] | None = None,
    ) -> None:
        if not (isinstance(config.store, ServerStoreConfig) and isinstance(store, ServerStore)):
            raise ConfigError(
                f"store.kind {config.store.kind!r} has one writer at a time; ingest with Ray needs store.kind: server"
            )
        self._config = config
        self._store: ServerStore = store
        self._sparse = sparse
        self._chunker = chunker
        self._encoder = encoder
        self._on_progress = on_progress
        self._tally = Tally()
        self._writer = IndexWriter(store, sparse, manifest, self._tally.reject)

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as last written."""
        return self._writer.manifest

    @traced("ingest")
    def run(
        self,
        path: str | Path,
        *,
        address: str,
        sync: bool = False,
        workers: int | None = None,
        part_bytes: int = PART_BYTES,
    ) -> IngestReport:
        """Write what is new or changed, skip the rest.

        Args:
            path: A file or folder that every machine of the cluster sees under the same name.
            address: Of a Ray cluster, as `cluster` takes it.
            sync: Whether to remove documents of this path that are no longer in it.
            workers: Processes that write; ``None`` for one on each CPU of the cluster.
            part_bytes: Size of a part, roughly.

        Returns:
            The report; `manifest` has changed with it.

        Raises:
            MissingExtraError: Ray is not installed.
            ConfigError: The cluster cannot be reached.
            DocumentError: The source cannot be read at all.
            StoreError: The store refused, or a part could not be written; what was written stays and the next run goes
                on from there.
        """
        with cluster(address):
            if self.manifest.state != "ready":
                self._report_progress("repairing")
                self._writer.repair()
            self._report_progress("sampling")
            reject, documents = self._tally.reject, self._config.documents
            parts = list(list_parts(path, documents, part_bytes=part_bytes, on_rejected=reject))
            if parts:
                self._write(parts, Path(path), sync=sync, workers=workers)
            else:
                # What there is was interrupted before and has been repaired, or is as it was.
                self._writer.commit()
                if sync:
                    self._remove_vanished(Path(path), set())
        return self._tally.report()

    def _write(self, parts: Sequence[Part], path: Path, *, sync: bool, workers: int | None) -> None:
        state = self._begin(path)
        reports = PartReports(len(parts), self._tally, self._writer)
        self._defer_indexing(empty=state.empty)
        # Takes up indexing at its end, and waits for it.
        with self._store.bulk():
            for report in written(parts, state, workers):
                reports.add(report)
                self._report_progress("reading")
            self._report_progress("removing")
            reports.settle(self._store)
            if sync:
                self._remove_vanished(path, reports.seen())
            self._commit()

    def _begin(self, path: Path) -> IndexState:
        empty = self._writer.is_empty
        average = None
        if not self.manifest.average_length:
            sample = sample_documents(path, self._config.documents)
            # Where the sample holds nothing that can be used, the end of the run weighs anew what there is.
            average = estimated_length(sample, self._chunker, self._sparse) or 1.0
        self._writer.begin(average)
        return IndexState(self._config, self.manifest, empty)

    def _defer_indexing(self, *, empty: bool) -> None:
        assert isinstance(self._config.store, ServerStoreConfig)
        when = self._config.store.bulk
        if when is True or (when == "auto" and empty):
            self._store.defer_indexing()

    def _remove_vanished(self, path: Path, seen: set[bytes]) -> None:
        vanished = vanished_points(
            self._store,
            str(path.resolve()),
            was_seen=seen.__contains__,
            any_seen=bool(seen),
            rejected=self._tally.rejected_sources,
        )
        self._tally.removed = self._writer.remove(vanished)

    def _commit(self) -> None:
        self._report_progress("committing")
        current = manifest_from_json(self._store.read_manifest() or {}, self._store.location)
        if current.runs != self.manifest.runs:
            raise StoreError(
                f"another ingest has written to {self._store.location} meanwhile; run this one again when that is done"
            )
        if (found := self._store.count()) != self._writer.counts.passages:
            # A file that was rewritten while it was read leaves passages of two contents.
            _logger.warning(
                "%s holds %d passages, the workers told of %d; counting them",
                self._store.location,
                found,
                self._writer.counts.passages,
            )
            self._writer.repair()
        self._writer.commit(
            lambda done: self._report_progress("reweighting", passages=done), chunking=dict(self._chunker.fingerprint)
        )

    def _report_progress(self, stage: str, passages: int | None = None) -> None:
        if self._on_progress is not None:
            self._on_progress(self._tally.progress(stage, passages))
