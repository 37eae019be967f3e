"""Facets of the embedded engine: they need a payload index that knows every value of the field."""

from __future__ import annotations

from typing import Any

import qdrant_edge as engine

from retrieval.stores.edge_engine import KEYWORDS, Engine
from retrieval.stores.edge_filters import edge_filter
from retrieval.stores.filters import Clause, parse_path
from retrieval.stores.matching import scalars_at
from retrieval.stores.ties import MARGIN, close_tie, most_frequent

_SAMPLE = 256
_KINDS = {
    str: engine.PayloadSchemaType.Keyword,
    int: engine.PayloadSchemaType.Integer,
    bool: engine.PayloadSchemaType.Bool,
}


def indexed_facet(shard: Engine, key: str, limit: int, clause: Clause | None) -> list[tuple[Any, int]] | None:
    """Most frequent values from the index of a field, which is made where there is none.

    Args:
        shard: The engine.
        key: Path of the field.
        limit: How many values.
        clause: Points that count, ``None`` for all.

    Returns:
        Values and counts, most frequent first; ``None`` when no index can know every value of the field.
    """
    if not _index_covers(shard, key):
        return None
    condition = None if clause is None else edge_filter(clause)

    def fetch(window: int) -> list[Any]:
        request = engine.FacetRequest(key, limit=window, exact=True, filter=condition)
        return list(shard.call("facet", lambda opened: opened.facet(request)))

    hits = close_tie(fetch, fetch(limit + MARGIN), limit, lambda hit: float(hit.count))
    # Values of points that were removed stay in the index of a segment that is in order, with nothing to count.
    return most_frequent(((hit.value, hit.count) for hit in hits if hit.count), limit)


def _index_covers(shard: Engine, key: str) -> bool:
    filled = engine.Filter(must_not=[engine.IsEmptyCondition(key)])
    schema = shard.call("facet", lambda opened: opened.info().payload_schema)
    if key not in schema:
        path = parse_path(key)
        request = engine.ScrollRequest(limit=_SAMPLE, filter=filled, with_payload=True, with_vector=False)
        records, _ = shard.call("scan", lambda opened: opened.scroll(request))
        kinds = {type(value) for record in records for value in scalars_at(path, record.payload or {})}
        if len(kinds) != 1 or (kind := _KINDS.get(kinds.pop())) is None:
            return False
        shard.require_disk()
        shard.write("facet", lambda opened: opened.update(engine.UpdateOperation.create_field_index(key, kind)))
        schema = shard.call("facet", lambda opened: opened.info().payload_schema)
    count = shard.call("facet", lambda opened: opened.count(engine.CountRequest(filter=filled)))
    covers = int(schema[key].points) == count
    if not covers and key not in KEYWORDS:
        # Filters are answered from an index where there is one, and this one misses values of other types.
        shard.write("facet", lambda opened: opened.update(engine.UpdateOperation.delete_field_index(key)))
    return covers
