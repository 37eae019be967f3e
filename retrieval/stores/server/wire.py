"""Our records in the words of a Qdrant server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from retrieval.datatypes import FloatArray, Point, Quantization, SparseVector, StoredPoint
from retrieval.stores.filters import (
    Clause,
    Condition,
    DatetimeRange,
    HasId,
    IsEmpty,
    IsNull,
    MatchText,
    MatchValues,
    Nested,
    Range,
    ValuesCount,
)
from retrieval.stores.points import own_id
from retrieval.stores.searching import Query

_BINARY = {
    1: models.BinaryQuantizationEncoding.ONE_BIT,
    1.5: models.BinaryQuantizationEncoding.ONE_AND_HALF_BITS,
    2: models.BinaryQuantizationEncoding.TWO_BITS,
}
_QUERY = {
    None: models.BinaryQuantizationQueryEncoding.DEFAULT,
    4: models.BinaryQuantizationQueryEncoding.SCALAR4BITS,
    8: models.BinaryQuantizationQueryEncoding.SCALAR8BITS,
}
_TURBO = {
    1: models.TurboQuantBitSize.BITS1,
    1.5: models.TurboQuantBitSize.BITS1_5,
    2: models.TurboQuantBitSize.BITS2,
    4: models.TurboQuantBitSize.BITS4,
    8: models.TurboQuantBitSize.BITS8,
}


def server_filter(clause: Clause) -> models.Filter:
    """Translate a parsed filter."""
    minimum = None
    if clause.min_count:
        minimum = models.MinShould(conditions=_all(clause.min_should), min_count=clause.min_count)
    return models.Filter(
        must=_all(clause.must) or None,
        should=_all(clause.should) or None,
        must_not=_all(clause.must_not) or None,
        min_should=minimum,
    )


def server_point(point: Point) -> models.PointStruct:
    """Translate a point."""
    vector: dict[str, Any] = {}
    if point.dense is not None:
        vector["dense"] = point.dense.tolist()
    if point.sparse is not None:
        vector["bm25"] = _server_vector(point.sparse)
    return models.PointStruct(id=point.id, vector=vector, payload=dict(point.payload))


def _server_vector(vector: FloatArray | SparseVector) -> Any:
    """Translate a vector."""
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
    return vector.tolist()


def server_quantization(quantization: Quantization) -> Any:
    """Translate a quantization, ``None`` for none."""
    if quantization.kind == "binary":
        return models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(
                always_ram=True, encoding=_BINARY[quantization.bits], query_encoding=_QUERY[quantization.query_bits]
            )
        )
    if quantization.kind == "turbo":
        return models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(bits=_TURBO[quantization.bits], always_ram=True)
        )
    if quantization.kind == "scalar":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    return None


def server_query(query: Query, quantization: Quantization | None, *, ef: int) -> models.QueryRequest:
    """Translate a query.

    Args:
        query: A checked request.
        quantization: How dense vectors are compressed; ``None`` to send no parameters.
        ef: Least size of the list that approximate search keeps.
    """
    sparse = isinstance(query.vector, SparseVector)
    params = None
    if not sparse and quantization is not None:
        params = _search_params(query.compression(quantization), ef=max(ef, query.limit), exact=query.exact)
    return models.QueryRequest(
        query=_server_vector(query.vector),
        using="bm25" if sparse else "dense",
        filter=None if query.clause is None else server_filter(query.clause),
        params=params,
        limit=query.window,
        with_payload=False,
        with_vector=False,
    )


def stored_point(record: models.Record, select: Callable[..., dict[str, Any]]) -> StoredPoint:
    """Translate a point that was read, with what ``select`` keeps of its payload."""
    vectors = record.vector if isinstance(record.vector, dict) else {}
    dense, sparse = vectors.get("dense"), vectors.get("bm25")
    return StoredPoint(
        own_id(record.id),
        select(record.payload or {}),
        None if dense is None else np.array(dense, np.float32),
        SparseVector(np.array(sparse.indices, np.uint32), np.array(sparse.values, np.float32))
        if isinstance(sparse, models.SparseVector)
        else None,
    )


def _search_params(quantization: Quantization, *, ef: int, exact: bool) -> models.SearchParams:
    """Parameters of a dense query, each stated so that no default of the server decides."""
    if quantization.kind == "none":
        # Another process may have switched compression on since this store was opened, and may take it back.
        compressed = models.QuantizationSearchParams(ignore=True)
    else:
        compressed = models.QuantizationSearchParams(
            ignore=exact, rescore=quantization.rescore, oversampling=quantization.oversampling
        )
    return models.SearchParams(hnsw_ef=ef, exact=exact, quantization=compressed)


def _all(conditions: Sequence[Condition]) -> list[Any]:
    return [_condition(condition) for condition in conditions]


def _condition(condition: Condition) -> Any:
    if isinstance(condition, Clause):
        return server_filter(condition)
    if isinstance(condition, HasId):
        return models.HasIdCondition(has_id=sorted(condition.ids))
    key = condition.path.text
    if isinstance(condition, Nested):
        return models.NestedCondition(nested=models.Nested(key=key, filter=server_filter(condition.clause)))
    if isinstance(condition, IsEmpty):
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    if isinstance(condition, IsNull):
        return models.IsNullCondition(is_null=models.PayloadField(key=key))
    if isinstance(condition, MatchValues):
        return models.FieldCondition(key=key, match=_match(condition))
    if isinstance(condition, MatchText):
        return models.FieldCondition(key=key, match=models.MatchText(text=condition.text))
    bounds = {name: getattr(condition, name) for name in ("gt", "gte", "lt", "lte")}
    if isinstance(condition, ValuesCount):
        return models.FieldCondition(key=key, values_count=models.ValuesCount(**bounds))
    if isinstance(condition, Range):
        return models.FieldCondition(key=key, range=models.Range(**bounds))
    assert isinstance(condition, DatetimeRange)
    return models.FieldCondition(key=key, range=models.DatetimeRange(**bounds))


def _match(condition: MatchValues) -> Any:
    values: list[Any] = list(condition.values)
    if condition.negated:
        return models.MatchExcept(**{"except": values})
    if len(values) == 1:
        return models.MatchValue(value=values[0])
    return models.MatchAny(any=values)
