"""How long passages are in BM25 terms, estimated before the first of them is written.

BM25 weights assume the average length of all passages. An estimate that is a tenth off makes the writer weigh all
passages anew at the end, so a sample from all over the source pays where the source is larger than its first batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from retrieval.chunking import Chunker
from retrieval.datatypes import Document
from retrieval.protocols import SparseEncoder


def estimated_length(sample: Iterable[tuple[Document, float]], chunker: Chunker, sparse: SparseEncoder) -> float | None:
    """Terms per passage, all over the passages that the sample stands for.

    Args:
        sample: Documents with the number of documents that each stands for.
        chunker: Cuts documents into passages.
        sparse: Counts terms.

    Returns:
        The ratio of both sums, at least 1; ``None`` when the sample has no passage.
    """
    terms = passages = 0.0
    for document, weight in sample:
        lengths = _lengths([passage.indexed_text for passage in chunker.split(document)], sparse)
        terms += weight * sum(lengths)
        passages += weight * len(lengths)
    return max(1.0, terms / passages) if passages else None


def _lengths(texts: Sequence[str], sparse: SparseEncoder) -> list[int]:
    return sparse.encode_documents(texts, 0.0)[1] if texts else []
