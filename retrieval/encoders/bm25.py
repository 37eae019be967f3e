"""BM25 document and query vectors with the tokenizer, stemmer and stop words of the embedded engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import qdrant_edge
from numpy.typing import NDArray

from retrieval.config import Bm25Config
from retrieval.datatypes import FloatArray, SparseVector
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
        self._k1 = config.k1
        self._b = config.b
        self._engine = _open_engine(config.language)

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
        _refuse_string(texts)
        if not (np.isfinite(average_length) and average_length >= 0):
            raise ValueError(f"average_length is a number of terms, at least 0, not {average_length}")
        counted = [self._terms(text) for text in texts]
        lengths = [int(frequencies.sum()) for _, frequencies in counted]
        mean = average_length or (sum(lengths) / len(lengths) if lengths else 0.0)
        vectors = [
            SparseVector(indices, self._weights(frequencies, length, mean))
            for (indices, frequencies), length in zip(counted, lengths, strict=True)
        ]
        return vectors, lengths

    def _terms(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        vector = self._engine.embed_document(_utf8(text))
        indices, places = np.unique(np.asarray(vector.indices, np.uint32), return_inverse=True)
        frequencies = np.zeros(len(indices))
        np.add.at(frequencies, places, np.rint(vector.values))
        return indices, frequencies

    def _weights(self, frequencies: NDArray[np.float64], length: int, mean: float) -> FloatArray:
        if not length:
            return np.empty(0, np.float32)
        saturation = self._k1 * (1 - self._b + self._b * length / mean)
        return (frequencies * (self._k1 + 1) / (frequencies + saturation)).astype(np.float32)


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
