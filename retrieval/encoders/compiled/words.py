"""A table of words, and what has been made of each: looked up by kernels, in several threads at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.encoders.cache import CacheStatistics
from retrieval.encoders.compiled.blocks import Block
from retrieval.encoders.compiled.objects import Argument
from retrieval.encoders.compiled.word_kernels import WAITING

_FIRST_WORDS, _FIRST_CHUNKS = 2**12, 2**13


class Call(Protocol):
    """Runs a kernel by name; compiled ones are `retrieval.encoders.compiled.objects.Kernels`."""

    def __call__(self, name: str, *arguments: Argument) -> int: ...


Table = tuple[NDArray[np.uint64], int, NDArray[np.uint64]]
"""Slots, mask for hashes, and chunks."""


class Column(Protocol):
    """Something of variable length for each word: ``values[span >> 16:][:span & 0xFFFF]``.

    Readers take ``spans`` first: both only grow, and what was there stays.
    """

    covered: int
    spans: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes that the column takes."""
        ...

    def fill(self, words: Words, last: int) -> None:
        """Make the spans of the words from ``covered`` to ``last``; only one thread does so at a time."""
        ...


class Words:
    """Different words with their numbers, from 0; only ever added to.

    Args:
        columns: What to keep of each word; they begin empty.
    """

    def __init__(self, columns: dict[str, Column]) -> None:
        self.columns = columns
        self.size = np.zeros(2, np.int64)  # words and chunks
        self.starts = np.zeros(_FIRST_WORDS + 1, np.int64)
        # Two numbers a slot, twice as many slots as words; readers take both at once.
        self.table: Table = (
            np.zeros(4 * _FIRST_WORDS, np.uint64),
            2 * _FIRST_WORDS - 1,
            np.zeros(_FIRST_CHUNKS, np.uint64),
        )

    def __len__(self) -> int:
        return int(self.size[0])

    @property
    def chunks(self) -> NDArray[np.uint64]:
        """Bytes of all words, 8 in a number."""
        return self.table[2]

    @property
    def nbytes(self) -> int:
        """Bytes that words and columns take."""
        columns = sum(column.nbytes for column in self.columns.values())
        return self.table[0].nbytes + self.table[2].nbytes + self.starts.nbytes + columns

    def make_room(self, words: int, chunks: int, call: Call) -> None:
        """Room for so many words and chunks in all.

        Slots are never written again once there are longer ones: whoever reads them knows only of chunks that are
        beside them.
        """
        if words < len(self.starts) and chunks <= len(self.chunks):
            return
        capacity = max(1 << (words - 1).bit_length(), len(self.starts) - 1)
        larger = np.zeros(max(1 << (chunks - 1).bit_length(), len(self.chunks)), np.uint64)
        larger[: len(self.chunks)] = self.chunks
        starts = np.zeros(capacity + 1, np.int64)
        starts[: len(self.starts)] = self.starts
        slots, mask = np.zeros(4 * capacity, np.uint64), 2 * capacity - 1
        call("rehash", slots, mask, larger, starts, len(self))
        self.starts, self.table = starts, (slots, mask, larger)

    def texts(self, numbers: NDArray[np.int64]) -> list[str]:
        """Words with these numbers."""
        chunks, starts = self.chunks, self.starts
        return [
            chunks[starts[number] : starts[number + 1]].tobytes().rstrip(b"\0").decode() for number in numbers.tolist()
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The words of the texts of a block.

    Args:
        words: The table that the numbers belong to.
        ids: int32, numbers of the words of all texts behind each other.
        offsets: int64 (texts + 1,), where the words of each text start.
        marks: uint8 (texts,), 1 for texts that the table is not for; they have no words.
        new: How many words were not known before.
    """

    words: Words
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    marks: NDArray[np.uint8]
    new: int

    def __len__(self) -> int:
        """How many texts."""
        return len(self.marks)


class WordTable:
    """Looks words up, and learns new ones. Safe to call from several threads, and in forked processes.

    Args:
        call: The kernels.
        columns: Makes empty columns.
        max_words: Words remembered, give or take those of one call; when more come, the table starts again.
        max_bytes: Bytes of all words remembered, rounded up to 8 a word, give or take those of one call.
    """

    def __init__(
        self, call: Call, columns: Callable[[], dict[str, Column]], max_words: int = 2**19, max_bytes: int = 2**24
    ) -> None:
        self._call = call
        self._columns = columns
        self._max_words = max_words
        self._max_chunks = max_bytes // 8
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._words = Words(self._columns())
        self.hits = self.misses = self.restarts = 0

    @property
    def statistics(self) -> CacheStatistics:
        """What the table has done so far."""
        words = self._words
        return CacheStatistics(self.hits, self.misses, len(words), words.nbytes, self.restarts)

    @property
    def words(self) -> Words:
        """What is known now."""
        return self._words

    def add_column(self, name: str, make: Callable[[], Column]) -> None:
        """Keep something more of each word; nothing happens when there is a column of that name."""
        if name in self._words.columns:
            return
        with self._lock:
            if name not in self._words.columns:
                before = self._columns
                self._columns = lambda: {**before(), name: make()}
                self._words.columns = {**self._words.columns, name: make()}

    def find(self, block: Block) -> Found:
        """The words of the texts of a block, all of them known afterwards, with their columns."""
        if self._process != os.getpid():  # forked, perhaps while another thread was learning
            self._start()
        texts = len(block)
        ids = np.empty(len(block.text) // 2 + texts + 1, np.int32)
        offsets, marks, found = np.empty(texts + 1, np.int64), np.empty(texts, np.uint8), np.empty(3, np.int64)
        keys = np.empty(3 * WAITING, np.uint64)

        def scan(words: Words) -> int:
            return self._call("scan", block.text, block.offsets, texts, *words.table, ids, offsets, marks, found, keys)

        words = self._words
        unknown, new = scan(words), 0
        if unknown or any(column.covered <= found[1] for column in words.columns.values()):
            with self._lock:
                words = self._words
                unknown = scan(words)
                if unknown and self._is_too_much(words, unknown, int(found[0])):
                    words = self._words = Words(self._columns())
                    self.restarts += 1
                    unknown = scan(words)
                if unknown:
                    words.make_room(len(words) + unknown, int(words.size[1] + found[0]), self._call)
                    table = (*words.table, words.starts, words.size)
                    new = self._call("insert", block.text, block.offsets, texts, *table, ids, offsets, marks)
                for column in words.columns.values():
                    if column.covered < len(words):
                        column.fill(words, len(words))
        self.hits += int(offsets[-1]) - new
        self.misses += new
        return Found(words, ids[: offsets[-1]], offsets, marks, new)

    def _is_too_much(self, words: Words, more: int, chunks: int) -> bool:
        return len(words) + more > self._max_words or int(words.size[1]) + chunks > self._max_chunks
