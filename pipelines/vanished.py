"""Which documents of an index are no longer in the folder that they came from."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from pipelines.counts import COUNTED_FIELDS
from pipelines.tally import document_mark
from retrieval.datatypes import StoredPoint
from retrieval.errors import DocumentError
from retrieval.protocols import Store


def vanished_points(
    store: Store, root: str, *, was_seen: Callable[[bytes], bool], any_seen: bool, rejected: Collection[str]
) -> list[StoredPoint]:
    """Points of documents under a path that a run did not see.

    Args:
        store: Open store.
        root: Absolute path of a file or folder.
        was_seen: Whether the run saw the document with this mark.
        any_seen: Whether it saw any document.
        rejected: Sources that it could not read; what comes from there stays.

    Raises:
        DocumentError: Nothing was seen: a folder that is not mounted is empty too.
    """
    if not any_seen:
        raise DocumentError(
            f"nothing was read under {root}, so nothing there is removed; delete documents by id instead"
        )
    vanished = []
    for point in store.scan(payload=["source", *COUNTED_FIELDS]):
        source = point.payload["source"]
        if not _is_under(source, root) or was_seen(document_mark(point.payload["document"])):
            continue
        if not any(_is_under(source, unread) for unread in rejected):
            vanished.append(point)
    return vanished


def _is_under(source: str, root: str) -> bool:
    return source == root or source.startswith((root.rstrip(os.sep) + os.sep, root + "#"))
