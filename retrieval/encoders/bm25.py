"""BM25 document and query vectors with the tokenizer, stemmer and stop words of the embedded engine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import qdrant_edge
from numpy.typing import NDArray

from retrieval.config import Bm25Config
from retrieval.datatypes import SparseVector
from retrieval.encoders.compiled import start
from retrieval.encoders.compiled.terms import CompiledTerms
from retrieval.encoders.sparse_rows import SparseRows, TermCounts
from retrieval.errors import ConfigError

MULTILINGUAL = "multilingual"

# tf * (k + 1) / (tf + k) is tf itself, to the last bit of a float32, once k is far beyond any term frequency.
_SATURATION = 1e20


class Bm25Encoder:
    """BM25 weights of terms; a term is the hash that the ``qdrant/bm25`` scheme gives it.

    The engine splits, stems and hashes; the weights are computed here, because the mean length is known only after
    all documents have been seen. They equal the engine's own for the same mean length. Safe to call from several
    threads.

    Args:
        config: Language, ``k1`` and ``b``.

    Raises:
        ConfigError: The language is not one that the engine knows.
    """

    def __init__(self, config: Bm25Config) -> None:
        self.config = config
        self._k1 = config.k1
        self._b = config.b
        self._language = config.language
        self._engine = _open_engine(config.language)
        self._fast: CompiledTerms | None = None

    def encode_queries(self, texts: Sequence[str]) -> list[SparseVector]:
        """Weight 1 for each different term of a query; an empty vector when there is none.

        Args:
            texts: Queries.

        Raises:
            TypeError: ``texts`` is a single string.
        """
        _refuse_string(texts)
        return [SparseVector(indices, np.ones(len(indices), np.float32)) for indices, _ in map(self._terms, texts)]

    def encode_documents(self, texts: Sequence[str], average_length: float) -> tuple[list[SparseVector], list[int]]:
        """BM25 weights and the length in terms of each text.

        Args:
            texts: Texts as indexed.
            average_length: Terms per passage in the corpus; 0 weighs with the mean length of ``texts``.

        Returns:
            One vector (indices ascending) and one length for each text; both empty for a text without terms.

        Raises:
            TypeError: ``texts`` is a single string.
            ValueError: ``average_length`` is negative or not finite.
        """
        rows = self.encode_rows(texts, average_length)
        starts = rows.offsets.tolist()
        vectors = [
            SparseVector(rows.indices[start:end], rows.weights[start:end]) for start, end in itertools.pairwise(starts)
        ]
        return vectors, rows.lengths.tolist()

    def encode_rows(self, texts: Sequence[str], average_length: float) -> SparseRows:
        """What `encode_documents` gives, in a few arrays for all texts.

        Args:
            texts: Texts as indexed.
            average_length: Terms per passage in the corpus; 0 weighs with the mean length of ``texts``.

        Raises:
            TypeError: ``texts`` is a single string.
            ValueError: ``average_length`` is negative or not finite.
        """
        _refuse_string(texts)
        if not (np.isfinite(average_length) and average_length >= 0):
            raise ValueError(f"average_length is a number of terms, at least 0, not {average_length}")
        return self.weigh(self.count_terms(texts), average_length)

    def count_terms(self, texts: Sequence[str]) -> TermCounts:
        """Terms of texts with their frequencies."""
        compiled = self.compiled(texts)
        return self._count_plain(texts) if compiled is None else compiled.count(texts)

    def weigh(self, counts: TermCounts, average_length: float) -> SparseRows:
        """BM25 vectors from the terms of texts; see `encode_documents`."""
        lengths = counts.lengths
        mean = average_length or (sum(lengths.tolist()) / len(lengths) if len(lengths) else 0.0)
        saturation = self._k1 * (1 - self._b + self._b * lengths / (mean or 1.0))
        frequencies = counts.frequencies
        weights = frequencies * (self._k1 + 1) / (frequencies + np.repeat(saturation, np.diff(counts.offsets)))
        return SparseRows(counts.offsets, counts.indices, weights.astype(np.float32), lengths)

    def compiled(self, texts: Sequence[str]) -> CompiledTerms | None:
        """The path with compiled kernels, for this much text; ``None`` when the engine is to do it."""
        # The multilingual tokenizer looks across words.
        if self._language == MULTILINGUAL or (kernels := start.kernels(sum(map(len, texts)))) is None:
            return None
        if self._fast is None:
            self._fast = CompiledTerms(kernels, f"terms {self._language}", self._terms_of_word, self._count_plain)
        return self._fast

    def _count_plain(self, texts: Sequence[str]) -> TermCounts:
        return TermCounts.of([self._terms(text) for text in texts])

    def _terms(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        vector = self._engine.embed_document(_utf8(text))
        indices, frequencies = np.asarray(vector.indices, np.uint32), np.rint(vector.values)
        order = indices.argsort()
        indices, frequencies = indices[order], frequencies[order]
        if (indices[1:] == indices[:-1]).any():
            indices, firsts = np.unique(indices, return_index=True)
            frequencies = np.add.reduceat(frequencies, firsts)
        return indices, frequencies

    def _terms_of_word(self, word: str) -> list[int]:
        vector = self._engine.embed_document(word)
        return [term for term, count in zip(vector.indices, vector.values, strict=True) for _ in range(round(count))]


def supported_languages() -> tuple[str, ...]:
    """Names that ``bm25.language`` may have, sorted, ``multilingual`` among them."""
    names = [name.lower() for name in dir(qdrant_edge.Language) if not name.startswith("_")]
    return tuple(sorted([*names, MULTILINGUAL]))


def _open_engine(language: str) -> qdrant_edge.Bm25:
    if language == MULTILINGUAL:
        settings = qdrant_edge.Bm25Config(
            tokenizer=qdrant_edge.TokenizerType.Multilingual,
            stemmer=qdrant_edge.DisabledStemmer(),
            stopwords=qdrant_edge.StopwordsSet(),
            k=_SATURATION,
            b=0.0,
        )
        return qdrant_edge.Bm25(settings)
    if language not in supported_languages():
        raise ConfigError(f"bm25.language {language!r} is not one of {', '.join(supported_languages())}")
    return qdrant_edge.Bm25(qdrant_edge.Bm25Config(language=language, k=_SATURATION, b=0.0))


def _utf8(text: str) -> str:
    # Half a surrogate pair has no UTF-8 form, and the engine would raise for it.
    return text.encode("utf-8", "replace").decode("utf-8")


def _refuse_string(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise TypeError("texts is a sequence of strings, not one string; put it in a list")
