"""Vectors and token counts of many texts, block by block on all cores, with compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.encoders.bert import BertWords
from retrieval.encoders.compiled.blocks import Block, bounds, run_all
from retrieval.encoders.compiled.pieces import TokenColumn, Vocabulary
from retrieval.encoders.compiled.sum_kernels import ROOM
from retrieval.encoders.compiled.words import Call, Column, Found, WordTable
from retrieval.encoders.entries import Entries
from retrieval.token_tables.formats import Rules
from retrieval.token_tables.table import RowSums

TOKENS = "tokens"


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """The path without kernels: for texts that the word table is not for, and for parts that both paths share.

    Args:
        vectors: Vectors of texts.
        counts: Token counts of texts.
        sums: Sums of rows for token ids and offsets, before normalization.
        normalize: Sums to vectors of unit length.
    """

    vectors: Callable[[Sequence[str]], FloatArray]
    counts: Callable[[Sequence[str]], NDArray[np.int64]]
    sums: Callable[[NDArray[np.int32], NDArray[np.int64]], FloatArray]
    normalize: Callable[[FloatArray], FloatArray]


class CompiledTexts:
    """What a static encoder does with many texts, in kernels. Safe to call from several threads.

    Args:
        call: The kernels.
        bert: The tokenizer for single words.
        entries: Entries with spaces, ``None`` when there are none.
        rows: The token vectors.
        dim: Dimensions of a vector.
        rules: Rules of the model.
        plain: The path without kernels.
    """

    def __init__(
        self, call: Call, bert: BertWords, entries: Entries | None, rows: RowSums, dim: int, rules: Rules, plain: Plain
    ) -> None:
        self._call = call
        self._dim = dim
        self._rules = rules
        self._plain = plain
        self._source = rows.source()
        vocabulary = Vocabulary(bert, call)

        def columns() -> dict[str, Column]:
            return {TOKENS: TokenColumn(vocabulary, entries, call)}

        self.table = WordTable(call, columns)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of texts, the same as without kernels, to the last bit."""
        vectors = np.empty((len(texts), self._dim), np.float32)
        limit = self._rules.max_characters

        def work(bound: tuple[int, int]) -> None:
            some = texts[bound[0] : bound[1]]
            some = some if limit is None else [text[:limit] for text in some]
            self.encode_found(self.table.find(Block.of(some)), some, vectors[bound[0] : bound[1]])

        run_all(work, list(bounds(texts)))
        return vectors

    def counts(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Number of tokens of each text."""

        def work(bound: tuple[int, int]) -> NDArray[np.int64]:
            some = texts[bound[0] : bound[1]]
            found = self.table.find(Block.of(some))
            counts = self._count(found)
            if (odd := np.flatnonzero(found.marks)).size:
                counts[odd] = self._plain.counts([some[index] for index in odd.tolist()])
            return counts

        return np.concatenate([np.empty(0, np.int64), *run_all(work, list(bounds(texts)))])

    def learn(self, texts: Sequence[str]) -> None:
        """Fill the word table."""
        run_all(lambda bound: self.table.find(Block.of(texts[bound[0] : bound[1]])).new, list(bounds(texts)))

    def encode_found(self, found: Found, texts: Sequence[str], out: FloatArray) -> None:
        """Write the vectors of texts whose words have been found, (texts, dim)."""
        counts = self._count(found)
        with np.errstate(over="ignore", invalid="ignore"):  # refused in words when normalizing
            out[:] = self._plain.normalize(self._sums(found, counts, out))
        if (odd := np.flatnonzero(found.marks)).size:
            out[odd] = self._plain.vectors([texts[index] for index in odd.tolist()])

    def _count(self, found: Found) -> NDArray[np.int64]:
        column = _tokens(found)
        counts = np.empty(len(found), np.int64)
        spans = column.spans
        self._call("count_tokens", found.ids, found.offsets, len(found), spans, found.marks, column.heads, counts)
        return counts

    def _sums(self, found: Found, counts: NDArray[np.int64], out: FloatArray) -> FloatArray:
        column = _tokens(found)
        spans = column.spans
        words = (found.ids, found.offsets, len(found))
        if self._source is None:
            ids, offsets = np.empty(int(counts.sum()), np.int32), np.empty(len(found) + 1, np.int64)
            self._call("gather", *words, spans, column.values, offsets, ids)
            return self._plain.sums(ids, offsets)
        table, scales = self._source
        rules = self._rules
        cut = (_or_none(rules.skip), _or_none(rules.max_tokens), int(rules.keep_end))
        spare = (np.zeros(ROOM, np.int64), np.empty(self._dim, np.float32))
        name = "sum_bytes" if table.dtype == np.int8 else "sum_floats"
        self._call(
            name, *words, counts, spans, column.values, table, scales, table.shape[1], self._dim, *cut, *spare, out
        )
        return out


def _tokens(found: Found) -> TokenColumn:
    column = found.words.columns[TOKENS]
    assert isinstance(column, TokenColumn)
    return column


def _or_none(number: int | None) -> int:
    return -1 if number is None else number
