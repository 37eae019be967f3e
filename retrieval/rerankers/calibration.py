"""From logits to probabilities, and from probabilities to a point where to begin to trust.

The sigmoid of a logit is not a probability. A calibration is a rising function fitted on labels that makes it one, for
texts like those that it was fitted on. All of it is float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

DoubleArray = NDArray[np.float64]

_MOST_STEPS = 100


@dataclass(frozen=True, slots=True)
class PlattCalibration:
    """Probability as a logistic function of the logit.

    Args:
        slope: Above 0.
        intercept: Finite.

    Raises:
        ValueError: A number is out of range.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (self.slope > 0 and math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise ValueError(f"slope is above 0 and intercept finite, not {self.slope} and {self.intercept}")

    def probability(self, logits: ArrayLike) -> DoubleArray:
        """Probabilities, float64 of the shape of ``logits``."""
        return _sigmoid(self.slope * np.asarray(logits, dtype=np.float64) + self.intercept)


@dataclass(frozen=True, slots=True)
class IsotonicCalibration:
    """Probability as straight lines between knots; level beyond the first and the last.

    Args:
        logits: Where the knots are, rising.
        probabilities: Their heights, from 0 to 1, never falling.

    Raises:
        ValueError: The knots are none, not finite, or out of order.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        at, heights = np.asarray(self.logits, np.float64), np.asarray(self.probabilities, np.float64)
        if not len(at) or at.shape != heights.shape or not np.isfinite(at).all():
            raise ValueError(f"{at.size} logits and {heights.size} probabilities are not the knots of a calibration")
        if not ((np.diff(at) > 0).all() and (np.diff(heights) >= 0).all() and heights[0] >= 0 and heights[-1] <= 1):
            raise ValueError("the logits of a calibration rise, and its probabilities do not fall, from 0 to 1")

    def probability(self, logits: ArrayLike) -> DoubleArray:
        """Probabilities, float64 of the shape of ``logits``."""
        at = np.asarray(logits, dtype=np.float64)
        return np.asarray(np.interp(at, self.logits, self.probabilities), dtype=np.float64).reshape(at.shape)


Calibration = PlattCalibration | IsotonicCalibration


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where to begin to trust.

    Args:
        target: Precision that was asked for.
        probability: The smallest probability that is trusted.
        precision: Share of what reaches it that is right, on the labels of the fit.
        recall: Share of what is right that reaches it, on the labels of the fit.
    """

    target: float
    probability: float
    precision: float
    recall: float

    def to_json(self) -> dict[str, float]:
        """A mapping of JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is no number.
            ValueError: A value is no number, or not from 0 to 1.
            OverflowError: A value is beyond any float.
        """
        values = {field.name: float(content[field.name]) for field in fields(cls)}
        for name, value in values.items():
            if not -1e-9 <= value <= 1 + 1e-9:
                raise ValueError(f"{name} of a threshold is from 0 to 1, not {value}")
        return cls(**values)


def fit_platt(logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> PlattCalibration:
    """Fit a logistic function by its likelihood (Newton's method, float64).

    Labels count as a little less than certain, so that perfectly separated ones still have a finite slope.

    Args:
        logits: ``(n,)``.
        labels: ``(n,)``, true where the text answers the query.
        weights: ``(n,)``, how many labels each stands for, 0 or more; ``None`` for 1.

    Raises:
        ValueError: The arrays do not fit together, hold something else than finite numbers, one of the two labels
            does not occur, or higher logits are not better.

    Source:
        Platt 1999; Lin, Lin, Weng 2007, "A note on Platt's probabilistic outputs for support vector machines".
    """
    x, y, w = _checked(logits, labels, weights)
    positive, negative = float(w[y].sum()), float(w[~y].sum())
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    centre, scale = float(np.average(x, weights=w)), max(float(np.std(x)), 1e-12)
    z = (x - centre) / scale
    parameters = np.array([0.0, math.log((positive + 1) / (negative + 1))])
    design = np.stack([z, np.ones_like(z)], axis=1)
    for _ in range(_MOST_STEPS):
        probability = _sigmoid(design @ parameters)
        gradient = design.T @ (w * (probability - target))
        curvature = (design * (w * probability * (1 - probability))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.asarray(np.linalg.solve(curvature, gradient), dtype=np.float64)
        share = _step_length(design, target, w, parameters, step, float(gradient @ step))
        parameters = parameters - share * step
        if float(np.abs(share * step).max()) < 1e-10:
            break
    slope, intercept = parameters[0] / scale, parameters[1] - parameters[0] * centre / scale
    if slope <= 0:
        raise ValueError(f"higher logits are not better here (slope {slope:.3g}); is a label the wrong way round?")
    return PlattCalibration(float(slope), float(intercept))


def fit_isotonic(logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> IsotonicCalibration:
    """Fit the rising function that is closest to the labels in the mean square (pool adjacent violators, float64).

    It needs more labels than `fit_platt`, some thousands, and then follows any shape.

    Args:
        logits: ``(n,)``.
        labels: ``(n,)``, true where the text answers the query.
        weights: ``(n,)``, how many labels each stands for, 0 or more; ``None`` for 1.

    Raises:
        ValueError: The arrays do not fit together, hold something else than finite numbers, or one of the two labels
            does not occur.

    Source:
        Zadrozny and Elkan 2002, "Transforming classifier scores into accurate multiclass probability estimates".
    """
    x, y, w = _checked(logits, labels, weights)
    at, place = np.unique(x[w > 0], return_inverse=True)
    weight = np.bincount(place, weights=w[w > 0])
    mean = np.bincount(place, weights=w[w > 0] * y[w > 0]) / weight
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many logits
    for height, mass in zip(mean.tolist(), weight.tolist(), strict=True):
        block = (height, mass, 1)
        while blocks and blocks[-1][0] >= block[0]:
            before = blocks.pop()
            total = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / total, total, before[2] + block[2])
        blocks.append(block)
    knots: list[tuple[float, float]] = []
    start = 0
    for height, _, size in blocks:
        ends = dict.fromkeys((float(at[start]), float(at[start + size - 1])))
        knots += [(end, min(max(height, 0.0), 1.0)) for end in ends]
        start += size
    return IsotonicCalibration(tuple(knot[0] for knot in knots), tuple(knot[1] for knot in knots))


def threshold_for_precision(
    probabilities: ArrayLike, labels: ArrayLike, target: float, weights: ArrayLike | None = None
) -> Threshold:
    """The smallest probability from which on everything together is right often enough.

    Args:
        probabilities: ``(n,)``.
        labels: ``(n,)``, true where it is right.
        target: Precision wanted, above 0 and at most 1.
        weights: ``(n,)``, how many labels each stands for, 0 or more; ``None`` for 1.

    Raises:
        ValueError: The arrays do not fit together, the target is out of range, or no threshold reaches it; the message
            says what can be reached.
    """
    if not 0 < target <= 1:
        raise ValueError(f"a precision is above 0 and at most 1, not {target}")
    p, y, w = _checked(probabilities, labels, weights)
    falling = np.argsort(-p, kind="stable")
    p, y, w = p[falling], y[falling], w[falling]
    mass, right = np.cumsum(w), np.cumsum(w * y)
    # Equal probabilities stand or fall together, so only the last of each counts.
    last = np.append(p[1:] != p[:-1], True) & (mass > 0)
    precision = np.divide(right, mass, out=np.zeros_like(mass), where=mass > 0)
    reached = np.flatnonzero(last & (precision >= target - 1e-12))
    if not len(reached):
        raise ValueError(f"no threshold has a precision of {target}; the best has {precision[last].max():.3f}")
    chosen = int(reached[-1])
    return Threshold(target, float(p[chosen]), float(precision[chosen]), float(right[chosen] / right[-1]))


def _checked(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[DoubleArray, NDArray[np.bool_], DoubleArray]:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or y.shape != x.shape or w.shape != x.shape:
        raise ValueError(f"scores, labels and weights are rows of one length, not {x.shape}, {y.shape} and {w.shape}")
    if not (np.isfinite(x).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError("scores are finite, and weights finite and not below 0")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("a label is true or false")
    truth = y.astype(bool)
    if not (w[truth].sum() > 0 and w[~truth].sum() > 0):
        raise ValueError("labels of both kinds are needed, with weight: some true, some false")
    return x, truth, w


def _sigmoid(x: DoubleArray) -> DoubleArray:
    # exp of a negative number only, which cannot overflow.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _loss(logit: DoubleArray, target: DoubleArray, weight: DoubleArray) -> float:
    return float(np.sum(weight * (np.logaddexp(0, logit) - target * logit)))


def _step_length(
    design: DoubleArray,
    target: DoubleArray,
    weight: DoubleArray,
    parameters: DoubleArray,
    step: DoubleArray,
    fall: float,
) -> float:
    """Half a Newton step as often as it takes for the loss to fall as it should."""
    before, share = _loss(design @ parameters, target, weight), 1.0
    while share > 1e-10 and _loss(design @ (parameters - share * step), target, weight) > before - 1e-4 * share * fall:
        share /= 2
    return share
