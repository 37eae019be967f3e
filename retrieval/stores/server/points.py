"""Requests about the points of one collection: written, removed and read in batches that the server takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from qdrant_client import models

from retrieval.datatypes import Quantization, StoredPoint
from retrieval.stores.filters import Clause
from retrieval.stores.searching import Query
from retrieval.stores.server.connection import Connection
from retrieval.stores.server.failures import RequestTooLargeError, require_applied
from retrieval.stores.server.wire import server_filter, server_query, stored_point

T = TypeVar("T")
Select = Callable[..., dict[str, Any]]
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Points:
    """The points of a collection.

    Args:
        connection: To the server.
        collection: Name of the collection.
        batch_size: Most points of one request.
    """

    def __init__(self, connection: Connection, collection: str, batch_size: int) -> None:
        self._connection = connection
        self._name = collection
        self._batch_size = batch_size

    def upsert(self, points: Sequence[models.PointStruct], announce: Callable[[int], None]) -> None:
        """Write points, and wait until they are applied.

        Args:
            points: Points as the server takes them.
            announce: Told before every request how many points it brings.
        """
        for batch in _batches(points, self._batch_size):
            announce(len(batch))
            self._upsert(batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id."""
        for batch in _batches(ids, self._batch_size):
            self._delete(models.PointIdsList(points=list(batch)))

    def delete_where(self, condition: models.Filter) -> None:
        """Remove the points that match."""
        self._delete(models.FilterSelector(filter=condition))

    def search(self, queries: list[Query], quantization: Quantization, *, ef: int) -> list[list[models.ScoredPoint]]:
        """Answers to checked queries, in one request."""
        # The in-process client has no search parameters.
        compressed = None if self._connection.in_process else quantization
        asked = [server_query(query, compressed, ef=ef) for query in queries]
        answers = self._connection.call("search", lambda c: c.query_batch_points(self._name, requests=asked))
        return [answer.points for answer in answers]

    def get(
        self, ids: Sequence[str], payload: bool | Sequence[str], names: list[str], select: Select
    ) -> list[StoredPoint]:
        """The points that exist, in the order of ``ids``."""
        found: dict[str, StoredPoint] = {}
        for batch in _batches(ids, self._batch_size):
            records = self._retrieve(batch, _fields(payload), names)
            found |= {str(record.id): stored_point(record, select) for record in records}
        return [found[point_id] for point_id in ids if point_id in found]

    def scan(
        self, clause: Clause | None, payload: bool | Sequence[str], names: list[str], select: Select, batch: int
    ) -> Iterator[StoredPoint]:
        """All points that match by id, ``batch`` to a request."""
        condition, offset = None if clause is None else server_filter(clause), None
        while True:
            records, offset = self._page(condition, offset, batch, _fields(payload), names)
            yield from (stored_point(record, select) for record in records)
            if offset is None:
                return

    def _retrieve(self, ids: list[str], fields: bool | list[str], names: list[str]) -> list[models.Record]:
        return self._connection.call(
            "get", lambda c: c.retrieve(self._name, list(ids), with_payload=fields, with_vectors=names or False)
        )

    def _page(
        self, condition: models.Filter | None, offset: Any, limit: int, fields: bool | list[str], names: list[str]
    ) -> tuple[list[models.Record], Any]:
        return self._connection.call(
            "scan",
            lambda c: c.scroll(
                self._name,
                scroll_filter=condition,
                limit=limit,
                offset=offset,
                with_payload=fields,
                with_vectors=names or False,
            ),
        )

    def _upsert(self, batch: list[models.PointStruct]) -> None:
        try:
            self._connection.call("upsert", lambda c: require_applied(c.upsert(self._name, batch, wait=True)))
        except RequestTooLargeError:
            if len(batch) == 1:
                raise
            middle = len(batch) // 2
            self._upsert(batch[:middle])
            self._upsert(batch[middle:])

    def _delete(self, selector: models.PointIdsList | models.FilterSelector) -> None:
        self._connection.call("delete", lambda c: require_applied(c.delete(self._name, selector, wait=True)))


def _fields(payload: bool | Sequence[str]) -> bool | list[str]:
    """What to ask for: the server reads names as paths, so that others than plain ones are picked here."""
    if isinstance(payload, bool):
        return payload
    return list(payload) if all(_PLAIN_KEY.fullmatch(name) for name in payload) else True


def _batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    return (list(items[start : start + size]) for start in range(0, len(items), size))
