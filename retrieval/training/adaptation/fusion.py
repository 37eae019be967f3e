"""The weight of the static arm in min-max fusion, from pseudo-queries instead of labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray

WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))
DEFAULT_WEIGHT = 0.4
DEFAULT = WEIGHTS.index(DEFAULT_WEIGHT)

# Fitted on the development sets of benchmarks/adapt.md. Questions made of a passage's own rare words flatter BM25
# and count little; a weight other than the default has to be better by 1.64 standard errors, and is gone to most of
# the way.
_QUESTION_SHARE = 0.1
_EVIDENCE = 1.64
_WAY = 0.75
_LOWEST, _HIGHEST = 0.1, 0.6


def choose_weight(gains: FloatArray, questions: NDArray[np.bool_]) -> float:
    """Weight of the static arm that serves the pseudo-queries best; the default without evidence for another.

    Args:
        gains: nDCG@10 of every query's source at each of `WEIGHTS`, float32 (queries, 11).
        questions: Which queries are questions made of words of the passage (queries,).
    """
    change = gains - gains[:, [DEFAULT]]
    mean = np.zeros(len(WEIGHTS))
    variance = np.zeros(len(WEIGHTS))
    for part, share in ((~questions, 1.0), (questions, _QUESTION_SHARE)):
        if part.sum() > 1:
            mean += share * change[part].mean(axis=0)
            variance += share**2 * change[part].var(axis=0) / part.sum()
    surplus = mean - _EVIDENCE * np.sqrt(variance)
    best = int(np.argmax(np.where(np.arange(len(WEIGHTS)) == DEFAULT, 0.0, surplus)))
    if surplus[best] <= 0:
        return DEFAULT_WEIGHT
    chosen = DEFAULT_WEIGHT + _WAY * (WEIGHTS[best] - DEFAULT_WEIGHT)
    return round(min(_HIGHEST, max(_LOWEST, chosen)), 3)
