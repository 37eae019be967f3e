"""Whether reading on would change the top: what is to be expected of candidates that were not read yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

_RECENT = 4
_NEAREST = 1e-6


@dataclass(frozen=True, slots=True)
class Forecast:
    """How likely an unread candidate gets the logit that it needs, a logistic function fitted on development sets.

    ``sigmoid(intercept + needed * logit + first_stage * first + recent * mean)``, where ``logit`` is what it needs,
    ``first`` its first-stage score scaled to 0..1, and ``mean`` that of the last four logits read.

    Args:
        intercept: Finite.
        needed: Below 0: the more it needs, the less likely.
        first_stage: Finite.
        recent: Finite.
        fitted_on: What it was fitted on and how, for people.

    Raises:
        ValueError: A number is out of range.
    """

    intercept: float
    needed: float
    first_stage: float
    recent: float
    fitted_on: str

    def __post_init__(self) -> None:
        numbers = (self.intercept, self.needed, self.first_stage, self.recent)
        if not (all(math.isfinite(number) for number in numbers) and self.needed < 0):
            raise ValueError(f"the numbers of a forecast are finite and 'needed' is below 0, not {numbers}")

    def chance(self, needed: ArrayLike, first: ArrayLike, read: Sequence[float]) -> float:
        """The probability that at least one of the unread candidates gets the sigmoid that it needs.

        Args:
            needed: Sigmoid above which each would change the top; 1 and more is impossible, 0 and less certain.
            first: First-stage score of each, scaled to 0..1.
            read: Logits read so far, in their order, at least one.
        """
        sigmoids = np.asarray(needed, dtype=np.float64)
        inside = np.clip(sigmoids, _NEAREST, 1 - _NEAREST)
        logits = np.log(inside / (1 - inside))
        mean = float(np.mean(read[-_RECENT:]))
        exponent = self.intercept + self.needed * logits + self.recent * mean
        exponent = np.clip(exponent + self.first_stage * np.asarray(first, dtype=np.float64), -500, 500)
        chances = 1 / (1 + np.exp(-exponent))
        chances = np.where(sigmoids >= 1, 0.0, np.where(sigmoids <= 0, 1.0, chances))
        return float(1 - np.prod(1 - chances))

    def to_json(self) -> dict[str, Any]:
        """A mapping of JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` made.

        Raises:
            KeyError: A key is missing.
            TypeError: A value is no number.
            ValueError: A value is not usable.
        """
        numbers = {name: float(content[name]) for name in ("intercept", "needed", "first_stage", "recent")}
        return cls(**numbers, fitted_on=str(content["fitted_on"]))


@dataclass(frozen=True, slots=True)
class LikelySettled:
    """Stop reading when the first groups will probably not change any more.

    How many hits are asked for makes no difference, so that a longer result begins with the shorter one.

    Args:
        forecast: Of the cross-encoder.
        error: Chance of a change that is accepted, above 0 and below 1.
        top: How many groups are looked at, at least 1.

    Raises:
        ValueError: A number is out of range.
    """

    forecast: Forecast
    error: float
    top: int = 5

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"at least 1 group is looked at, not {self.top}")
        if not 0 < self.error < 1:
            raise ValueError(f"the accepted chance of a change is above 0 and below 1, not {self.error}")
