"""How many candidates fit into what is left of a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from retrieval.rerankers.speed import together


@dataclass(slots=True)
class Pace:
    """Time spent, and what the next candidates will probably cost.

    Args:
        costs: Of each candidate: milliseconds on one worker where ``measured``, else any unit.
        measured: Whether costs are milliseconds, so that more than one candidate can be begun with.
        workers: Candidates that are read side by side.
        budget: Seconds; infinite without a budget.
        clock: Seconds, never going back.
    """

    costs: Sequence[float]
    measured: bool
    workers: int
    budget: float
    clock: Callable[[], float]
    started: float = field(init=False)
    _recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def affordable(self, start: int, most: int) -> int:
        """How many of the next candidates fit into what is left of the budget, at most ``most``.

        Judged by the slower of the last two batches. Nothing is known before the first: the first candidate is always
        read, and with it as many as fit by the measured speed of the machine.
        """
        waiting = min(most, len(self.costs) - start)
        if math.isinf(self.budget):
            return waiting
        if not self._recent and not self.measured:
            return min(1, waiting)
        left = self.budget - (self.clock() - self.started)
        rate = max(self._recent, default=1e-3)
        size = 0
        while size < waiting and rate * self._cost(start, size + 1) <= left:
            size += 1
        return size if self._recent else max(size, min(1, waiting))

    def note(self, start: int, size: int, seconds: float) -> None:
        """Remember how long the next candidates took; what costs nothing teaches nothing."""
        cost = self._cost(start, size)
        if cost > 0:
            self._recent = [*self._recent[-1:], seconds / cost]

    def _cost(self, start: int, size: int) -> float:
        return together(self.costs[start : start + size], self.workers)
