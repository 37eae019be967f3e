"""Token ids of the words of a table, most of them without asking the tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.bert import BertWords
from retrieval.encoders.compiled.words import Call, Words
from retrieval.encoders.entries import Entries, Memory

Values = TypeVar("Values", bound=NDArray[Any])


class Vocabulary:
    """A WordPiece vocabulary as the kernels read it.

    Args:
        bert: The tokenizer for single words.
        call: The kernels.
    """

    def __init__(self, bert: BertWords, call: Call) -> None:
        self.bert = bert
        keys, tokens = [], []
        for content, token in bert.vocabulary.items():
            if content.isascii() and content:
                keys.append(b"\x01" + content.encode())
                tokens.append(token)
                if content.startswith(bert.prefix) and len(content) > len(bert.prefix):
                    keys.append(b"\x02" + content[len(bert.prefix) :].encode())
                    tokens.append(token)
        self.longest = max(map(len, keys), default=1) - 1
        self._keys = np.frombuffer(b"".join(keys) or b"\0", np.uint8)
        self._starts = np.cumsum([0, *map(len, keys)], dtype=np.int64)
        self._tokens = np.array(tokens, np.int32)
        self._slots = np.zeros(4 << len(keys).bit_length(), np.int32)
        call("fill_vocabulary", self._keys, self._starts, len(keys), self._slots, len(self._slots) - 1)
        self._beginnings = _pairs(bert.added)
        self._codes, self._piece = np.empty(self.longest + 1, np.uint64), np.empty(bert.longest + 1, np.uint8)

    def tokenize(
        self,
        words: Words,
        first: int,
        last: int,
        spans: NDArray[np.int64],
        out: NDArray[np.int32],
        place: int,
        call: Call,
    ) -> tuple[int, NDArray[np.int64]]:
        """Tokens of words into ``out`` from ``place`` on; where they end, and the words left to the tokenizer."""
        odd = np.empty(last - first + 1, np.int64)
        bert = self.bert
        rules = (int(bert.lowercase), bert.longest if bert.unknown is not None else -1, self._beginnings)
        table = (self._slots, len(self._slots) - 1, self._keys, self._starts, self._tokens, self.longest)
        scratch = (-1 if bert.unknown is None else bert.unknown, self._codes, self._piece)
        text = words.chunks.view(np.uint8)
        place = call("tokenize", text, words.starts, first, last, *rules, *table, *scratch, spans, out, place, odd)
        return place, odd[1 : odd[0] + 1]


class TokenColumn:
    """Token ids of words, and which of them are heads of entries with spaces.

    Args:
        vocabulary: What makes tokens of words.
        entries: Entries with spaces, ``None`` when there are none.
        call: The kernels.
    """

    def __init__(self, vocabulary: Vocabulary, entries: Entries | None, call: Call) -> None:
        self._vocabulary = vocabulary
        self._entries = entries
        self._call = call
        self.covered = 0
        self._used = 0
        self.spans = np.zeros(0, np.int64)
        self.heads = np.zeros(0, np.uint8)
        self.values = np.zeros(0, np.int32)

    @property
    def nbytes(self) -> int:
        """Bytes that the column takes."""
        return self.spans.nbytes + self.values.nbytes + self.heads.nbytes

    def fill(self, words: Words, last: int) -> None:
        """Tokens of the words up to ``last``."""
        first = self.covered
        chunks = int(words.starts[last] - words.starts[first])
        self.values = grown(self.values, self._used + 8 * chunks)
        spans, heads = grown(self.spans, last), grown(self.heads, last)
        self._used, odd = self._vocabulary.tokenize(words, first, last, spans, self.values, self._used, self._call)
        texts = words.texts(odd)
        lists = self._vocabulary.bert.tokenize(texts)
        self.values, self._used, spans[odd] = append_lists(self.values, self._used, lists)
        if self._entries is not None:
            memory = Memory()
            learned = words.texts(np.arange(first, last))
            self._entries.learn_words(learned, memory)
            heads[first:last] = np.fromiter((word in memory.heads for word in learned), np.uint8, len(learned))
        self.spans, self.heads, self.covered = spans, heads, last


def grown(values: Values, size: int) -> Values:
    """An array with room for ``size``: the same, or a longer copy."""
    if size <= len(values):
        return values
    larger = np.zeros(max(size, 2 * len(values)), values.dtype)
    larger[: len(values)] = values
    return cast(Values, larger)


def append_lists(values: Values, used: int, lists: Sequence[Sequence[int]]) -> tuple[Values, int, NDArray[np.int64]]:
    """Write lists of numbers behind ``values[:used]``; the array, where they end, and the span of each list."""
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    if len(counts) and counts.max() >= 2**16:
        raise ValueError(f"a word of {counts.max()} parts is more than the word table can hold")
    ends = used + np.cumsum(counts)
    end = int(ends[-1]) if len(ends) else used
    values = grown(values, end)
    values[used:end] = list(chain.from_iterable(lists))
    return values, end, (ends - counts) << 16 | counts


def _pairs(contents: Iterable[str]) -> NDArray[np.uint8]:
    """Which pairs of bytes, in lower case, may begin one of these contents; a zero is the end of a word."""
    pairs = np.zeros((256, 256), np.uint8)
    for content in contents:
        first, *rest = content.lower().encode()
        if rest:
            pairs[first, rest[0]] = 1
        else:
            pairs[first] = 1
    return pairs.ravel()
