"""Both vectors of many passages at once, for whoever writes them to a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray, SparseVector
from retrieval.encoders.bm25 import Bm25Encoder
from retrieval.encoders.compiled.together import encode_together
from retrieval.encoders.sparse_rows import SparseRows, TermCounts
from retrieval.encoders.static import StaticEncoder
from retrieval.protocols import Encoder, SparseEncoder


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPassages:
    """The vectors of ``n`` passages; row ``i`` belongs to passage ``i``.

    Args:
        dense: float32 (n, dim), rows of unit length, or all zero for a passage without a token that has a vector.
        known: bool (n,), whether the dense row is not all zero.
        offsets: int64 (n + 1,), BM25 terms of passage ``i`` are ``offsets[i]`` to ``offsets[i + 1]``.
        indices: uint32 (terms,), ascending without repetition within a passage.
        weights: float32 (terms,), BM25 weights.
        lengths: int64 (n,), lengths in terms.
    """

    dense: FloatArray
    known: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    indices: NDArray[np.uint32]
    weights: FloatArray
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        """How many passages."""
        return len(self.lengths)


def encode_passages(
    encoder: Encoder, sparse: SparseEncoder, texts: Sequence[str], average_length: float
) -> EncodedPassages:
    """Dense and BM25 vectors of passages, the same as both encoders give alone.

    Args:
        encoder: Makes the dense vectors.
        sparse: Makes the BM25 vectors.
        texts: Texts as indexed.
        average_length: Terms per passage in the corpus; 0 weighs with the mean length of ``texts``.

    Raises:
        TypeError: ``texts`` is a single string.
        ValueError: ``average_length`` is negative or not finite.
        ModelError: A weight that these texts need is not finite.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a sequence of strings, not one string; put it in a list")
    together = _encode_together(encoder, sparse, texts)
    if together is not None and isinstance(sparse, Bm25Encoder):
        dense, rows = together[0], sparse.weigh(together[1], average_length)
    elif isinstance(sparse, Bm25Encoder):
        dense, rows = encoder.encode_documents(texts), sparse.encode_rows(texts, average_length)
    else:
        dense, rows = encoder.encode_documents(texts), _joined(*sparse.encode_documents(texts, average_length))
    known = np.asarray(dense.any(axis=1), bool)
    return EncodedPassages(dense, known, rows.offsets, rows.indices, rows.weights, rows.lengths)


def _encode_together(
    encoder: Encoder, sparse: SparseEncoder, texts: Sequence[str]
) -> tuple[FloatArray, TermCounts] | None:
    """Vectors and terms from one scan of the texts; ``None`` where each encoder goes its own way."""
    if not (isinstance(encoder, StaticEncoder) and isinstance(sparse, Bm25Encoder)):
        return None
    limit = encoder.model.rules.max_characters
    if limit is not None and max(map(len, texts), default=0) > limit:
        return None
    dense, terms = encoder.compiled(texts), sparse.compiled(texts)
    return None if dense is None or terms is None else encode_together(dense, terms, texts)


def _joined(vectors: Sequence[SparseVector], lengths: Sequence[int]) -> SparseRows:
    return SparseRows(
        offsets=np.cumsum([0, *(len(vector.indices) for vector in vectors)], dtype=np.int64),
        indices=np.concatenate([np.empty(0, np.uint32), *(vector.indices for vector in vectors)]),
        weights=np.concatenate([np.empty(0, np.float32), *(vector.values for vector in vectors)]),
        lengths=np.array(lengths, np.int64),
    )
