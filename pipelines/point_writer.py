"""What everything that writes points has in common: it counts them, and goes on where the store refuses one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

from pipelines.counts import Counts
from retrieval.datatypes import IndexManifest, Point, Rejected
from retrieval.errors import StoreInputError
from retrieval.protocols import Store

Outcome = Literal["added", "changed", "unchanged"]
_POINTS_PER_FLUSH = 32_768


class PointWriter(ABC):
    """Writes points into an open store.

    Args:
        store: Open store.
        counts: What the index holds; changed with every write.
        reject: Told about documents that the store refuses.
    """

    def __init__(self, store: Store, counts: Counts, reject: Callable[[Rejected], None]) -> None:
        self._store = store
        self._reject = reject
        self._unflushed = 0
        self.counts = counts
        self.refused: set[str] = set()
        """Keys of documents of which the store refused a passage."""

    @property
    @abstractmethod
    def manifest(self) -> IndexManifest:
        """The manifest that new points are written under."""

    @abstractmethod
    def present(self, ids: Sequence[str]) -> list[str]:
        """Those of some point ids that were in the index before this run."""

    @abstractmethod
    def older(self, keys: Sequence[str]) -> set[str]:
        """Those of some documents of which the index held a version before this run."""

    @abstractmethod
    def replace(self, key: str, digest: str) -> None:
        """A version of a document is complete: the older ones go, now or at the end of the run."""

    @abstractmethod
    def complete(self, key: str, point_id: str, outcome: Outcome) -> None:
        """Told of every document that is in the index now, with the id of its first passage."""

    def upsert(self, points: Sequence[Point]) -> int:
        """Write new points; where the store refuses the batch, point by point.

        No further point of a document is written once one was refused.

        Returns:
            How many were written.

        Raises:
            StoreError: The store failed.
        """
        if not points:
            return 0
        try:
            self._store.upsert(points)
            written = list(points)
        except StoreInputError:
            written = [point for point in points if self._upsert_alone(point)]
        for point in written:
            self.counts.add(point.id, point.payload)
        self._unflushed += len(written)
        if self._unflushed >= _POINTS_PER_FLUSH:
            self._store.flush()
            self._unflushed = 0
        return len(written)

    def _upsert_alone(self, point: Point) -> bool:
        key = point.payload["document"]
        if key in self.refused:
            return False
        try:
            self._store.upsert([point])
        except StoreInputError as error:
            self.refused.add(key)
            self._reject(Rejected(key, str(error)))
        return key not in self.refused
