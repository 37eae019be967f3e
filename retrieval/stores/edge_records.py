"""Our records in the words of the embedded engine, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import qdrant_edge as engine

from retrieval.datatypes import Point, Quantization, SparseVector, StoredPoint
from retrieval.stores.edge_filters import edge_filter
from retrieval.stores.points import own_id
from retrieval.stores.searching import Query

_HEAD, _UUID_LENGTH = 'ScoredPoint(id="', 36
_NAME = slice(len(_HEAD), len(_HEAD) + _UUID_LENGTH)


def edge_point(point: Point) -> engine.Point:
    """Translate a point that was checked."""
    # The engine reads a memory view as fast as a list, and a list would have to be made first.
    vector: dict[str, Any] = {}
    if point.dense is not None:
        vector["dense"] = point.dense.data
    if point.sparse is not None:
        indices: Any = point.sparse.indices.data
        values: Any = point.sparse.values.data
        vector["bm25"] = engine.SparseVector(indices, values)
    payload: Any = point.payload
    return engine.Point(point.id, vector, payload)


def edge_sparse(vector: SparseVector) -> engine.SparseVector:
    """Translate a sparse vector."""
    return engine.SparseVector(vector.indices.tolist(), vector.values.tolist())


def edge_query(query: Query, quantization: Quantization, *, ef: int, count_living: bool) -> engine.QueryRequest:
    """Translate a query.

    Args:
        query: A checked request.
        quantization: How dense vectors are compressed.
        ef: Least size of the list that approximate search keeps.
        count_living: Whether document frequencies must leave deleted points out, which costs time.
    """
    condition = None if query.clause is None else edge_filter(query.clause)
    if isinstance(query.vector, SparseVector):
        nearest = engine.Query.Nearest(edge_sparse(query.vector), using="bm25")
        living = engine.IdfParams(corpus=engine.Filter()) if count_living else None
        params = engine.SearchParams(idf=living)
    else:
        nearest = engine.Query.Nearest(query.vector.tolist(), using="dense")
        params = _search_params(query.compression(quantization), ef=max(ef, query.limit), exact=query.exact)
    return engine.QueryRequest(limit=query.window, query=nearest, filter=condition, params=params)


def hit_names(hits: Sequence[Any]) -> list[str]:
    """The ids of hits, as strings.

    For each ``id`` the engine makes a UUID, and two arms have two hundred; a hit that is printed begins with the same
    name in half of the time.

    Raises:
        StoreCorruptError: One is a number: another program has written to this index.
    """
    printed = [repr(hit) for hit in hits]
    names = [text[_NAME] for text in printed]
    # A number is printed without quotes, and then all behind it stands elsewhere.
    known = all(text.startswith(_HEAD) and text[_NAME.stop] == '"' for text in printed)
    if not known or (names and names[0] != str(hits[0].id)):
        return [own_id(hit.id) for hit in hits]
    return names


def stored_point(record: Any, select: Callable[..., dict[str, Any]]) -> StoredPoint:
    """Translate a point that was read, with what ``select`` keeps of its payload."""
    vectors = record.vector if isinstance(record.vector, dict) else {}
    dense, sparse = vectors.get("dense"), vectors.get("bm25")
    return StoredPoint(
        own_id(record.id),
        select(record.payload or {}),
        None if dense is None else np.array(dense, np.float32),
        None
        if sparse is None
        else SparseVector(np.array(sparse.indices, np.uint32), np.array(sparse.values, np.float32)),
    )


def _search_params(quantization: Quantization, *, ef: int, exact: bool) -> engine.SearchParams:
    """Parameters of a dense query, each stated so that no default of the engine decides."""
    if quantization.kind == "none":
        # A change of quantization that was killed may have left compressed vectors behind.
        compressed = engine.QuantizationSearchParams(ignore=True)
    else:
        compressed = engine.QuantizationSearchParams(
            ignore=exact, rescore=quantization.rescore, oversampling=quantization.oversampling
        )
    return engine.SearchParams(hnsw_ef=ef, exact=exact, quantization=compressed)
