"""Read a shard as it is, for whoever saves what can be read of a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import qdrant_edge as engine

from retrieval.datatypes import StoredPoint
from retrieval.stores.edge_records import stored_point

_BATCH = 256


def read_shard(folder: Path) -> Iterator[StoredPoint]:
    """All points of a shard with payload and dense vector; what its log still holds is written to its files first.

    The engine may end the process while it reads damaged files.

    Args:
        folder: Folder of the engine, which nobody has open.

    Raises:
        Exception: The engine refuses the files.
    """
    shard = engine.EdgeShard.load(str(folder))
    offset = None
    while True:
        request = engine.ScrollRequest(offset=offset, limit=_BATCH, with_payload=True, with_vector=["dense"])
        records, offset = shard.scroll(request)
        yield from (stored_point(record, dict) for record in records)
        if offset is None:
            break
    shard.close()
