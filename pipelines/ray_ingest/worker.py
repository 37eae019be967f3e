"""One of many writers of an index: it writes the documents of a part and tells what the index holds of them.

A part may be written more than once, because a worker can die after any of its writes and before its report. All
attempts at a part make the same points and the same report: what an earlier attempt of the same run has written counts
as not there yet and is written again. Nothing is removed here: older versions of documents go when the reports of all
parts have come (`pipelines.ray_ingest.reports`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.counts import Counts
from pipelines.document_writer import DocumentWriter
from pipelines.point_writer import Outcome, PointWriter
from pipelines.preparation import PreparationHere, Preparing
from pipelines.tally import Tally, document_mark
from pipelines.two_stage import TwoStagePipeline
from retrieval import __version__
from retrieval.chunking import Chunker
from retrieval.config import Config
from retrieval.datatypes import IndexManifest, Rejected
from retrieval.documents import Part, read_part
from retrieval.encoders import Bm25Encoder
from retrieval.errors import DocumentError, IndexMismatchError, StoreError
from retrieval.protocols import Store
from retrieval.stores import peek_index

OUTCOMES: tuple[Outcome | None, ...] = (None, "unchanged", "added", "changed")
RECORD = np.dtype([("mark", "<u8", 2), ("first", "<u8", 2), ("outcome", "u1")])
"""A document that came: its mark, the id of its first passage, and its place in `OUTCOMES`."""


@dataclass(frozen=True, slots=True)
class PartReport:
    """What a worker did with a part.

    Args:
        part: Number of the part.
        tally: Documents, passages and rejections.
        counts: Points that the index holds through this part and did not hold before this run.
        records: `RECORD` of every document, usable or not, in no particular order.
    """

    part: int
    tally: Tally
    counts: Counts
    records: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class IndexState:
    """What the driver has announced and every worker must find.

    Args:
        config: Configuration of the index.
        manifest: As written before the first part.
        empty: Whether the index held nothing before this run.
        version: Version of this library at the driver.
    """

    config: Config
    manifest: IndexManifest
    empty: bool
    version: str = __version__


class PartWorker:
    """An open index and what it takes to write to it.

    Args:
        state: What the driver has announced.

    Raises:
        StoreError: There is no index, or another one than announced.
        IndexMismatchError: This process has another version of the library or another encoder.
        ModelError: The encoder cannot be opened here.
    """

    def __init__(self, state: IndexState) -> None:
        if state.version != __version__:
            raise IndexMismatchError(
                f"the driver runs version {state.version} of two-stage-retrieval, this worker {__version__}; "
                "install the same on all machines"
            )
        # Opening an index that is not there would make one.
        if peek_index(state.config, "") is None:
            raise StoreError("a worker finds no index where the driver has one; store.url must name the same server")
        self._config = state.config
        self._manifest = state.manifest
        self._empty = state.empty
        self._pipeline = TwoStagePipeline.open(config=state.config)
        self._chunker = Chunker.of_encoder(state.config.chunking, self._pipeline.encoder)
        found = self._pipeline.manifest
        if (found.generation, found.runs, found.state) != (
            state.manifest.generation,
            state.manifest.runs,
            state.manifest.state,
        ):
            self._pipeline.close()
            raise StoreError(
                f"generation {found.generation}, run {found.runs}, {found.state} is not what the driver has announced; "
                "another ingest has begun: start this one again when it is done"
            )

    def write(self, part: Part) -> PartReport:
        """Write a part.

        Raises:
            StoreError: The store failed; writing the part again is safe.
            DocumentError: None of its files is there, or a table that was named lacks the columns it needs.
        """
        if not any(path.exists() for path, _ in part.files):
            raise DocumentError(
                f"{part.files[0][0]} is not there; all machines of the cluster must see the source under the same name"
            )
        tally = Tally()
        writer = _PartWriter(self._pipeline.store, self._manifest, tally)
        documents = DocumentWriter(writer, tally, empty=self._empty)
        work = Preparing(self._pipeline.encoder, Bm25Encoder(self._config.bm25), self._chunker)
        rejected: list[Rejected] = []
        read = read_part(part, self._config.documents, on_rejected=rejected.append)
        documents.write(PreparationHere(work, read, rejected))
        self._pipeline.store.flush()
        return PartReport(part.number, tally, writer.counts, _records(documents.seen, writer.outcomes))

    def close(self) -> None:
        """Close the index."""
        self._pipeline.close()


class _PartWriter(PointWriter):
    """Notes what has become of each document, and leaves the manifest and older versions to the driver."""

    def __init__(self, store: Store, manifest: IndexManifest, tally: Tally) -> None:
        super().__init__(store, Counts(), tally.reject)
        self._manifest = manifest
        self.outcomes: dict[bytes, tuple[str, Outcome]] = {}

    @property
    def manifest(self) -> IndexManifest:
        return self._manifest

    def present(self, ids: Sequence[str]) -> list[str]:
        found = self._store.get(list(ids), payload=["run"])
        return [point.id for point in found if point.payload["run"] < self._manifest.runs]

    def older(self, keys: Sequence[str]) -> set[str]:
        where = {"must": [{"key": "document", "match": {"any": list(keys)}}]}
        found = self._store.scan(where, payload=["document", "run"])
        return {point.payload["document"] for point in found if point.payload["run"] < self._manifest.runs}

    def replace(self, key: str, digest: str) -> None:
        """The driver removes the older versions: two parts may hold the same document."""

    def complete(self, key: str, point_id: str, outcome: Outcome) -> None:
        self.outcomes[document_mark(key)] = (point_id, outcome)


def _records(seen: set[bytes], outcomes: dict[bytes, tuple[str, Outcome]]) -> NDArray[np.void]:
    records = np.zeros(len(seen), RECORD)
    for row, mark in enumerate(seen):
        records["mark"][row] = np.frombuffer(mark, "<u8")
        if mark in outcomes:
            point_id, outcome = outcomes[mark]
            records["first"][row] = np.frombuffer(uuid.UUID(point_id).bytes, "<u8")
            records["outcome"][row] = OUTCOMES.index(outcome)
    return records
