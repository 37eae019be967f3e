"""Lists for the cross-encoder: to each query its passage and passages that look alike but do not answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray, SparseVector
from retrieval.errors import MissingExtraError
from retrieval.protocols import Encoder, SparseEncoder
from retrieval.training.lists import RankingList, cut_lists, holds
from retrieval.training.pairs import Pair, passages_of

Progress = Callable[[int, int], None]
"""Called with the queries done and all queries."""


@dataclass(frozen=True, slots=True)
class MineSettings:
    """How hard negatives are chosen.

    Args:
        negatives: How many a list gets at most.
        depth: They come from the first ``depth`` of each arm.
        given: Of the negatives, how many may come from those that the pair brought along.
        near_duplicate: A passage with a cosine to the positive above this is not used.
        window_words: Longer passages are cut to the window of so many words that is closest to the query.
        batch_size: Queries scored at a time.
        seed: Chooses among the candidates.
    """

    negatives: int = 7
    depth: int = 50
    given: int = 1
    near_duplicate: float = 0.9
    window_words: int = 90
    batch_size: int = 256
    seed: int = 0


def mine(
    pairs: Sequence[Pair],
    pool: Sequence[Pair],
    encoder: Encoder,
    sparse: SparseEncoder,
    settings: MineSettings = MineSettings(),
    on_progress: Progress | None = None,
) -> list[RankingList]:
    """Find hard negatives with both arms of the first stage.

    A passage is not used as a negative when it is a positive of the same query, nearly the same as the positive, or
    contains the answer.

    Args:
        pairs: Queries to make lists for.
        pool: Pairs whose passages are searched.
        encoder: The static arm.
        sparse: The BM25 arm.
        settings: How many, from how deep.
        on_progress: Told how far it is.

    Returns:
        One list a pair, in order; pairs for which nothing was found are left out.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    passages = passages_of([*pool, *pairs])
    number = {text: index for index, text in enumerate(passages)}
    vectors = encoder.encode_documents(passages)
    search = _Bm25Search(sparse, passages)
    answers: dict[str, set[int]] = {}
    for pair in (*pool, *pairs):
        answers.setdefault(pair.query, set()).add(number[pair.positive])
    generator = np.random.default_rng(settings.seed)
    lists: list[RankingList] = []
    answered: list[str] = []
    for start in range(0, len(pairs), settings.batch_size):
        batch = pairs[start : start + settings.batch_size]
        queries = encoder.encode_queries([pair.query for pair in batch])
        arms = (
            _best(queries @ vectors.T, settings.depth),
            _best(search.scores([pair.query for pair in batch]), settings.depth),
        )
        for row, pair in enumerate(batch):
            given = [number[text] for text in pair.negatives]
            ranked = _candidates([arm[row] for arm in arms], given, settings, generator)
            positive = vectors[number[pair.positive]]
            chosen = [
                passages[index]
                for index in ranked
                if index not in answers[pair.query]
                and vectors[index] @ positive <= settings.near_duplicate
                and not holds(passages[index], pair.answer)
            ][: settings.negatives]
            if chosen:
                lists.append(RankingList(pair.query, pair.positive, tuple(chosen), pair.source))
                answered.append(pair.answer)
        if on_progress is not None:
            on_progress(min(start + settings.batch_size, len(pairs)), len(pairs))
    return cut_lists(lists, answered, encoder, settings.window_words)


def _candidates(
    arms: Sequence[NDArray[np.int64]], given: Sequence[int], settings: MineSettings, generator: np.random.Generator
) -> list[int]:
    """Half from the top ranks of both arms, the rest at random from the depth, and some given ones in front."""
    first = list(generator.permutation(given)[: settings.given]) if len(given) else []
    top = [index for pair in zip(*(arm[: settings.negatives] for arm in arms), strict=True) for index in pair]
    deep = generator.permutation(np.concatenate(arms))
    half = settings.negatives // 2 + 1
    order = first + top[:half] + list(deep[: 4 * settings.negatives]) + top[half:]
    return [int(index) for index in dict.fromkeys(order)]


def _best(scores: FloatArray, depth: int) -> NDArray[np.int64]:
    depth = min(depth, scores.shape[1])
    best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1).astype(np.int64)


class _Bm25Search:
    """Exact BM25 over passages held in memory."""

    def __init__(self, sparse: SparseEncoder, passages: Sequence[str]) -> None:
        try:
            from scipy.sparse import csr_matrix
        except ImportError as error:
            raise MissingExtraError("scipy", "train", "mining negatives") from error
        self._matrix = csr_matrix
        self._sparse = sparse
        documents, _ = sparse.encode_documents(passages, 0.0)
        self._terms = np.unique(np.concatenate([vector.indices for vector in documents]))
        weights = self._rows(documents)
        count = np.bincount(weights.indices, minlength=len(self._terms))
        rarity = np.log((len(passages) - count + 0.5) / (count + 0.5) + 1.0)
        weights.data *= rarity[weights.indices].astype(np.float32)
        self._weights = weights.T.tocsr()

    def _rows(self, vectors: Sequence[SparseVector]) -> Any:  # a csr_matrix; scipy has no types
        indices = np.concatenate([vector.indices for vector in vectors])
        columns = np.minimum(np.searchsorted(self._terms, indices), len(self._terms) - 1)
        known = self._terms[columns] == indices
        ends = np.concatenate([[0], np.cumsum(known)])[np.cumsum([0, *(len(vector.indices) for vector in vectors)])]
        values = np.concatenate([vector.values for vector in vectors])
        return self._matrix((values[known], columns[known], ends), shape=(len(vectors), len(self._terms)))

    def scores(self, queries: Sequence[str]) -> FloatArray:
        dense = (self._rows(self._sparse.encode_queries(queries)) @ self._weights).toarray()
        return np.asarray(dense, dtype=np.float32)
