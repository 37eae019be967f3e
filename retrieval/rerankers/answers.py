"""The threshold of a good answer: from which probability of its best hit on a result is right often enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.rerankers.calibration import Calibration, DoubleArray, Threshold
from retrieval.rerankers.model_calibration import RerankerCalibration

FOLDS = 5


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One row for each query that was asked.

    Args:
        best: float64 ``(n,)``, the highest probability among the hits.
        right: float64 ``(n,)``, the highest probability among the hits that answer the query; below 0 where none does.
        weights: float64 ``(n,)``, how many queries each stands for, above 0.
    """

    best: DoubleArray
    right: DoubleArray
    weights: DoubleArray

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float | None, float]]) -> Outcomes:
        """From rows of best and right probability, ``None`` where nothing is right, and weight."""
        best = np.asarray([row[0] for row in rows], dtype=np.float64)
        right = np.asarray([-1.0 if row[1] is None else row[1] for row in rows], dtype=np.float64)
        return cls(best, right, np.asarray([row[2] for row in rows], dtype=np.float64))

    def __getitem__(self, chosen: DoubleArray) -> Outcomes:
        return Outcomes(self.best[chosen], self.right[chosen], self.weights[chosen])

    def at(self, probability: float) -> tuple[float, float]:
        """Precision and recall of a threshold; precision is 0 where nothing reaches it.

        A result counts as right when a hit that reaches the threshold answers the query: the hits that a search with
        ``min_score`` shows. Recall is the share of the queries with an answer among their hits.
        """
        reached = float(self.weights[self.best >= probability].sum())
        right = float(self.weights[self.right >= probability].sum())
        answerable = float(self.weights[self.right >= 0].sum())
        return (right / reached if reached else 0.0), (right / answerable if answerable else 0.0)


def answer_threshold(outcomes: Outcomes, target: float) -> Threshold:
    """The smallest probability from which on results are right often enough, one more wrong result counted in.

    With that one the threshold keeps its promise for queries that it was not fitted on, also when it was fitted on few
    (`benchmarks/calibration.md`).

    Args:
        outcomes: What happened to queries with judgements.
        target: Precision wanted, above 0 and below 1.

    Raises:
        ValueError: The target is out of range, or no threshold reaches it; the message says what can be reached.
    """
    if not 0 < target < 1:
        raise ValueError(f"a target of precision is above 0 and below 1, not {target}")
    falling = np.argsort(-outcomes.best, kind="stable")
    best, weights = outcomes.best[falling], outcomes.weights[falling]
    mass, count = np.cumsum(weights), np.arange(1, len(best) + 1)
    rising = np.sort(outcomes.right)
    order = np.argsort(outcomes.right, kind="stable")
    above = np.append(np.cumsum(outcomes.weights[order][::-1])[::-1], 0.0)
    right = above[np.searchsorted(rising, best, side="left")]
    careful = right / mass * count / (count + 1)
    # Equal probabilities stand or fall together, so only the last of each counts.
    last = np.append(best[1:] != best[:-1], True)
    reached = np.flatnonzero(last & (careful >= target - 1e-12))
    if not len(reached):
        most = float(careful[last].max()) if len(careful) else 0.0
        raise ValueError(
            f"no threshold has a precision of {target:g} on these {len(best)} results; the best has {most:.2f}: ask "
            "for less, or judge more queries"
        )
    probability = float(best[reached[-1]])
    return Threshold(target, probability, *outcomes.at(probability))


def held_out(outcomes: Outcomes, queries: Sequence[int], target: float) -> tuple[float, float] | None:
    """Precision and recall for queries that the threshold was not fitted on, by cross-validation in five parts.

    Args:
        outcomes: What happened to queries with judgements.
        queries: Number of the query of each row; rows of one query stay together.
        target: Precision wanted.

    Returns:
        ``None`` where a part of the queries does not reach the target, or nothing is answered.
    """
    fold = np.asarray(queries) % FOLDS
    reached = right = answerable = 0.0
    for number in range(FOLDS):
        inside = outcomes[fold == number]
        try:
            threshold = answer_threshold(outcomes[fold != number], target)
        except ValueError:
            return None
        reached += float(inside.weights[inside.best >= threshold.probability].sum())
        right += float(inside.weights[inside.right >= threshold.probability].sum())
        answerable += float(inside.weights[inside.right >= 0].sum())
    return (right / reached, right / answerable) if reached and answerable else None


def model_threshold(calibration: RerankerCalibration, target: float) -> Threshold:
    """A threshold of the model, which it has for the probability of a whole result, as a probability of its best hit.

    Args:
        calibration: Of the model.
        target: Precision, one of those that it has a threshold for.

    Raises:
        ValueError: It has none for that target.
    """
    threshold = calibration.threshold(target)
    logit = _lowest_logit(calibration.results, threshold.probability)
    probability = float(calibration.passages.probability(logit))
    return Threshold(target, probability, threshold.precision, threshold.recall)


def _lowest_logit(function: Calibration, probability: float) -> float:
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if float(function.probability(middle)) >= probability else (middle, high)
    return high
