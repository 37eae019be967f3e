"""The reports of all parts of a source, brought together: each part once, each document once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.counts import COUNTED_FIELDS
from pipelines.document_writer import came_twice
from pipelines.ray_ingest.worker import OUTCOMES, RECORD, PartReport
from pipelines.tally import KEPT_REJECTIONS, Tally
from pipelines.writer import IndexWriter
from retrieval.datatypes import StoredPoint
from retrieval.errors import StoreError
from retrieval.protocols import Store

_DOCUMENTS_PER_LOOKUP = 256
_UNUSABLE, _UNCHANGED, _CHANGED = OUTCOMES.index(None), OUTCOMES.index("unchanged"), OUTCOMES.index("changed")


class PartReports:
    """Adds up what the workers tell.

    Args:
        parts: How many parts there are.
        tally: Where documents and rejections are added up.
        writer: Where points are counted and removed.
    """

    def __init__(self, parts: int, tally: Tally, writer: IndexWriter) -> None:
        self._parts = parts
        self._tally = tally
        self._writer = writer
        self._records: dict[int, NDArray[np.void]] = {}

    def add(self, report: PartReport) -> None:
        """Take a report; one of a part that has already come is left out."""
        if report.part in self._records:
            return
        self._records[report.part] = report.records
        self._writer.counts.merge(report.counts)
        total, tally = self._tally, report.tally
        for name in ("documents", "added", "changed", "unchanged", "passages", "rejected_count"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.rejected += tally.rejected[: KEPT_REJECTIONS - len(total.rejected)]
        total.rejected_sources |= tally.rejected_sources

    def settle(self, store: Store) -> None:
        """Keep one version of each document: remove what was changed, and what came in two parts.

        Of a document that came more than once the first one counts, as in a run of one process.

        Raises:
            StoreError: A part is missing, or the store failed.
        """
        if missing := set(range(self._parts)) - self._records.keys():
            raise StoreError(
                f"{len(missing)} of {self._parts} parts never came back, such as part {min(missing)}; "
                "run the ingest again, it goes on from there"
            )
        records = self._in_order()
        keep = records["outcome"] == _CHANGED
        for rows in _repeated(records):
            keep[rows] = False
            keep[rows[0]] = True
            self._drop_repeated(store, records[rows])
        firsts = records["first"][keep]
        for start in range(0, len(firsts), _DOCUMENTS_PER_LOOKUP):
            self._remove_others(store, [_point_id(first) for first in firsts[start : start + _DOCUMENTS_PER_LOOKUP]])

    def seen(self) -> set[bytes]:
        """Marks of all documents that came, usable or not."""
        return {mark.tobytes() for records in self._records.values() for mark in records["mark"]}

    def _in_order(self) -> NDArray[np.void]:
        """Records of documents that are in the index, those of earlier parts first."""
        ordered = [self._records[number] for number in range(self._parts)]
        records = np.concatenate([np.zeros(0, RECORD), *ordered])
        usable: NDArray[np.void] = records[records["outcome"] != _UNUSABLE]
        return usable

    def _drop_repeated(self, store: Store, records: NDArray[np.void]) -> None:
        """Of documents of one key all but the first are rejected, and points that were counted twice uncounted."""
        counted: set[str] = set()
        for place, record in enumerate(records):
            first, outcome = _point_id(record["first"]), OUTCOMES[record["outcome"]]
            assert outcome is not None
            (point,) = store.get([first], payload=["source", "document_id", "document", "hash"])
            if place:
                setattr(self._tally, outcome, getattr(self._tally, outcome) - 1)
                self._tally.reject(came_twice(point.payload["source"], point.payload["document_id"]))
            if outcome != "unchanged" and first in counted:
                for repeated in _version(store, point):
                    self._writer.counts.subtract(repeated.id, repeated.payload)
            if outcome != "unchanged":
                counted.add(first)

    def _remove_others(self, store: Store, firsts: Sequence[str]) -> None:
        """Remove all versions of some documents but those with these first passages."""
        kept = {
            point.payload["document"]: point.payload["hash"]
            for point in store.get(firsts, payload=["document", "hash"])
        }
        where = {"must": [{"key": "document", "match": {"any": list(kept)}}]}
        found = store.scan(where, payload=["hash", *COUNTED_FIELDS])
        self._writer.remove([point for point in found if point.payload["hash"] != kept[point.payload["document"]]])


def _repeated(records: NDArray[np.void]) -> Iterator[NDArray[np.int64]]:
    """Rows of documents with the same mark, in their order, for marks that occur more than once."""
    marks = records["mark"]
    order = np.lexsort((marks[:, 1], marks[:, 0]))
    ordered = marks[order]
    new = np.ones(len(order), bool)
    new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end]


def _version(store: Store, point: StoredPoint) -> list[StoredPoint]:
    match = [{"key": name, "match": {"value": point.payload[name]}} for name in ("document", "hash")]
    return list(store.scan({"must": match}, payload=list(COUNTED_FIELDS)))


def _point_id(first: NDArray[np.uint64]) -> str:
    return str(uuid.UUID(bytes=first.tobytes()))
