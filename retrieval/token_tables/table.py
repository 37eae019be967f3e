"""A table with one vector for each token, and sums of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.errors import ModelError

_CHECKED_BYTES = _RESIDENT_BYTES = 64 * 2**20
_ROWS_READ = 2**11
_NEVER_OVERFLOWS = 1e30  # numbers up to here can be added up in float32 as often as rows are read
_TOKENS_BEFORE_RESIDENT = 2**16
_TOKENS_FOR_SCIPY = 2**14  # a block of documents has more; queries and windows have fewer and need no scipy


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """One vector for each token: ``embeddings[mapping[token]] * weights[token]``.

    Args:
        embeddings: int8, float16, float32 or float64 (rows, dim).
        weights: float32 (tokens,), ``None`` for all one.
        mapping: Row of each token (tokens,), ``None`` when token and row are the same.
    """

    embeddings: NDArray[Any]
    weights: NDArray[np.float32] | None = None
    mapping: NDArray[np.int64] | None = None

    @property
    def tokens(self) -> int:
        """How many token ids have a vector."""
        return len(self.embeddings) if self.mapping is None else len(self.mapping)

    def read(self, tokens: NDArray[np.int64], dim: int) -> FloatArray:
        """Vectors of tokens, float32 (tokens, dim), cut to the first ``dim`` dimensions."""
        rows = tokens if self.mapping is None else self.mapping[tokens]
        vectors = self.embeddings[:, :dim][rows].astype(np.float32)
        return vectors if self.weights is None else vectors * self.weights[tokens, None]

    def check(self, path: Path, tokens: int) -> None:
        """Refuse a table that does not fit together or to the vocabulary, or holds what is not a number.

        Embeddings beyond 64 MiB are not searched for such values here, because that would read them all; a vector
        that meets one is refused when it is made.

        Args:
            path: Where the table comes from, for messages.
            tokens: One past the highest token id.

        Raises:
            ModelError: It cannot be used.
        """
        embeddings, weights, mapping = self.embeddings, self.weights, self.mapping
        if embeddings.ndim != 2 or 0 in embeddings.shape or embeddings.dtype.kind not in "fi":
            kind = f"{embeddings.dtype} of shape {embeddings.shape}"
            raise ModelError(f"{path}: the table of vectors is {kind}, not numbers of shape (tokens, dimensions)")
        if mapping is not None and (mapping.ndim != 1 or not len(mapping)):
            raise ModelError(f"{path}: 'mapping' has shape {mapping.shape}, not (tokens,)")
        if self.tokens < tokens:
            raise ModelError(
                f"{path} has vectors for {self.tokens} tokens, but the vocabulary has ids up to {tokens - 1}"
            )
        if mapping is not None and not 0 <= mapping.min() <= mapping.max() < len(embeddings):
            raise ModelError(f"{path}: 'mapping' points outside of the {len(embeddings)} rows")
        if weights is not None and weights.shape != (self.tokens,):
            raise ModelError(f"{path}: token weights have shape {weights.shape} for {self.tokens} tokens")
        if weights is not None and not np.isfinite(weights).all():
            raise ModelError(f"{path}: the weight of token {int(np.argmin(np.isfinite(weights)))} is not finite")
        if embeddings.dtype.kind == "f" and embeddings.nbytes <= _CHECKED_BYTES:
            finite = np.isfinite(embeddings).all(axis=1)
            if not finite.all():
                raise ModelError(f"{path}: row {int(np.argmin(finite))} of the table of vectors is not finite")


class RowSums:
    """Adds up vectors of tokens, always in float32 and in the order of the tokens.

    Tables that fit into 64 MiB are kept as float32 once more than a search or two has been asked; until then, and of
    larger ones always, the rows that a call needs are read.

    Args:
        table: The table.
        dim: Dimensions to keep, the first ones.
        skip: Token that `sum_one` leaves out.
    """

    def __init__(self, table: TokenTable, dim: int, skip: int | None = None) -> None:
        self._table = table
        self._dim = dim
        self._skip = skip
        self._small = table.tokens * dim * 4 <= _RESIDENT_BYTES
        self._asked = 0
        self._resident: FloatArray | None = None
        self._tame = False

    def source(self) -> tuple[NDArray[Any], FloatArray] | None:
        """Rows where they lie, in memory or in the file, for who reads them without numpy.

        Returns:
            int8 or float32 (tokens, at least dim), rows behind each other, and the scale of each, float32 (tokens,): a
            vector is the beginning of a row times its scale. ``None`` where only `sum` can read the table.
        """
        table, rows = self._table, self._table.embeddings
        if table.mapping is not None or rows.dtype != np.int8:
            if self._small:
                rows = self._made_resident()
                return rows, np.ones(len(rows), np.float32)
            if table.mapping is not None or rows.dtype != np.float32:
                return None
        if not (rows.flags.c_contiguous and rows.flags.aligned and rows.dtype.isnative):
            return None
        scales = np.ones(len(rows), np.float32) if table.weights is None else table.weights
        return rows, np.ascontiguousarray(scales)

    def sum(self, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> FloatArray:
        """Sums over ``ids[offsets[i]:offsets[i + 1]]``, float32 (len(offsets) - 1, dim), zero over nothing."""
        table = self._rows_after(len(ids))
        if table is None:
            used = np.zeros(self._table.tokens, bool)
            used[ids] = True
            tokens = np.flatnonzero(used)
            places = np.zeros(self._table.tokens, np.int32)
            places[tokens] = np.arange(len(tokens))
            table, ids = self._table.read(tokens, self._dim), places[ids]
        if len(ids) >= _TOKENS_FOR_SCIPY and (product := _sparse_product()) is not None:
            return product(table, ids, offsets)
        sums = np.zeros((len(offsets) - 1, self._dim), np.float32)
        rows = np.empty((min(len(ids), _ROWS_READ), self._dim), np.float32)
        bounds = offsets.tolist()
        for text in range(len(sums)):
            for start in range(bounds[text], bounds[text + 1], _ROWS_READ):
                some = ids[start : min(start + _ROWS_READ, bounds[text + 1])]
                # All ids are in range; with "clip" numpy writes into ``rows`` without a copy.
                table.take(some, 0, rows[: len(some)], "clip")
                sums[text] += rows[: len(some)].sum(axis=0)
        return sums

    def sum_one(self, ids: NDArray[np.int32]) -> FloatArray:
        """The sum over the ids of one text, float32 (dim,), without warnings.

        What `sum` gives for the ids without those to skip, whose row is zero here; to the last bit, but for the sign of
        a zero.
        """
        if (table := self._resident) is not None and self._tame and len(ids) <= _ROWS_READ:
            sums: FloatArray = np.add.reduce(table.take(ids, 0), 0)
            return sums
        if self._skip is not None:
            ids = ids[ids != self._skip]
        with np.errstate(over="ignore", invalid="ignore"):
            if len(ids) <= _ROWS_READ and self._rows_after(len(ids)) is None:
                # What `sum` would do for this one text, without looking which rows it has to read.
                own: FloatArray = np.add.reduce(self._table.read(ids.astype(np.int64), self._dim), 0)
                return own
            sums = self.sum(ids, np.array([0, len(ids)]))[0]
        return sums

    def _rows_after(self, tokens: int) -> FloatArray | None:
        """The whole table, if it is kept; so many tokens are asked for."""
        self._asked += tokens
        if self._resident is None and self._small and self._asked > _TOKENS_BEFORE_RESIDENT:
            return self._made_resident()
        return self._resident

    def _made_resident(self) -> FloatArray:
        if (made := self._resident) is None:
            made = self._table.read(np.arange(self._table.tokens), self._dim)
            tame = _largest(made) < _NEVER_OVERFLOWS
            if self._skip is not None:
                made[self._skip] = 0
            # In this order: whoever finds the rows may rely on the rest.
            self._tame, self._resident = tame, made
        return made


def _largest(table: FloatArray) -> float:
    return max(float(table.max()), -float(table.min()))


@cache
def _sparse_product() -> Callable[[FloatArray, NDArray[np.int32], NDArray[np.int64]], FloatArray] | None:
    """The sums as a product with a sparse matrix of ones, which needs no copy of the rows; ``None`` without scipy.

    It adds the rows of a text in the same pieces and order, so that the sums are equal to the last bit.
    """
    try:
        from scipy.sparse import csr_matrix
    except ImportError:
        return None

    def product(table: FloatArray, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> FloatArray:
        pieces = -(-np.diff(offsets) // _ROWS_READ)
        firsts = np.concatenate([[0], np.cumsum(pieces)])
        within = np.arange(firsts[-1]) - np.repeat(firsts[:-1], pieces)
        starts = np.append(np.repeat(offsets[:-1], pieces) + within * _ROWS_READ, offsets[-1])
        ones = csr_matrix((np.ones(len(ids), np.float32), ids, starts), (len(within), len(table)), copy=False)
        parts = np.asarray(ones @ table, np.float32)
        sums = np.zeros((len(offsets) - 1, table.shape[1]), np.float32)
        sums[pieces > 0] = parts[firsts[:-1][pieces > 0]]
        for text in np.flatnonzero(pieces > 1):
            for part in parts[firsts[text] + 1 : firsts[text + 1]]:
                sums[text] += part
        return sums

    return product
