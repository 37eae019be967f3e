"""BM25 vectors of many texts in a few arrays, before and after weighing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TermCounts:
    """How often each term occurs in each of ``n`` texts.

    Args:
        offsets: int64 (n + 1,), terms of text ``i`` are ``offsets[i]`` to ``offsets[i + 1]``.
        indices: uint32 (terms,), ascending without repetition within a text.
        frequencies: float64 (terms,), whole numbers.
        lengths: int64 (n,), lengths of the texts in terms, repeated ones included.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint32]
    frequencies: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, counted: Sequence[tuple[NDArray[np.uint32], NDArray[np.float64]]]) -> TermCounts:
        """From the terms and frequencies of each text."""
        return cls(
            np.cumsum([0, *(len(indices) for indices, _ in counted)], dtype=np.int64),
            np.concatenate([np.empty(0, np.uint32), *(indices for indices, _ in counted)]),
            np.concatenate([np.empty(0), *(each for _, each in counted)]),
            np.array([each.sum() for _, each in counted], np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence[TermCounts]) -> TermCounts:
        """Texts of several parts behind each other."""
        if len(parts) == 1:
            return parts[0]
        sizes = [np.diff(part.offsets) for part in parts]
        return cls(
            np.concatenate([np.zeros(1, np.int64), *sizes]).cumsum(),
            np.concatenate([np.empty(0, np.uint32), *(part.indices for part in parts)]),
            np.concatenate([np.empty(0), *(part.frequencies for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)]),
        )

    def with_rows(self, rows: NDArray[np.int64], other: TermCounts) -> TermCounts:
        """The same with the terms of ``other`` at ``rows``, which are empty here."""
        sizes, lengths = np.diff(self.offsets), self.lengths.copy()
        sizes[rows], lengths[rows] = np.diff(other.offsets), other.lengths
        there = np.zeros(len(sizes), bool)
        there[rows] = True
        place = np.repeat(there, sizes)
        indices, frequencies = np.empty(len(place), np.uint32), np.empty(len(place))
        indices[place], indices[~place] = other.indices, self.indices
        frequencies[place], frequencies[~place] = other.frequencies, self.frequencies
        return TermCounts(np.concatenate([[0], np.cumsum(sizes)]), indices, frequencies, lengths)


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """BM25 vectors of ``n`` texts behind each other.

    Args:
        offsets: int64 (n + 1,), terms of text ``i`` are ``offsets[i]`` to ``offsets[i + 1]``.
        indices: uint32 (terms,), ascending without repetition within a text.
        weights: float32 (terms,).
        lengths: int64 (n,), lengths of the texts in terms.
    """

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint32]
    weights: FloatArray
    lengths: NDArray[np.int64]
