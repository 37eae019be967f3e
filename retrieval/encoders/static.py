"""The static encoder: a text is the sum of the vectors of its tokens, at unit length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from retrieval.datatypes import EncoderFingerprint, FloatArray
from retrieval.encoders.cache import CacheStatistics
from retrieval.encoders.compiled import start
from retrieval.encoders.compiled.vectors import CompiledTexts, Plain
from retrieval.encoders.words import IntArray, TokenArray, WordTokenizer
from retrieval.errors import ModelError
from retrieval.token_tables.formats import Rules, StaticModel, open_static_model
from retrieval.token_tables.table import RowSums

_BLOCK_CHARACTERS = 2**17


class StaticEncoder:
    """Encodes texts with a table of token vectors; queries and documents alike. Safe to call from several threads.

    Args:
        model: An opened folder.
        dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.

    Raises:
        ValueError: ``dimensions`` is less than 1 or more than the model has.
    """

    def __init__(self, model: StaticModel, dimensions: int | None = None) -> None:
        available = model.table.embeddings.shape[1]
        if dimensions is not None and not 1 <= dimensions <= available:
            raise ValueError(f"dimensions is 1 to {available} for {model.name}, not {dimensions}")
        self._dim = dimensions or available
        self.folder: Path | None = None
        """The folder that it was opened from, where it was."""
        self._model = model
        self._rows = RowSums(model.table, self._dim, model.rules.skip)
        self._words = WordTokenizer(model.tokenizer)
        self._fast: CompiledTexts | None = None
        rules = model.rules
        self._fingerprint = EncoderFingerprint(
            name=model.name,
            digest=model.digest,
            loader=rules.loader,
            unknown=rules.unknown,
            max_tokens=rules.max_tokens,
            dim=self._dim,
            normalize=True,
        )

    @classmethod
    def open(cls, folder: Path, *, dimensions: int | None = None) -> StaticEncoder:
        """Open a model folder of this project, of Model2Vec or of sentence-transformers.

        Args:
            folder: The model folder.
            dimensions: Matryoshka truncation to the first dimensions; ``None`` keeps all.

        Raises:
            ModelError: A file is missing or malformed; the message names it.
            ValueError: ``dimensions`` is less than 1 or more than the model has.
        """
        encoder = cls(open_static_model(Path(folder)), dimensions)
        encoder.folder = Path(folder).absolute()
        return encoder

    @property
    def model(self) -> StaticModel:
        """The opened folder: table, tokenizer and rules."""
        return self._model

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._dim

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """Everything that decides which vector a text gets."""
        return self._fingerprint

    @property
    def cache(self) -> CacheStatistics:
        """What the cache of words has done so far; for much text there is a second, compiled one, counted with it."""
        statistics = self._words.statistics
        return statistics if self._fast is None else statistics + self._fast.table.statistics

    def encode_queries(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of queries; see `encode_documents`."""
        return self.encode_documents(texts)

    def encode_documents(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts.

        Args:
            texts: Texts of any length and content.

        Returns:
            float32 (texts, dim), rows of unit length, or all zero for a text without a token that has a vector.

        Raises:
            TypeError: ``texts`` is a single string.
            ModelError: A weight that these texts need is not finite.
        """
        _refuse_string(texts)
        if len(texts) == 1 and len(texts[0]) < start.SMALL:
            return self._encode_one(texts[0])
        if (compiled := self.compiled(texts)) is not None:
            return compiled.encode(texts)
        vectors = np.empty((len(texts), self._dim), np.float32)
        for first, last in _blocks(texts):
            vectors[first:last] = self._encode_plain(texts[first:last])
        return vectors

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, known and unknown, without special tokens and before any truncation."""
        return self._words.count(text)

    def count_tokens_many(self, texts: Sequence[str]) -> IntArray:
        """Number of tokens of each text, int64 (texts,); see `count_tokens`.

        Raises:
            TypeError: ``texts`` is a single string.
        """
        _refuse_string(texts)
        compiled = self.compiled(texts)
        return self._words.counts(texts) if compiled is None else compiled.counts(texts)

    def learn(self, texts: Sequence[str]) -> None:
        """Tokenize the new words of these texts in one go, which many small calls would do bit by bit.

        Nothing changes but the time of later calls.

        Raises:
            TypeError: ``texts`` is a single string.
        """
        _refuse_string(texts)
        if (compiled := self.compiled(texts)) is not None:
            compiled.learn(texts)
        else:
            self._words.learn(texts)

    def compiled(self, texts: Sequence[str]) -> CompiledTexts | None:
        """The path with compiled kernels, for this much text; ``None`` when numpy is to do it."""
        bert = self._words.bert
        if bert is None or (kernels := start.kernels(sum(map(len, texts)))) is None:
            return None
        if self._fast is None:
            plain = Plain(self._encode_plain, self._words.counts, self._sum, self._normalize)
            entries, rules = self._words.entries, self._model.rules
            self._fast = CompiledTexts(kernels, bert, entries, self._rows, self._dim, rules, plain)
        return self._fast

    def _encode_one(self, text: str) -> FloatArray:
        """The vector that the path for many texts makes, to the last bit, in less than half of its time."""
        ids = _cut(self._model.rules, self._words.ids(text[: self._model.rules.max_characters]))
        sums = np.add(self._rows.sum_one(ids), 0.0, dtype=np.float64)  # adding makes 0.0 of -0.0
        norm = math.sqrt(np.add.reduce(sums * sums))
        if not math.isfinite(norm):
            raise self._not_finite()
        vector: FloatArray = (sums / (norm or 1.0)).astype(np.float32)
        return vector[None]

    def _encode_plain(self, texts: Sequence[str]) -> FloatArray:
        limit = self._model.rules.max_characters
        ids, offsets = self._words.tokenize([text[:limit] for text in texts])
        with np.errstate(over="ignore", invalid="ignore"):  # refused in words below
            return self._normalize(self._sum(ids, offsets))

    def _sum(self, ids: TokenArray, offsets: IntArray) -> FloatArray:
        return self._rows.sum(*_apply(self._model.rules, ids, offsets))

    def _normalize(self, sums: FloatArray) -> FloatArray:
        norms = np.sqrt((sums.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        if not np.isfinite(norms).all():
            raise self._not_finite()
        return (sums / np.where(norms > 0, norms, 1)).astype(np.float32)

    def _not_finite(self) -> ModelError:
        return ModelError(f"{self._model.name} has a vector that is not finite or far too large")


def _refuse_string(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise TypeError("texts is a sequence of strings, not one string; put it in a list")


def _blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = characters = 0
    for index, text in enumerate(texts):
        characters += len(text)
        if characters >= _BLOCK_CHARACTERS or index - start >= 2**14:
            yield start, index + 1
            start, characters = index + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _apply(rules: Rules, ids: TokenArray, offsets: IntArray) -> tuple[TokenArray, IntArray]:
    keep = np.ones(len(ids), bool)
    if rules.max_tokens is not None:
        lengths = np.diff(offsets)
        anchors = offsets[1:] if rules.keep_end else offsets[:-1]
        places = np.arange(len(ids)) - np.repeat(anchors, lengths)
        keep &= (places >= -rules.max_tokens) if rules.keep_end else (places < rules.max_tokens)
    if rules.skip is not None:
        keep &= ids != rules.skip
    return ids[keep], np.concatenate([[0], np.cumsum(keep)])[offsets]


def _cut(rules: Rules, ids: TokenArray) -> TokenArray:
    if rules.max_tokens is None:
        return ids
    return ids[max(0, len(ids) - rules.max_tokens) :] if rules.keep_end else ids[: rules.max_tokens]
