"""Training pairs as token ids: every text is tokenized and kept once, in a file that is mapped into memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retrieval.training.pairs import Pair
from retrieval.training.table import StaticTable

IntArray = NDArray[np.int64]

_BLOCK_PAIRS = 512


@dataclass(frozen=True, slots=True)
class RowGroup:
    """The rows of one data set, which batches are drawn from together.

    Args:
        name: Name of the data set.
        weight: How often the rows are used in an epoch, or their share of the turns.
        start: First row.
        end: One past the last row.
    """

    name: str
    weight: float
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """Rows of texts, and the tokens of the texts.

    Args:
        texts: int32 (rows, 2 + negatives): numbers of query, positive and negatives; -1 where there is none.
        tokens: int32 (all tokens,): those of all texts, one after the other.
        offsets: int64 (texts + 1,): where the tokens of each text start.
        groups: Which rows belong together; they cover all rows in order.
    """

    texts: NDArray[np.int32]
    tokens: NDArray[np.int32]
    offsets: IntArray
    groups: tuple[RowGroup, ...]

    def padded(self, numbers: NDArray[np.int32], padding: int) -> IntArray:
        """Tokens of texts, int64 (texts, longest, at least 1), filled up with ``padding``."""
        starts, ends = self.offsets[numbers], self.offsets[numbers.astype(np.int64) + 1]
        lengths = ends - starts
        places = np.arange(max(1, int(lengths.max(initial=0))))
        inside = places < lengths[:, None]
        result = np.full(inside.shape, padding, np.int64)
        result[inside] = self.tokens[(starts[:, None] + places)[inside]]
        return result


class TokenRowWriter:
    """Collects the pairs of data sets into `TokenRows`.

    Memory: a few dozen bytes for each different text and each row; the tokens go to a file.

    Args:
        table: Tokenizes.
        file: Where the tokens are written; replaced when it exists.
        negatives: How many negatives of a pair are kept; shorter lists are repeated to that number.
        max_tokens: Longer texts are cut.
    """

    def __init__(self, table: StaticTable, file: Path, *, negatives: int, max_tokens: int) -> None:
        self._table = table
        self._path = file
        self._file = file.open("wb")
        self._negatives = negatives
        self._max_tokens = max_tokens
        self._numbers: dict[bytes, int] = {}
        self._offsets = array("q", [0])
        self._rows: dict[tuple[str, float], array[int]] = {}
        self.unknown = 0
        """Pairs left out because a query or positive has no known token."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, name: str, weight: float, pairs: Iterable[Pair]) -> int:
        """Read the pairs of a data set to their end; returns how many were kept."""
        kept = 0
        rows = self._rows.setdefault((name, weight), array("i"))
        stream = iter(pairs)
        while block := list(islice(stream, _BLOCK_PAIRS)):
            self._tokenize(block)
            for pair in block:
                numbers = [self._numbers[_digest(text)] for text in (pair.query, pair.positive)]
                if any(self._offsets[number] == self._offsets[number + 1] for number in numbers):
                    self.unknown += 1
                    continue
                others = [self._numbers[_digest(text)] for text in pair.negatives[: self._negatives]]
                others = (others * self._negatives)[: self._negatives]
                missing = [-1] * (self._negatives - len(others))
                rows.extend([*numbers, *others, *missing])
                kept += 1
        return kept

    def finish(self) -> TokenRows:
        """Close the file and map it."""
        self._file.close()
        width = 2 + self._negatives
        parts, groups, start = [], [], 0
        for (name, weight), values in self._rows.items():
            if not values:
                continue
            part = np.frombuffer(values, np.int32).reshape(-1, width)
            parts.append(part)
            groups.append(RowGroup(name, weight, start, start + len(part)))
            start += len(part)
        texts = np.concatenate(parts) if parts else np.empty((0, width), np.int32)
        empty = self._offsets[-1] == 0
        tokens = np.empty(0, np.int32) if empty else np.memmap(self._path, np.int32, "r")
        return TokenRows(texts, tokens, np.frombuffer(self._offsets, np.int64), tuple(groups))

    def _tokenize(self, block: Iterable[Pair]) -> None:
        new: dict[bytes, str] = {}
        for pair in block:
            for text in (pair.query, pair.positive, *pair.negatives[: self._negatives]):
                digest = _digest(text)
                if digest not in self._numbers:
                    new[digest] = text
        for digest, ids in zip(new, self._table.tokenize(list(new.values())), strict=True):
            self._numbers[digest] = len(self._offsets) - 1
            self._file.write(array("i", ids[: self._max_tokens]).tobytes())
            self._offsets.append(self._offsets[-1] + min(len(ids), self._max_tokens))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
