"""Training of token vectors and a weight for each token, by Adam on the rows that a batch touches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.training.adaptation.loss import contrast
from retrieval.training.adaptation.sums import Bags, IntArray, join, matrix

_BETAS = (0.9, 0.98)
_TINY = 1e-8


@dataclass(frozen=True, slots=True)
class Rates:
    """How far a step goes.

    Args:
        vectors: Learning rate of the vectors, in parts of the root mean square of the table's entries.
        weights: Learning rate of the logarithm of the token weights.
        pull: Part of the way back to the start that a touched row goes at each step.
        temperature: Cosines are divided by it.
    """

    vectors: float = 0.03
    weights: float = 0.01
    pull: float = 0.0
    temperature: float = 0.05


class Trainer:
    """Vectors and log weights of a table while they are trained; a token that no batch has does not move.

    Args:
        start: The starting vectors (vocabulary, dim); not changed.
        rates: See `Rates`.
        dimensions: The loss is the mean over these numbers of leading dimensions.

    Source:
        Adam on touched rows only: "lazy" Adam of TensorFlow Addons, https://arxiv.org/abs/1412.6980
    """

    def __init__(self, start: FloatArray, rates: Rates, dimensions: tuple[int, ...]) -> None:
        used = start[np.abs(start).max(axis=1) > 0]
        self._scale = np.float32(np.sqrt(np.mean(np.square(used, dtype=np.float64))))
        self._start = start
        self._vectors = start / self._scale
        self._weights = np.zeros(len(start), np.float32)
        self._rates = rates
        self._dimensions = dimensions
        self._means = np.zeros_like(self._vectors)
        self._squares = np.zeros_like(self._vectors)
        self._weight_means = np.zeros_like(self._weights)
        self._weight_squares = np.zeros_like(self._weights)
        self._seen = np.zeros(len(start), np.int32)

    @property
    def vectors(self) -> FloatArray:
        """The trained vectors, weights folded in; rows that were never touched are those of the start, bit by bit."""
        result = self._start.copy()
        rows = self._seen > 0
        result[rows] = self._vectors[rows] * np.exp(self._weights[rows])[:, None] * self._scale
        return result

    def step(
        self, anchors: Bags, positives: Bags, documents: IntArray, rate: float, targets: FloatArray | None = None
    ) -> float:
        """Learn from one batch.

        Args:
            anchors: Token ids of the anchors, none empty.
            positives: Token ids of the passages they belong to, none empty.
            documents: Number of the document of each; passages of one document are not negatives of each other.
            rate: Factor of all learning rates.
            targets: How much each positive belongs to each anchor (batch, batch), rows adding up to 1; ``None``
                when only its own does.

        Returns:
            The loss.
        """
        both = join(anchors, positives)
        used = np.zeros(len(self._vectors), bool)
        used[both.ids] = True
        rows = np.flatnonzero(used)
        places = np.zeros(len(self._vectors), np.int32)
        places[rows] = np.arange(len(rows), dtype=np.int32)
        counts = matrix(Bags(places[both.ids], both.offsets), len(rows))
        plain, weights = self._vectors[rows], np.exp(self._weights[rows])[:, None]
        table = plain * weights
        sums = np.asarray(counts @ table)
        same = documents[:, None] == documents[None, :]
        np.fill_diagonal(same, False)
        half = len(anchors)
        loss, left, right = contrast(sums[:half], sums[half:], same, self._dimensions, self._rates.temperature, targets)
        slope = np.asarray(counts.T @ np.concatenate([left, right]))
        weight_slope = np.einsum("ij,ij->i", slope, table)
        slope *= weights
        self._seen[rows] += 1
        self._move_vectors(rows, plain, slope, rate)
        self._move_weights(rows, weight_slope, rate)
        return loss

    def _corrections(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        seen = self._seen[rows].astype(np.float32)
        return (1 - np.float32(_BETAS[0]) ** seen), (1 - np.float32(_BETAS[1]) ** seen)

    def _move_vectors(self, rows: IntArray, plain: FloatArray, slope: FloatArray, rate: float) -> None:
        first, second = self._corrections(rows)
        mean, square = self._means[rows], self._squares[rows]
        mean *= _BETAS[0]
        mean += (1 - _BETAS[0]) * slope
        self._means[rows] = mean
        np.square(slope, out=slope)
        slope *= 1 - _BETAS[1]
        square *= _BETAS[1]
        square += slope
        self._squares[rows] = square
        np.sqrt(square, out=square)
        square += (_TINY * np.sqrt(second))[:, None]
        mean /= square
        mean *= (rate * self._rates.vectors * np.sqrt(second) / first).astype(np.float32)[:, None]
        plain -= mean
        if self._rates.pull:
            plain += np.float32(rate * self._rates.pull) * (self._start[rows] / self._scale - plain)
        self._vectors[rows] = plain

    def _move_weights(self, rows: IntArray, slope: FloatArray, rate: float) -> None:
        first, second = self._corrections(rows)
        mean = _BETAS[0] * self._weight_means[rows] + (1 - _BETAS[0]) * slope
        square = _BETAS[1] * self._weight_squares[rows] + (1 - _BETAS[1]) * slope**2
        self._weight_means[rows], self._weight_squares[rows] = mean, square
        move = rate * self._rates.weights * (mean / first) / (np.sqrt(square / second) + _TINY)
        self._weights[rows] -= move.astype(np.float32)
