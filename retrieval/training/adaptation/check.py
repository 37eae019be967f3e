"""The self-check: does the adapted table find the sources of held-out pseudo-queries as well as the start did?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.protocols import SparseEncoder
from retrieval.training.adaptation.lexical import LexicalScores
from retrieval.training.adaptation.queries import QUESTION, PseudoQuery
from retrieval.training.adaptation.sums import IntArray, add_up, pack, unit
from retrieval.training.table import StaticTable

CANDIDATES = 100
_QUERIES_AT_ONCE = 64
_DRAWS = 1000
_ABSENT = -2.0  # below every cosine


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One kind of held-out pseudo-query in one arm, before and after adaptation.

    Args:
        kind: How the queries were made, and which arm answered.
        queries: How many there were.
        before: Mean nDCG@10 of the source under the starting table.
        after: The same under the adapted table.
        low: Lower end of the 95 % paired bootstrap interval of ``after - before``.
        high: Its upper end.
    """

    kind: str
    queries: int
    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class PoolSums:
    """Sums of token vectors under one table: passages (pool, dim), queries (queries, dim), rests (rests, dim)."""

    passages: FloatArray
    queries: FloatArray
    rests: FloatArray

    def mix(self, other: PoolSums, share: float) -> PoolSums:
        """The sums of the table that lies ``share`` of the way to the ``other`` one."""
        part = np.float32(share)
        return PoolSums(
            self.passages + part * (other.passages - self.passages),
            self.queries + part * (other.queries - self.queries),
            self.rests + part * (other.rests - self.rests),
        )


class Pool:
    """Passages that both arms search, and the pseudo-queries asked of them.

    Args:
        table: Gives the token ids.
        texts: Passages as indexed.
        documents: Number of the document of each; other passages of the source's document do not compete.
        queries: At least one; their sources are positions in ``texts``.
        sparse: The BM25 arm.
    """

    def __init__(
        self,
        table: StaticTable,
        texts: Sequence[str],
        documents: IntArray,
        queries: Sequence[PseudoQuery],
        sparse: SparseEncoder,
    ) -> None:
        self._documents = documents
        self._sources = np.array([query.source for query in queries], np.int64)
        self._owners = np.array([number for number, query in enumerate(queries) if query.rest is not None], np.int64)
        self.kinds = np.array([query.kind for query in queries])
        asked = [query.text for query in queries]
        rests = [query.rest for query in queries if query.rest is not None]
        self._passage_ids = pack(table.tokenize(texts))
        self._query_ids = pack(table.tokenize(asked))
        self._rest_ids = pack(table.tokenize(rests))
        self._lexical = LexicalScores(texts, asked, rests, self._owners, sparse)

    @property
    def questions(self) -> NDArray[np.bool_]:
        """Which queries are questions (queries,)."""
        questions: NDArray[np.bool_] = self.kinds == QUESTION
        return questions

    def sums(self, vectors: FloatArray) -> PoolSums:
        """All texts under a table."""
        return PoolSums(
            add_up(self._passage_ids, vectors), add_up(self._query_ids, vectors), add_up(self._rest_ids, vectors)
        )

    def gains(self, sums: PoolSums, weights: Sequence[float]) -> FloatArray:
        """nDCG@10 of every query's source at each weight of the static arm, float32 (queries, weights)."""
        passages, queries, rests = unit(sums.passages)[0], unit(sums.queries)[0], unit(sums.rests)[0]
        result = np.zeros((len(queries), len(weights)), np.float32)
        own = np.full(len(queries), np.nan, np.float32)
        own[self._owners] = np.einsum("ij,ij->i", queries[self._owners], rests)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            rows = np.arange(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            place = np.arange(len(rows)), self._sources[rows]
            altered = ~np.isnan(own[rows])
            dense, lexical = queries[rows] @ passages.T, self._lexical.scores(rows)
            dense[place] = np.where(altered, own[rows], dense[place])
            lexical[place] = np.where(altered, self._lexical.rest_scores(rows), lexical[place])
            siblings = self._documents[None, :] == self._documents[place[1]][:, None]
            siblings[place] = False
            dense[siblings], lexical[siblings] = _ABSENT, 0.0
            dense, lexical = _scale(dense, _ABSENT), _scale(lexical, 0.0)
            found = lexical.any(axis=1)
            for column, weight in enumerate(weights):
                share = np.where(found, weight, 1.0).astype(np.float32)[:, None]
                result[rows, column] = _gain(share * dense + (1 - share) * lexical, place)
        return result


def _scale(scores: FloatArray, nothing: float) -> FloatArray:
    """Min-max over the best 100 of each row, as fusion does it; 0 for all others."""
    limit = min(CANDIDATES, scores.shape[1])
    top = np.argpartition(-scores, limit - 1, axis=1)[:, :limit]
    best = np.take_along_axis(scores, top, axis=1)
    there = best > nothing
    lowest = np.where(there, best, np.inf).min(axis=1, keepdims=True)
    span = best.max(axis=1, keepdims=True) - lowest
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(span > 0, (best - lowest) / span, 1.0)
    result = np.zeros_like(scores)
    # The last of the list is worth a little more than what is not in it.
    np.put_along_axis(result, top, np.where(there, np.maximum(scaled, 1e-6), 0.0).astype(np.float32), axis=1)
    return result


def _gain(scores: FloatArray, place: tuple[IntArray, IntArray]) -> FloatArray:
    own = scores[place]
    rank = 1 + (scores > own[:, None]).sum(axis=1)
    gain: FloatArray = np.where((rank <= 10) & (own > 0), 1 / np.log2(1 + rank), 0.0).astype(np.float32)
    return gain


def balanced_change(before: FloatArray, after: FloatArray, questions: NDArray[np.bool_]) -> tuple[float, float]:
    """Change of the pseudo-queries, questions and the other kinds counting the same, and its standard error.

    Sentences without their passage's words show what was learned and questions of its rare words what was forgotten.

    Args:
        before: Gains of the static arm (queries,).
        after: Gains after.
        questions: Which queries are questions (queries,).
    """
    change = after - before
    parts = [change[part] for part in (~questions, questions) if part.any()]
    mean = sum(float(part.mean()) for part in parts) / len(parts)
    error = float(np.sqrt(sum(float(part.var()) / len(part) for part in parts))) / len(parts)
    return mean, error


def compare(
    kinds: NDArray[np.str_], before: Mapping[str, FloatArray], after: Mapping[str, FloatArray], seed: int
) -> tuple[CheckRow, ...]:
    """Rows of the check: every kind of query in every arm.

    Args:
        kinds: Kind of each query.
        before: Gains of each arm under the starting table (queries,).
        after: Gains under the adapted table.
        seed: Draws of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for arm in before:
        for kind in dict.fromkeys(kinds.tolist()):
            chosen = kinds == kind
            first, second = before[arm][chosen], after[arm][chosen]
            draws = generator.integers(0, len(first), (_DRAWS, len(first)))
            low, high = np.quantile((second - first)[draws].mean(axis=1), (0.025, 0.975))
            row = f"{kind}, {arm}", len(first), float(first.mean()), float(second.mean()), float(low), float(high)
            rows.append(CheckRow(*row))
    return tuple(rows)
