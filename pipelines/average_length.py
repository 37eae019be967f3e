"""How long passages are in BM25 terms, estimated before the first of them is written.

BM25 weights assume the average length of all passages. An estimate that is a tenth off makes the writer weigh all
passages anew at the end, so a sample from all over the source pays where the source is larger than its first batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from retrieval.chunking import Chunker
from retrieval.datatypes import Document
from retrieval.protocols import SparseEncoder

_DOCUMENTS_AT_ONCE = 256


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
    weighted = iter(sample)
    while batch := list(islice(weighted, _DOCUMENTS_AT_ONCE)):
        split = chunker.split_many([document for document, _ in batch])
        lengths = iter(_lengths([passage.indexed_text for of_document in split for passage in of_document], sparse))
        for (_, weight), of_document in zip(batch, split, strict=True):
            terms += weight * sum(islice(lengths, len(of_document)))
            passages += weight * len(of_document)
    return max(1.0, terms / passages) if passages else None


def _lengths(texts: Sequence[str], sparse: SparseEncoder) -> list[int]:
    return sparse.encode_documents(texts, 0.0)[1] if texts else []
