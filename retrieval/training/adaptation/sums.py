"""Sums of token vectors over ragged lists of ids, and their gradient, as products with a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.errors import MissingExtraError

IntArray = NDArray[np.int64]

_LISTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """Lists of token ids behind each other: list ``i`` is ``ids[offsets[i]:offsets[i + 1]]``."""

    ids: NDArray[np.int32]
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)


def ragged(starts: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Positions of all ranges ``starts[i] … starts[i] + lengths[i]`` behind each other, and their offsets."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


def select(bags: Bags, rows: IntArray) -> Bags:
    """The lists of some rows."""
    positions, offsets = ragged(bags.offsets[rows], bags.lengths[rows])
    return Bags(bags.ids[positions], offsets)


def keep(bags: Bags, mask: NDArray[np.bool_]) -> Bags:
    """The ids where ``mask`` (ids,) is true."""
    return Bags(bags.ids[mask], np.concatenate([[0], np.cumsum(mask)])[bags.offsets])


def join(first: Bags, second: Bags) -> Bags:
    """The lists of both, behind each other."""
    return Bags(
        np.concatenate([first.ids, second.ids]), np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]])
    )


def require_scipy() -> None:
    """Fail early where scipy is missing.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    if find_spec("scipy") is None:
        raise MissingExtraError("scipy", "train", "adapting the static model")


def matrix(bags: Bags, width: int) -> Any:
    """A scipy CSR matrix (lists, width) that counts the ids of each list."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(bags.ids), np.float32), bags.ids, bags.offsets), (len(bags), width), copy=False)


def pack(lists: Sequence[Sequence[int]]) -> Bags:
    """Lists of token ids as one array."""
    lengths = np.array([len(ids) for ids in lists], np.int64)
    flat = np.fromiter((token for ids in lists for token in ids), np.int32, int(lengths.sum()))
    return Bags(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def add_up(bags: Bags, vectors: FloatArray) -> FloatArray:
    """Sums of the vectors of each list, float32 (lists, dim); an empty list is zero."""
    result = np.empty((len(bags), vectors.shape[1]), np.float32)
    for start in range(0, len(bags), _LISTS_AT_ONCE):
        rows = np.arange(start, min(start + _LISTS_AT_ONCE, len(bags)))
        result[rows] = matrix(select(bags, rows), len(vectors)) @ vectors
    return result


def unit(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rows at unit length, zero where they are zero, and the lengths that they had (rows, 1)."""
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))[:, None]
    return np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0), norms
