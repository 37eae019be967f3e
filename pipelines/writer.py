"""All changes to an index go through here, so that store, counts and manifest stay in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from pipelines.counts import COUNTED_FIELDS, Counts, repair
from pipelines.point_writer import Outcome, PointWriter
from pipelines.points import passage_from_payload
from pipelines.tracing import traced
from retrieval.datatypes import Filter, IndexManifest, Point, Rejected, StoredPoint
from retrieval.manifest import manifest_to_json
from retrieval.protocols import SparseEncoder, Store

_POINTS_PER_BATCH = 512
_AVERAGE_LENGTH_TOLERANCE = 0.1


class IndexWriter(PointWriter):
    """Writes to an open index between `begin` and `commit`.

    The manifest says that writing is under way before the first change, and `begin` cleans up after a writer that never
    came to its `commit`.

    Args:
        store: Open store.
        sparse: BM25 encoder of the index.
        manifest: Manifest of the index as it stands.
        reject: Told about documents that the store refuses.
    """

    def __init__(
        self, store: Store, sparse: SparseEncoder, manifest: IndexManifest, reject: Callable[[Rejected], None]
    ) -> None:
        held = Counts(manifest.documents, manifest.passages, manifest.terms, int(manifest.ids_digest, 16))
        super().__init__(store, held, reject)
        self._sparse = sparse
        self._manifest = manifest
        self._marked = False

    @property
    def manifest(self) -> IndexManifest:
        """The manifest as last written."""
        return self._manifest

    @property
    def is_empty(self) -> bool:
        """Whether the index holds no point."""
        return not self.counts.passages

    def repair(self) -> None:
        """Remove what an interrupted writer left half done; nothing to do after a complete one."""
        if self._manifest.state != "ready":
            self.counts = repair(self._store)

    def begin(self, average_length: float | None = None) -> None:
        """Announce changes; the first call of a writer counts, the others do nothing.

        Args:
            average_length: BM25 terms per passage to weigh with, for an index that has none; ``None`` keeps it.
        """
        if self._marked:
            return
        self._marked = True
        # A reweighting that was interrupted stays on record until it is done again.
        state = self._manifest.state if self._manifest.state == "reweighting" else "ingesting"
        length = self._manifest.average_length if average_length is None else average_length
        self._save(replace(self._manifest, average_length=length, state=state, runs=self._manifest.runs + 1))

    def present(self, ids: Sequence[str]) -> list[str]:
        """Those of some point ids that are in the index."""
        return [point.id for point in self._store.get(list(ids), payload=False)]

    def older(self, keys: Sequence[str]) -> set[str]:
        """Those of some documents of which the index holds a version."""
        found = self._store.scan({"must": [{"key": "document", "match": {"any": list(keys)}}]}, payload=["document"])
        return {point.payload["document"] for point in found}

    def replace(self, key: str, digest: str) -> None:
        """Remove the versions of a document other than this one."""
        self.remove_where(
            {
                "must": [{"key": "document", "match": {"value": key}}],
                "must_not": [{"key": "hash", "match": {"value": digest}}],
            }
        )

    def complete(self, key: str, point_id: str, outcome: Outcome) -> None:
        """Nothing to note: points are counted as they are written and removed."""

    def remove_where(self, where: Filter) -> int:
        """Remove the points that match and return how many documents that were."""
        doomed = list(self._store.scan(where, payload=list(COUNTED_FIELDS)))
        return self.remove(doomed)

    def remove(self, points: Sequence[StoredPoint]) -> int:
        """Remove points read with `COUNTED_FIELDS` and return how many documents that were."""
        before = self.counts.documents
        # A document without its first passage counts as half done. One that lacks another would pass for complete.
        doomed = sorted(points, key=lambda point: point.payload["index"] != 0)
        for start in range(0, len(doomed), _POINTS_PER_BATCH):
            batch = doomed[start : start + _POINTS_PER_BATCH]
            self._store.delete([point.id for point in batch])
            for point in batch:
                self.counts.subtract(point.id, point.payload)
        return before - self.counts.documents

    @traced("commit")
    def commit(self, on_reweighted: Callable[[int], None] | None = None, **changes: Any) -> None:
        """Make the changes durable and record what the index holds; without changes, nothing happens.

        Where the average length of passages has moved by a tenth, the BM25 weights of all are written anew.

        Args:
            on_reweighted: Told how many passages have their new weights.
            changes: Fields of the manifest that change with these writes.
        """
        if self._manifest.state == "ready":
            return
        self._store.flush()
        counts, assumed = self.counts, self._manifest.average_length
        average = counts.terms / counts.passages if counts.passages else assumed
        drift = abs(average / assumed - 1) if assumed else 0.0
        if self._manifest.state == "reweighting" or drift > _AVERAGE_LENGTH_TOLERANCE:
            self._reweight(average, on_reweighted)
        self._save(replace(self._manifest, **counts.as_manifest_fields(), **changes, state="ready"))

    def _reweight(self, average: float, on_reweighted: Callable[[int], None] | None) -> None:
        self._save(replace(self._manifest, average_length=average, state="reweighting"))
        points = self._store.scan(vectors=["dense"])
        done = 0
        while batch := list(islice(points, _POINTS_PER_BATCH)):
            texts = [passage_from_payload(point.payload).indexed_text for point in batch]
            sparse, _ = self._sparse.encode_documents(texts, average)
            self._store.upsert(
                [
                    Point(point.id, point.dense, weights if len(weights.indices) else None, point.payload)
                    for point, weights in zip(batch, sparse, strict=True)
                ]
            )
            done += len(batch)
            if on_reweighted is not None:
                on_reweighted(done)
        self._store.flush()

    def _save(self, manifest: IndexManifest) -> None:
        self._manifest = manifest
        self._store.write_manifest(manifest_to_json(manifest))
