"""A cross-encoder that reads every pair once, and remembers what it said and how long that took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.protocols import Reranker
from retrieval.rerankers.reader import CutsQueries

_PAIR_OVERHEAD = 32


@dataclass(frozen=True, slots=True)
class _Read:
    logit: float
    seconds: float


class RememberedReranker:
    """Answers from memory where it can, and moves a clock of its own on by what the reading took when it was real.

    Args:
        reranker: Reads what is not remembered.
        batch_size: Pairs of one call.
    """

    def __init__(self, reranker: Reranker, batch_size: int) -> None:
        self._reranker = reranker
        self._batch_size = batch_size
        self._read: dict[tuple[str, str], _Read] = {}
        self._seconds = 0.0
        self.limit: int | None = None
        """Pairs that may be read in all; ``None`` for any number."""
        self.refused = False
        """Whether something was not read because of the limit."""

    @property
    def name(self) -> str:
        """Name of the cross-encoder."""
        return self._reranker.name

    @property
    def pairs(self) -> int:
        """How many were read."""
        return len(self._read)

    @property
    def seconds_per_pair(self) -> float:
        """What reading one took on average; 0 before the first."""
        return sum(read.seconds for read in self._read.values()) / len(self._read) if self._read else 0.0

    def clock(self) -> float:
        """Seconds that all answers so far would have taken without a memory."""
        return self._seconds

    def readable_query(self, query: str) -> str:
        """The beginning of the query that the model reads."""
        return self._reranker.readable_query(query) if isinstance(self._reranker, CutsQueries) else query

    def knows(self, query: str, text: str) -> bool:
        """Whether a pair was read."""
        return (query, text) in self._read

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """Logits of the texts, from memory where they are there; see `retrieval.protocols.Reranker`.

        Raises:
            RuntimeError: The limit is reached.
        """
        self.read(query, texts)
        found = [self._read[query, text] for text in texts]
        self._seconds += sum(read.seconds for read in found)
        return np.array([read.logit for read in found], dtype=np.float32)

    def read(self, query: str, texts: Sequence[str]) -> None:
        """Read what is not remembered.

        Raises:
            RuntimeError: The limit is reached.
        """
        new = list(dict.fromkeys(text for text in texts if (query, text) not in self._read))
        if self.limit is not None and len(self._read) + len(new) > self.limit:
            self.refused = True
            raise RuntimeError(f"{self.limit} pairs are read; no more are meant to be")
        for start in range(0, len(new), self._batch_size):
            batch = new[start : start + self._batch_size]
            before = time.perf_counter()
            logits = self._reranker.score(query, batch)
            seconds = time.perf_counter() - before
            costs = [len(text) + len(query) + _PAIR_OVERHEAD for text in batch]
            for text, logit, cost in zip(batch, logits, costs, strict=True):
                self._read[query, text] = _Read(float(logit), seconds * cost / sum(costs))
