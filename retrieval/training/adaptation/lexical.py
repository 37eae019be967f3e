"""BM25 scores of pseudo-queries, in memory, with the terms and weights of the index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray, SparseVector
from retrieval.protocols import SparseEncoder


class LexicalScores:
    """Scores of queries against passages, and against what is left of a query's own passage.

    Args:
        texts: Passages as indexed.
        queries: Queries.
        rests: What is left of the passages of some queries.
        owners: Number of the query of each rest.
        sparse: The BM25 arm.
    """

    def __init__(
        self,
        texts: Sequence[str],
        queries: Sequence[str],
        rests: Sequence[str],
        owners: NDArray[np.int64],
        sparse: SparseEncoder,
    ) -> None:
        vectors, lengths = sparse.encode_documents(texts, 0.0)
        terms = np.unique(np.concatenate([vector.indices for vector in vectors]))
        passages = _matrix(vectors, terms)
        counts = np.bincount(passages.indices, minlength=len(terms))
        rarity = np.log(1 + (len(texts) - counts + 0.5) / (counts + 0.5)).astype(np.float32)
        self._queries = _matrix(sparse.encode_queries(queries), terms).multiply(rarity[None, :]).tocsr()
        self._turned = passages.T.tocsr()
        mean = sum(lengths) / max(1, len(lengths))
        left = _matrix(sparse.encode_documents(rests, mean)[0], terms) if rests else None
        self._of_rest = np.zeros(len(queries), np.float32)
        if left is not None:
            self._of_rest[owners] = np.asarray(self._queries[owners].multiply(left).sum(axis=1)).ravel()

    def scores(self, rows: NDArray[np.int64]) -> FloatArray:
        """Scores of some queries against all passages, float32 (rows, passages), 0 where no term is shared."""
        return np.asarray((self._queries[rows] @ self._turned).toarray(), np.float32)

    def rest_scores(self, rows: NDArray[np.int64]) -> FloatArray:
        """Scores of some queries against what is left of their own passage, float32 (rows,)."""
        return self._of_rest[rows]


def _matrix(vectors: Sequence[SparseVector], terms: NDArray[np.uint32]) -> Any:
    """A scipy CSR matrix (vectors, terms); ``terms`` is sorted, others are left out."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(len(vectors)), [len(vector.indices) for vector in vectors])
    indices = np.concatenate([vector.indices for vector in vectors]) if vectors else np.empty(0, np.uint32)
    values = np.concatenate([vector.values for vector in vectors]) if vectors else np.empty(0, np.float32)
    columns = np.minimum(np.searchsorted(terms, indices), max(0, len(terms) - 1))
    known = terms[columns] == indices if len(terms) else np.zeros(len(indices), bool)
    return csr_matrix((values[known], (rows[known], columns[known])), (len(vectors), len(terms)))
