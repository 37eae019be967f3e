"""Checks the vectors of a whole batch at once, where all of them are as our own encoders make them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from retrieval.datatypes import FloatArray, SparseVector

NORM_TOLERANCE = 1e-3
"""How far the length of a dense vector may be from one."""
_FLOAT, _INDEX = np.dtype(np.float32), np.dtype(np.uint32)


def regular_vectors(
    points: Sequence[Any], dim: int, *, copy: bool = True
) -> list[tuple[FloatArray | None, SparseVector | None]] | None:
    """The vectors of some points, an empty sparse one as ``None``.

    Args:
        points: Points, or whatever a caller took for them.
        dim: Dimensions of the store.
        copy: Whether they are copied.

    Returns:
        For each point its dense and its sparse vector; ``None`` when anything about any of them is out of the ordinary,
        which need not make it unusable.
    """
    try:
        given = [point.dense for point in points if point.dense is not None]
        weights = [point.sparse for point in points if point.sparse is not None]
        dense, sparse = _regular_dense(given, dim), _regular_sparse(weights, copy=copy)
    except (AttributeError, TypeError, ValueError):
        return None
    if dense is None or sparse is None:
        return None
    rows, vectors = iter(dense if copy else given), iter(sparse)
    return [
        (None if point.dense is None else next(rows), None if point.sparse is None else next(vectors))
        for point in points
    ]


def _regular_dense(rows: Sequence[Any], dim: int) -> FloatArray | None:
    shape = (dim,)
    if not all(type(row) is np.ndarray and row.dtype == _FLOAT and row.shape == shape for row in rows):
        return None
    matrix = np.array(rows, np.float32).reshape(len(rows), dim)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    usable = (norms == 0.0) | (np.abs(norms - 1.0) <= NORM_TOLERANCE)
    # NaN compares false and infinity is far from one, so both are out.
    return matrix if usable.all() else None


def _regular_sparse(vectors: Sequence[Any], *, copy: bool) -> list[SparseVector | None] | None:
    if not all(type(vector) is SparseVector and _is_regular(vector) for vector in vectors):
        return None
    if not vectors:
        return []
    offsets = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    indices = np.concatenate([vector.indices for vector in vectors])
    values = np.concatenate([vector.values for vector in vectors])
    ascending = np.ones(len(indices), bool)
    ascending[1:] = indices[1:] > indices[:-1]
    ascending[offsets[:-1][np.diff(offsets) > 0]] = True
    if not ascending.all() or not np.isfinite(values).all() or (values < 0).any():
        return None
    if not copy:
        return [vector if len(vector.indices) else None for vector in vectors]
    return [
        SparseVector(indices[start:end], values[start:end]) if end > start else None
        for start, end in itertools.pairwise(offsets.tolist())
    ]


def _is_regular(vector: SparseVector) -> bool:
    indices, values = vector.indices, vector.values
    return (
        type(indices) is np.ndarray
        and type(values) is np.ndarray
        and indices.dtype == _INDEX
        and values.dtype == _FLOAT
        and indices.ndim == 1
        and indices.shape == values.shape
    )
