"""How well a network ranks lists that were held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.training.reranker.batches import BatchSettings, pad_pairs, tokenize_pairs
from retrieval.training.reranker.lists import RankingList
from retrieval.training.reranker.network import NetworkShape, Parameters, score_pairs


def ranking_accuracy(
    parameters: Parameters,
    shape: NetworkShape,
    tokenizer: Tokenizer,
    lists: Sequence[RankingList],
    settings: BatchSettings = BatchSettings(),
) -> float:
    """Mean reciprocal rank of the positive among the negatives of its list, 0 to 1; equal scores count as worse.

    Raises:
        ValueError: There are no lists.
    """
    if not lists:
        raise ValueError("a ranking accuracy needs at least one list")
    total = 0.0
    for item in lists:
        scores = list_scores(parameters, shape, tokenizer, item, settings)
        total += 1.0 / (1 + int((scores[1:] >= scores[0]).sum()))
    return total / len(lists)


def list_scores(
    parameters: Parameters, shape: NetworkShape, tokenizer: Tokenizer, item: RankingList, settings: BatchSettings
) -> FloatArray:
    """Logits of the positive and the negatives of a list, float32 (1 + negatives,)."""
    import torch

    texts = (item.positive, *item.negatives)
    lengths = {"max_tokens": settings.max_tokens, "query_tokens": settings.query_tokens}
    pairs = tokenize_pairs(tokenizer, [item.query] * len(texts), texts, **lengths)
    with torch.no_grad():
        arrays = (torch.from_numpy(array) for array in pad_pairs(pairs))
        scores: FloatArray = score_pairs(parameters, shape, *arrays)[:, 0].float().numpy()
    return scores


def fit_head(
    parameters: Parameters,
    shape: NetworkShape,
    tokenizer: Tokenizer,
    lists: Sequence[RankingList],
    settings: BatchSettings = BatchSettings(),
) -> tuple[float, float]:
    """Slope and offset with which the sigmoid of a logit tells positives from negatives best.

    Listwise training leaves both open. Positives and negatives weigh the same in all, and the slope stays above 0.

    Args:
        parameters: The network.
        shape: Its sizes.
        tokenizer: Without truncation and padding.
        lists: Lists that it was not trained on.
        settings: Lengths.

    Returns:
        For `retrieval.training.reranker.network.scale_head`.

    Source:
        Platt scaling, https://www.researchgate.net/publication/2594015
    """
    from scipy.optimize import minimize

    scored = [list_scores(parameters, shape, tokenizer, item, settings) for item in lists]
    positive = np.array([scores[0] for scores in scored], dtype=np.float64)
    negative = np.concatenate([scores[1:] for scores in scored]).astype(np.float64)

    def cost(line: FloatArray) -> float:
        slope, offset = np.exp(line[0]), line[1]
        missed = np.logaddexp(0.0, -(slope * positive + offset)).mean()
        taken = np.logaddexp(0.0, slope * negative + offset).mean()
        # A little regularisation: lists that are told apart perfectly would ask for an endless slope.
        return float(missed + taken + 0.01 * line[0] ** 2)

    start = np.array([0.0, -0.5 * (positive.mean() + negative.mean())])
    found = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 2000})
    return float(np.exp(found.x[0])), float(found.x[1])
