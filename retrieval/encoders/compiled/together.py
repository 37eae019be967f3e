"""Vectors and BM25 terms of many texts from one scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.encoders.compiled.blocks import Block, bounds, run_all
from retrieval.encoders.compiled.terms import CompiledTerms
from retrieval.encoders.compiled.vectors import CompiledTexts
from retrieval.encoders.sparse_rows import TermCounts


def encode_together(dense: CompiledTexts, terms: CompiledTerms, texts: Sequence[str]) -> tuple[FloatArray, TermCounts]:
    """Both, the same as each alone; the words are looked up in the table of ``dense``, which gets a column of terms.

    Args:
        dense: Makes the vectors.
        terms: Counts the terms.
        texts: Texts that the model does not cut off by characters.
    """
    dense.table.add_column(terms.name, terms.column)
    vectors = np.empty((len(texts), dense.dim), np.float32)

    def work(bound: tuple[int, int]) -> TermCounts:
        some = texts[bound[0] : bound[1]]
        found = dense.table.find(Block.of(some))
        counts = terms.count_found(found, some)
        dense.encode_found(found, some, vectors[bound[0] : bound[1]])
        return counts

    return vectors, TermCounts.joined(run_all(work, list(bounds(texts))))
