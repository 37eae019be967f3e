"""BM25 terms of the words of a table, and of the texts made of them.

The engine's tokenizers split at whitespace and at everything that is neither letter nor digit, so that the terms of a
text are those of its words, and those of a word of ASCII are those of its runs of letters and digits in lower case.
The engine is asked once for each run, and for each word that is not ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from retrieval.encoders.compiled.blocks import Block, bounds, run_all
from retrieval.encoders.compiled.pieces import append_lists, grown
from retrieval.encoders.compiled.words import Call, Column, Found, Words, WordTable
from retrieval.encoders.sparse_rows import TermCounts

_AFTER = 16

Ask = Callable[[str], list[int]]
"""Terms of a word, repeated ones included."""


class _Runs:
    """Terms of runs of letters and digits: what the engine says."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._used = self.covered = 0
        self.spans = np.zeros(0, np.int64)
        self.values = np.zeros(0, np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes that the column takes."""
        return self.spans.nbytes + self.values.nbytes

    def fill(self, words: Words, last: int) -> None:
        numbers = np.arange(self.covered, last)
        spans = grown(self.spans, last)
        lists = [self._ask(word) for word in words.texts(numbers)]
        self.values, self._used, spans[numbers] = append_lists(self.values, self._used, lists)
        self.spans, self.covered = spans, last


class TermColumn:
    """Terms of words.

    Args:
        ask: The engine.
        call: The kernels.
    """

    def __init__(self, ask: Ask, call: Call) -> None:
        self._call = call
        # As many runs as words: what is in a word table fits into one twice as large.
        self._runs = WordTable(call, lambda: {"": _Runs(ask)}, max_words=2**21, max_bytes=2**27)
        self._used = self.covered = 0
        self.spans = np.zeros(0, np.int64)
        self.values = np.zeros(0, np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes that the column takes, the runs of letters and digits with it."""
        return self.spans.nbytes + self.values.nbytes + self._runs.words.nbytes

    def fill(self, words: Words, last: int) -> None:
        """Terms of the words up to ``last``."""
        first, count = self.covered, last - self.covered
        text = np.zeros(8 * int(words.starts[last] - words.starts[first]) + count + _AFTER, np.uint8)
        offsets = np.empty(count + 1, np.int64)
        self._call("cut_runs", words.chunks.view(np.uint8), words.starts, first, last, text, offsets)
        found = self._runs.find(Block(text, offsets))
        column = found.words.columns[""]
        assert isinstance(column, _Runs)
        spans = column.spans
        lengths = np.zeros(count, np.int64)
        nothing = np.zeros(len(spans), np.uint8)
        size = self._call("count_tokens", found.ids, found.offsets, count, spans, found.marks, nothing, lengths)
        values, starts = grown(self.values, self._used + size), np.empty(count + 1, np.int64)
        out = values[self._used :].view(np.int32)
        self._call("gather", found.ids, found.offsets, count, spans, column.values.view(np.int32), starts, out)
        own = grown(self.spans, last)
        own[first:last] = (starts[:-1] + self._used) << 16 | lengths
        self.values, self._used = values, self._used + size
        self.spans, self.covered = own, last


class CompiledTerms:
    """Counts the terms of many texts in kernels. Safe to call from several threads.

    Args:
        call: The kernels.
        name: Name of the column, the same for the same terms.
        ask: The engine, for one word.
        plain: The path without kernels.
    """

    def __init__(self, call: Call, name: str, ask: Ask, plain: Callable[[Sequence[str]], TermCounts]) -> None:
        self._call = call
        self._name = name
        self._ask = ask
        self._plain = plain
        self.table = WordTable(call, lambda: {name: self.column()})

    @property
    def name(self) -> str:
        """Name of the column that `count_found` needs."""
        return self._name

    def column(self) -> Column:
        """An empty column for a table of words."""
        return TermColumn(self._ask, self._call)

    def count(self, texts: Sequence[str]) -> TermCounts:
        """Terms of texts, the same as without kernels."""

        def work(bound: tuple[int, int]) -> TermCounts:
            some = texts[bound[0] : bound[1]]
            return self.count_found(self.table.find(Block.of(some)), some)

        return TermCounts.joined(run_all(work, list(bounds(texts))))

    def count_found(self, found: Found, texts: Sequence[str]) -> TermCounts:
        """Terms of texts whose words have been found in a table with this column."""
        column = found.words.columns[self._name]
        assert isinstance(column, TermColumn)
        texts_count, spans = len(found), column.spans
        sizes, marks = np.empty(texts_count, np.int64), found.marks.copy()
        nothing = np.zeros(len(spans), np.uint8)
        terms = self._call("count_tokens", found.ids, found.offsets, texts_count, spans, marks, nothing, sizes)
        most = int(sizes.max(initial=0))
        spare = (np.empty(most, np.uint32), np.empty(most, np.uint32), np.empty(256, np.int64))
        different, indices, frequencies = np.empty(texts_count, np.int64), np.empty(terms, np.uint32), np.empty(terms)
        words = (found.ids, found.offsets, texts_count)
        end = self._call("collect_terms", *words, spans, column.values, *spare, different, indices, frequencies)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(different)])
        counts = TermCounts(offsets, indices[:end], frequencies[:end], sizes)
        odd = np.flatnonzero(found.marks)
        return counts.with_rows(odd, self._plain([texts[index] for index in odd.tolist()])) if odd.size else counts
