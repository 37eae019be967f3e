"""When a collection builds its indexes: put off while many points come, and waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

from qdrant_client import QdrantClient, models

from retrieval.errors import StoreError
from retrieval.stores.server.collection import Collection
from retrieval.stores.server.connection import ADMIN_TIMEOUT_S, Connection

STALLED_AFTER_S = 3600.0
BULK_POINTS = 20_000
_POLL_S = 0.5
_NOTE = "deferred_indexing"
_sleep = time.sleep
_clock = time.monotonic
_logger = logging.getLogger(__name__)


class Indexing:
    """The optimizer of a collection.

    Indexing is put off by an indexing threshold of 0, which the server takes for never. The threshold that was before
    is noted in the metadata by the same request, so that the next run restores it where a process was killed.

    Args:
        connection: To the server.
        collection: The collection.
        location: What messages call it.
        threshold_kb: Restored where the server knows no threshold of the collection.
    """

    def __init__(self, connection: Connection, collection: Collection, location: str, threshold_kb: int) -> None:
        self._connection = connection
        self._collection = collection
        self._location = location
        self._threshold_kb = threshold_kb

    @property
    def is_deferred(self) -> bool:
        """Whether this library has put off indexing, now or in a run that was killed."""
        return bool(self._collection.read_metadata(_NOTE))

    def defer(self) -> None:
        """Build no index until `resume`; nothing to do where that is so already."""
        if self._connection.in_process or self.is_deferred:
            return
        threshold = self._collection.info().config.optimizer_config.indexing_threshold
        if threshold == 0:
            return  # somebody has switched indexing off for good
        self._set(0, {"indexing_threshold": self._threshold_kb if threshold is None else threshold})

    def resume(self) -> None:
        """Take up indexing again, without waiting for it; nothing to do where it was not put off."""
        note = self._collection.read_metadata(_NOTE)
        if note:
            self._set(int(note.get("indexing_threshold", self._threshold_kb)), {})

    def wait(self, *, seen: int = 1) -> None:
        """Wait until the server has optimized the collection.

        Args:
            seen: How many times in a row it has to look done.

        Raises:
            StoreError: The server reports an error, or nothing has moved for `STALLED_AFTER_S` seconds.
        """
        moved, before, green = _clock(), None, 0
        while True:
            info = self._collection.info()
            green = green + 1 if info.status is models.CollectionStatus.GREEN else 0
            if green >= seen:
                return
            if info.status is models.CollectionStatus.RED:
                said = getattr(info.optimizer_status, "error", None)
                raise StoreError(
                    f"the optimizer of {self._location} reports an error{f' ({said})' if said else ''}; "
                    "see the log of the server"
                )
            if info.status is models.CollectionStatus.GREY:
                self._connection.call("optimize", self._wake)
            now = (info.status, info.segments_count, info.indexed_vectors_count, info.points_count)
            if now != before:
                moved, before = _clock(), now
            elif _clock() - moved > STALLED_AFTER_S:
                raise StoreError(
                    f"{self._location} is {info.status.value} and nothing has moved for {STALLED_AFTER_S:.0f} s; "
                    "see the log of the server"
                )
            _sleep(_POLL_S)

    def _set(self, threshold_kb: int, note: dict[str, int]) -> None:
        change = models.OptimizersConfigDiff(indexing_threshold=threshold_kb)
        action = "resume indexing" if threshold_kb else "defer indexing"
        self._collection.update(action, {_NOTE: note}, optimizers_config=change)

    def _wake(self, client: QdrantClient) -> bool:
        # After a restart optimizations wait for an update; an empty one will do.
        return client.update_collection(
            self._collection.name, optimizers_config=models.OptimizersConfigDiff(), timeout=ADMIN_TIMEOUT_S
        )


class BulkLoad:
    """Many points that come in one go.

    Args:
        indexing: Of the collection that they come to.
        collection: That collection.
        when: ``True`` defers indexing from the first point, ``auto`` once `BULK_POINTS` have come to a collection that
            held none before (others may be searching one that did), ``False`` never.
    """

    def __init__(self, indexing: Indexing, collection: Collection, when: bool | Literal["auto"]) -> None:
        self._indexing = indexing
        self._collection = collection
        self._when = when
        self._came = 0
        # What a killed run has left is taken over.
        self._decided = self._deferred = indexing.is_deferred

    def announce(self, points: int) -> None:
        """Before every write: that many points are coming."""
        self._came += points
        if self._decided or not self._when or (self._when == "auto" and self._came < BULK_POINTS):
            return
        self._decided = True
        if self._when == "auto" and self._collection.count(None) > self._came - points:
            return
        self._indexing.defer()
        self._deferred = True

    def finish(self, on_wait: Callable[[], None] | None = None) -> None:
        """After the last write: resume indexing and wait for it.

        Args:
            on_wait: Called before the wait, where there is one.

        Raises:
            StoreError: As `Indexing.wait`.
        """
        if self._deferred:
            self._indexing.resume()
            if on_wait is not None:
                on_wait()
            # The other nodes of a cluster learn of the change a moment later.
            self._indexing.wait(seen=2)

    def give_up(self) -> None:
        """After a failure: resume indexing if the server still listens; the next bulk load does it otherwise."""
        if self._deferred:
            try:
                self._indexing.resume()
            except StoreError as error:
                _logger.warning("indexing of %s stays off until the next ingest: %s", self._collection.name, error)
