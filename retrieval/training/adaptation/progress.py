"""How far an adaptation is, and how much of its time is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdaptProgress:
    """How far an adaptation is.

    Args:
        stage: ``reading``, ``training``, ``checking``, ``encoding`` or ``switching``.
        done: Passages, steps or queries done.
        of: Of so many.
        loss: Mean training loss since the last report, ``None`` outside of training.
        check: Mean change of nDCG@10 over the pseudo-queries, ``None`` before it is known.
        seconds: Since the start.
    """

    stage: str
    done: int
    of: int
    loss: float | None
    check: float | None
    seconds: float


class Clock:
    """Time since the start, and reports.

    Args:
        limit: Seconds that the whole may take.
        on_progress: Told how far it is.
    """

    def __init__(self, limit: float, on_progress: Callable[[AdaptProgress], None] | None) -> None:
        self._start = time.monotonic()
        self._limit = limit
        self._on_progress = on_progress

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def share(self, since: float, part: float) -> float:
        """How much of the time between ``since`` seconds and ``part`` of the limit has passed, at least 0."""
        room = self._limit * part - since
        return (self.seconds - since) / room if room > 0 else 1.0

    def report(self, stage: str, done: int, of: int, loss: float | None = None, check: float | None = None) -> None:
        """Tell the caller."""
        if self._on_progress is not None:
            self._on_progress(AdaptProgress(stage, done, of, loss, check, self.seconds))
