"""Scores of a stronger scorer for ranking lists, or of several together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray, SparseVector
from retrieval.protocols import Encoder, SparseEncoder
from retrieval.training.reranker.lists import RankingList

PairScorer = Callable[[str, Sequence[str]], FloatArray]
"""Scores of texts for a query, higher is better: `retrieval.protocols.Reranker.score` is one."""


def score_lists(
    lists: Sequence[RankingList],
    scorers: Sequence[tuple[PairScorer, float]],
    *,
    spread: float = 3.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[RankingList]:
    """Lists with the scores of a teacher.

    The scores of a scorer are divided by their mean standard deviation within a list, so that weights compare.

    Args:
        lists: What is scored; scores that are there are replaced.
        scorers: Each with its weight. A single cross-encoder is as good as several weaker scorers.
        spread: Standard deviation within a list that the sum is given, in logits.
        on_progress: Called with the lists done and all lists, for each scorer anew.

    Raises:
        ValueError: There is no scorer, or the weights do not sum to more than 0.
    """
    if not scorers or not sum(weight for _, weight in scorers) > 0:
        raise ValueError("a teacher needs scorers with weights that sum to more than 0")
    totals = [np.zeros(1 + len(item.negatives)) for item in lists]
    for scorer, weight in scorers:
        found = []
        for number, item in enumerate(lists, 1):
            found.append(np.asarray(scorer(item.query, (item.positive, *item.negatives)), dtype=np.float64))
            if on_progress is not None:
                on_progress(number, len(lists))
        for total, scores in zip(totals, _scaled(found), strict=True):
            total += weight * scores
    return [
        replace(item, scores=tuple(float(score) for score in spread * scores))
        for item, scores in zip(lists, _scaled(totals), strict=True)
    ]


def _scaled(scores: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    deviation = float(np.mean([np.std(values) for values in scores])) if scores else 0.0
    return [(values - values.mean()) / max(deviation, 1e-9) for values in scores]


def cosine_scorer(encoder: Encoder) -> PairScorer:
    """Cosine of the vectors of a bi-encoder."""

    def score(query: str, texts: Sequence[str]) -> FloatArray:
        product: FloatArray = encoder.encode_documents(texts) @ encoder.encode_queries([query])[0]
        return product

    return score


def bm25_scorer(sparse: SparseEncoder, texts: Sequence[str]) -> PairScorer:
    """BM25 with the rarity of terms, and the mean length, of a collection.

    Args:
        sparse: Makes terms and weights.
        texts: The collection.

    Raises:
        ValueError: The collection is empty.
    """
    if not texts:
        raise ValueError("BM25 needs the texts of a collection")
    vectors, lengths = sparse.encode_documents(texts, 0.0)
    terms, counts = np.unique(np.concatenate([vector.indices for vector in vectors]), return_counts=True)
    rarity = np.log((len(texts) - counts + 0.5) / (counts + 0.5) + 1.0)
    average = max(1.0, float(np.mean(lengths)))

    def weight(vector: SparseVector) -> dict[int, float]:
        return dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))

    def score(query: str, candidates: Sequence[str]) -> FloatArray:
        asked = sparse.encode_queries([query])[0]
        place = np.minimum(np.searchsorted(terms, asked.indices), len(terms) - 1)
        rare = np.where(terms[place] == asked.indices, rarity[place], np.log(2.0 * len(texts) + 1.0))
        wanted = [(int(i), float(v) * float(r)) for i, v, r in zip(asked.indices, asked.values, rare, strict=True)]
        read = map(weight, sparse.encode_documents(candidates, average)[0])
        return np.array([sum(v * held.get(i, 0.0) for i, v in wanted) for held in read], dtype=np.float32)

    return score
