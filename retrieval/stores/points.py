"""Checks points, ids, queries and payload selections before any engine sees them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from retrieval.datatypes import Arm, FloatArray, Point, Quantization, SearchRequest, SparseVector
from retrieval.errors import StoreCorruptError, StoreInputError
from retrieval.stores.filters import Clause, parse_filter
from retrieval.stores.payloads import checked_payload, is_plain
from retrieval.stores.regular import NORM_TOLERANCE, regular_vectors

MAX_LIMIT = 100_000
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def checked_points(points: Sequence[Point], dim: int, *, copy: bool = True) -> list[Point]:
    """Check a batch as a whole.

    Args:
        points: Points to write.
        dim: Dimensions of the store.
        copy: Whether all of a point is copied; false gives what is already as it should be back as it is, for an engine
            that takes its own copy at once.

    Returns:
        One point per id (the last one of the batch), payloads as plain dicts and lists, an empty sparse vector as
        ``None``: a passage without terms takes no part in the BM25 arm and is not counted in its statistics.

    Raises:
        StoreInputError: A point is not usable; the message names it and the field.
    """
    batch = list(points)
    vectors = regular_vectors(batch, dim, copy=copy)
    checked: dict[str, Point] = {}
    for position, point in enumerate(batch):
        place = f"point {position}"
        if not isinstance(point, Point):
            raise StoreInputError(f"{place} is a {type(point).__name__}, not a Point")
        if not isinstance(point.id, str) or not _UUID.fullmatch(point.id):
            checked_ids([point.id], f"{place}: id")
        if vectors is None:
            place = f"{place} ({point.id})"
            dense = None if point.dense is None else checked_dense(point.dense, dim, f"{place}: dense")
            sparse = None if point.sparse is None else checked_sparse(point.sparse, f"{place}: sparse")
        else:
            dense, sparse = vectors[position]
        if not (copy or dense is not point.dense or sparse is not point.sparse) and is_plain(point.payload):
            usable = point
        else:
            usable = Point(point.id, dense, sparse, checked_payload(point.payload, position, point.id))
        checked.pop(point.id, None)
        checked[point.id] = usable
    return list(checked.values())


def own_id(point_id: object) -> str:
    """The id of a point that was read.

    Raises:
        StoreCorruptError: It is a number: another program has written to this index.
    """
    name = str(point_id)
    if len(name) != 36:
        raise StoreCorruptError(
            f"the index holds a point with the id {name}, which this project has not written; it needs an index, or a "
            "collection, of its own"
        )
    return name


def checked_ids(ids: Sequence[str], place: str = "ids") -> list[str]:
    """Check that ids are canonical UUID strings.

    Raises:
        StoreInputError: One is not, or ``ids`` is a bare string.
    """
    if isinstance(ids, str | bytes):
        raise StoreInputError(f"{place} is a list of UUID strings, not the string {ids!r}")
    result = list(ids)
    for point_id in result:
        if not isinstance(point_id, str) or not _UUID.fullmatch(point_id):
            example = "8-4-4-4-12 lower-case hex digits, as str(uuid.uuid5(...)) gives them"
            raise StoreInputError(f"{place}: {point_id!r} is not a UUID in canonical form ({example})")
    return result


def checked_dense(vector: Any, dim: int, place: str) -> FloatArray:
    """Check a dense vector: float (dim,), finite, of unit length or all zero.

    Raises:
        StoreInputError: It is not.
    """
    try:
        array = np.asarray(vector)
    except (ValueError, TypeError) as error:
        raise StoreInputError(f"{place} is not an array of numbers: {error}") from error
    if array.dtype.kind != "f":
        raise StoreInputError(f"{place} has dtype {array.dtype}; it needs float32")
    if array.shape != (dim,):
        raise StoreInputError(f"{place} has shape {array.shape}; this store has vectors of {dim} dimensions")
    wide = array.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = math.sqrt(wide @ wide)
    if not math.isfinite(norm) and not np.isfinite(array).all():
        raise StoreInputError(f"{place} holds NaN or infinite values")
    if norm != 0.0 and abs(norm - 1.0) > NORM_TOLERANCE:
        raise StoreInputError(
            f"{place} has length {norm:.6g}; it must be of unit length or all zero (divide by its norm)"
        )
    return array.astype(np.float32)


def checked_sparse(vector: Any, place: str) -> SparseVector | None:
    """Check a sparse vector and sort it by index; ``None`` when it has no entries.

    Raises:
        StoreInputError: Lengths differ, an index repeats or is not a 32-bit unsigned integer, a value is negative or
            not finite.
    """
    if not isinstance(vector, SparseVector):
        raise StoreInputError(f"{place} is a {type(vector).__name__}, not a SparseVector")
    indices, values = np.asarray(vector.indices), np.asarray(vector.values)
    if indices.ndim != 1 or values.ndim != 1 or len(indices) != len(values):
        raise StoreInputError(
            f"{place} has {indices.shape} indices and {values.shape} values; both are flat, of one length"
        )
    if not len(indices):
        return None
    if indices.dtype.kind not in "iu" or int(indices.min()) < 0 or int(indices.max()) >= 2**32:
        raise StoreInputError(f"{place} has indices that are not integers from 0 to 2**32-1 (dtype {indices.dtype})")
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all() or float(values.min()) < 0:
        raise StoreInputError(f"{place} has values that are negative, NaN or infinite")
    if not (indices[1:] > indices[:-1]).all():
        order = np.argsort(indices, kind="stable")
        indices, values = indices[order], values[order]
        repeated = indices[1:][indices[1:] == indices[:-1]]
        if len(repeated):
            raise StoreInputError(f"{place} names index {repeated[0]} twice")
    with np.errstate(over="ignore"):  # which is an error below, and no warning
        indices, values = indices.astype(np.uint32), values.astype(np.float32)
    if not np.isfinite(values).all():
        raise StoreInputError(f"{place} has values beyond float32")
    return SparseVector(indices, values)


def checked_requests(
    requests: Sequence[SearchRequest], dim: int
) -> list[tuple[FloatArray | SparseVector | None, Clause | None]]:
    """Check search requests.

    Returns:
        For each request its vector, ``None`` when it is all zero or empty and so can find nothing, and its filter,
        ``None`` when it excludes nothing.

    Raises:
        StoreInputError: A vector, limit or filter is not usable; the message names the request.
    """
    checked: list[tuple[FloatArray | SparseVector | None, Clause | None]] = []
    for position, request in enumerate(requests):
        place = f"request {position}"
        checked_limit(request.limit, f"{place}: limit")
        vector: FloatArray | SparseVector | None
        if isinstance(request.vector, SparseVector):
            vector = checked_sparse(request.vector, f"{place}: vector")
        else:
            vector = checked_dense(request.vector, dim, f"{place}: vector")
            vector = vector if vector.any() else None
        checked.append((vector, checked_filter(request.where)))
    return checked


def checked_filter(where: Mapping[str, Any] | None) -> Clause | None:
    """Parse a filter; ``None`` when it excludes nothing.

    Raises:
        StoreInputError: It is not a usable filter.
    """
    clause = None if where is None else parse_filter(where)
    return None if clause is None or clause.matches_everything else clause


def checked_delete_filter(where: Mapping[str, Any]) -> Clause:
    """Parse a filter for deletion.

    Raises:
        StoreInputError: It is not usable, or excludes nothing, so that it would delete every point.
    """
    clause = checked_filter(where)
    if clause is None:
        raise StoreInputError(f"filter {where!r} excludes nothing and would delete every point; delete by ids instead")
    return clause


def checked_limit(limit: Any, place: str = "limit") -> int:
    """Check a number of results.

    Raises:
        StoreInputError: It is not an integer from 1 to `MAX_LIMIT`.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise StoreInputError(f"{place} is a whole number from 1 to {MAX_LIMIT}, not {limit!r}")
    return limit


def checked_quantization(quantization: Quantization) -> None:
    """Check that engines have such a quantization.

    Raises:
        StoreInputError: They have not.
    """
    bits = {"none": None, "scalar": None, "binary": (1, 1.5, 2), "turbo": (1, 1.5, 2, 4, 8)}
    kind = quantization.kind
    if kind not in bits:
        raise StoreInputError(f"quantization is one of {', '.join(bits)}, not {kind!r}")
    if not isinstance(quantization.bits, int | float) or not isinstance(quantization.oversampling, int | float):
        raise StoreInputError(f"bits and oversampling are numbers, not {quantization.bits!r:.50}")
    allowed = bits[kind]
    if allowed is not None and quantization.bits not in allowed:
        raise StoreInputError(f"{kind} quantization has {' or '.join(map(str, allowed))} bits, not {quantization.bits}")
    if quantization.query_bits is not None and (kind != "binary" or quantization.query_bits not in (4, 8)):
        raise StoreInputError(
            f"query_bits is 4 or 8 with binary quantization, not {quantization.query_bits} with {kind}"
        )
    if not 1.0 <= quantization.oversampling <= 100.0:
        raise StoreInputError(f"oversampling is from 1 to 100, not {quantization.oversampling}")


def vector_names(vectors: bool | Sequence[Arm]) -> list[str]:
    """The arms whose vectors are asked for.

    Raises:
        StoreInputError: ``vectors`` is neither true nor false nor a list of arms.
    """
    if isinstance(vectors, bool):
        return ["dense", "bm25"] if vectors else []
    if isinstance(vectors, str) or not set(vectors) <= {"dense", "bm25"}:
        raise StoreInputError(f"vectors is true, false or a list of 'dense' and 'bm25', not {vectors!r}")
    return list(vectors)


def payload_selector(payload: bool | Sequence[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A function that keeps what was asked for: all, nothing, or some top-level keys.

    Raises:
        StoreInputError: ``payload`` is a bare string or holds something else than strings.
    """
    if isinstance(payload, bool):
        return dict if payload else lambda _: {}
    if isinstance(payload, str | bytes) or not all(isinstance(key, str) for key in payload):
        raise StoreInputError(f"payload is true, false or a list of top-level keys, not {payload!r}")
    keys = tuple(payload)
    return lambda values: {key: values[key] for key in keys if key in values}
