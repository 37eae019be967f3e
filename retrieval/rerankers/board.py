"""The scores of the candidates of one query while they are read, and whether reading on can change the top."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from retrieval.datatypes import Stopped
from retrieval.rerankers.forecast import LikelySettled


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading the candidates of one query.

    Args:
        logits: Raw logit of each candidate, ``None`` where it was not read.
        scores: Final score of each candidate, higher is better, in the order of the candidates.
        reranked: How many were read, twins included.
        stopped: ``complete`` (all given texts read), ``budget``, ``settled``, ``likely`` (settled by a forecast), or
            ``off`` (nothing read).
        warning: Sentence for a person when something was not as asked for, ``None`` otherwise.
    """

    logits: tuple[float | None, ...]
    scores: tuple[float, ...]
    reranked: int
    stopped: Stopped
    warning: str | None = None

    @classmethod
    def unread(cls, first_stage: Sequence[float], warning: str | None = None) -> Self:
        """The first stage as it stands: its scores unchanged and nothing read.

        Args:
            first_stage: Scores of the first stage.
            warning: Why nothing was read, ``None`` when that was asked for.
        """
        return cls((None,) * len(first_stage), tuple(first_stage), 0, "off", warning)


@dataclass(slots=True)
class Board:
    """Scores so far: final where read, and the lower bound of the final score elsewhere.

    Args:
        first: First-stage scores, scaled to 0..1, falling.
        groups: Key of each candidate, of which only the best is shown; ``None`` when each stands for itself.
        weight: Share of the first stage in the final score.
        top_k: How many groups are shown.
        counts: Whether a candidate with a given logit may be shown, where unread ones may not; ``None`` when all may.
    """

    first: Sequence[float]
    groups: Sequence[Hashable] | None
    weight: float
    top_k: int
    counts: Callable[[float], bool] | None = None
    logits: dict[int, float] = field(default_factory=dict)
    read: int = 0
    """How many were read in their order; twins may stand beyond."""
    scores: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.scores = [self.weight * score for score in self.first]

    def add(self, logits: Sequence[float]) -> None:
        """Note the next candidates in their order."""
        self.place(range(self.read, self.read + len(logits)), logits)
        self.read += len(logits)

    def place(self, positions: Sequence[int], logits: Sequence[float]) -> None:
        """Note candidates wherever they stand."""
        for position, logit in zip(positions, logits, strict=True):
            self.scores[position] += (1 - self.weight) * sigmoid(logit)
            self.logits[position] = logit

    def settled(self) -> bool:
        """Whether what is not read stays below the best ``top_k`` groups, even with a sigmoid of 1."""
        threshold, _ = self._bar(self.top_k)
        # First-stage scores fall, so the next candidate has the highest upper bound of all that are not read. Where
        # the threshold is above it, none of those is among the groups that make the threshold.
        return self.scores[self.read] + (1 - self.weight) < threshold

    def likely_settled(self, rule: LikelySettled, upto: int) -> bool:
        """Whether the candidates from ``read`` to ``upto`` will probably leave the first groups as they are."""
        threshold, best = self._bar(rule.top)
        if threshold == -math.inf or self.weight == 1:
            return False
        unread = range(self.read, upto)
        bars = [max(threshold, best.get(self._group(position), -math.inf)) for position in unread]
        needed = (np.array(bars) - [self.scores[position] for position in unread]) / (1 - self.weight)
        read = [self.logits[position] for position in range(self.read)]
        return rule.forecast.chance(needed, self.first[self.read : upto], read) <= rule.error

    def _bar(self, top: int) -> tuple[float, dict[Hashable, float]]:
        """The score of the last of the first groups, below all where there are too few; and the best of each group."""
        best: dict[Hashable, float] = {}
        for position, score in enumerate(self.scores):
            if self.counts is not None and not (position < self.read and self.counts(self.logits[position])):
                continue
            group = self._group(position)
            best[group] = max(score, best.get(group, -math.inf))
        if len(best) < top:
            return -math.inf, best
        return sorted(best.values(), reverse=True)[top - 1], best

    def _group(self, position: int) -> Hashable:
        return position if self.groups is None else self.groups[position]


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), in the form for each sign in which the exponential cannot overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
