"""The loop of the second stage: read the best candidates, stop when time is up or the top can no longer change."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, Self, runtime_checkable

import numpy as np

from retrieval.datatypes import Stopped
from retrieval.ordering import scale_to_unit
from retrieval.protocols import Reranker

_logger = logging.getLogger(__name__)

MOST_TWINS = 8
"""Candidates that are read beyond depth and budget, because they are twins of one that was read."""
_PAIR_OVERHEAD = 32
"""What a pair costs before its first character, in characters: special tokens and the call itself."""


@runtime_checkable
class CutsQueries(Protocol):
    """A reranker that can say how much of a long query it reads."""

    def readable_query(self, query: str) -> str:
        """The beginning of the query that the model reads; equal to ``query`` when it reads all of it."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of reading the candidates of one query.

    Args:
        logits: Raw logit of each candidate, ``None`` where it was not read.
        scores: Final score of each candidate, higher is better, in the order of the candidates.
        reranked: How many were read, twins included.
        stopped: ``complete`` (all given texts read), ``budget``, ``settled``, or ``off`` (nothing read).
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


def read_candidates(
    query: str,
    texts: Sequence[str],
    first_stage: Sequence[float],
    reranker: Reranker,
    *,
    first_stage_weight: float,
    top_k: int,
    groups: Sequence[Hashable] | None = None,
    budget_ms: float | None = None,
    batch_size: int = 4,
    counts: Callable[[float], bool] | None = None,
    twins: Sequence[Sequence[int]] = (),
    beyond: Mapping[int, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Reading:
    """Let a cross-encoder read candidates, best first, within a budget.

    The final score is ``w * first + (1 - w) * sigmoid(logit)``, where ``first`` is the first-stage score min-max
    scaled over all candidates. A candidate that was not read counts as if its sigmoid were 0, so it stays in
    first-stage order and never passes a read one that the first stage had before it.

    Reading stops when all texts are read; when no further candidate is expected to fit into the budget, judged by the
    slower of the last two batches (the first batch, then a single candidate, is always read); or when the best
    ``top_k`` groups are settled: no unread text could enter them with a sigmoid of 1. Settling is exact, so the top of
    a smaller ``top_k`` is the prefix of the top of a larger one.

    Then the twins of what was read are read, whatever depth and budget: at most `MOST_TWINS` more, those of the best
    first. The first stage cannot tell them apart, so that which of them was read would be a matter of chance.

    A reranker that raises, or returns something else than one finite logit per text, does not fail the search: nothing
    counts as read, and the warning names the error.

    Args:
        query: The query.
        texts: What to read, best candidate first; the depth is their number.
        first_stage: Scores of all candidates, falling; at least as many as texts. Those beyond are never read.
        reranker: The cross-encoder.
        first_stage_weight: Share ``w`` of the first stage in the final score, from 0 to 1.
        top_k: How many groups the caller will show, at least 1.
        groups: Key of each candidate, of which only the best is shown; ``None`` when each stands for itself.
        budget_ms: Milliseconds for reading, not for loading a model that was not used before; ``None`` for no limit.
        batch_size: Candidates per call of the reranker, at most.
        counts: Whether a candidate with a given logit is good enough to be shown, where unread ones are not shown
            either; ``None`` when all may be.
        twins: Groups of candidates that belong together, as positions; each candidate is in one at most.
        beyond: Texts of the twins that are not among ``texts``, by position; one that is missing is not read.
        clock: Seconds, never going back.

    Raises:
        ValueError: A number is out of range, a first-stage score is not finite or they do not fall, or the sequences do
            not fit together.
    """
    _check(texts, first_stage, groups, first_stage_weight, top_k, budget_ms, batch_size)
    if not texts:
        return Reading.unread(first_stage)
    board = _Board(scale_to_unit(first_stage), groups, first_stage_weight, top_k, counts)
    stopped: Stopped = "complete"
    try:
        # Asked first because it makes a lazy reranker load its model, which the budget does not pay for.
        warning = _query_warning(reranker, query)
        pace = _Pace(query, texts, math.inf if budget_ms is None else budget_ms / 1000, clock)
        while board.read < len(texts):
            size = pace.affordable(board.read, batch_size)
            if not size:
                stopped = "budget"
                break
            board.add(pace.timed(board.read, size, lambda batch: _score(reranker, query, batch)))
            if board.read < len(texts) and board.settled():
                stopped = "settled"
                break
        _read_twins(board, twins, {**dict(enumerate(texts)), **(beyond or {})}, reranker, query, batch_size)
    except Exception as error:
        _logger.warning("the reranker failed, the first-stage order stands", exc_info=True)
        problem = f"{type(error).__name__}: {error}"
        return Reading.unread(first_stage, f"not reranked, {reranker.name} failed with {problem}")
    logits = tuple(board.logits.get(position) for position in range(len(first_stage)))
    return Reading(logits, tuple(board.scores), len(board.logits), stopped, warning)


def _read_twins(
    board: _Board,
    twins: Sequence[Sequence[int]],
    texts: Mapping[int, str],
    reranker: Reranker,
    query: str,
    batch_size: int,
) -> None:
    waiting = []
    for group in twins:
        read = [position for position in group if position in board.logits]
        if read:
            best = min(read, key=lambda position: (-board.scores[position], position))
            unread = sorted(position for position in group if position not in board.logits and position in texts)
            waiting += [(-board.scores[best], best, position) for position in unread]
    chosen = [position for _, _, position in sorted(waiting)[:MOST_TWINS]]
    for start in range(0, len(chosen), batch_size):
        batch = chosen[start : start + batch_size]
        board.place(batch, _score(reranker, query, [texts[position] for position in batch]))


@dataclass(slots=True)
class _Board:
    """Scores so far: final where read, and the lower bound of the final score elsewhere.

    ``read`` is how many were read in their order; twins may stand beyond.
    """

    first: Sequence[float]
    groups: Sequence[Hashable] | None
    weight: float
    top_k: int
    counts: Callable[[float], bool] | None = None
    logits: dict[int, float] = field(default_factory=dict)
    read: int = 0
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
            self.scores[position] += (1 - self.weight) * _sigmoid(logit)
            self.logits[position] = logit

    def settled(self) -> bool:
        """Whether what is not read stays below the best ``top_k`` groups, even with a sigmoid of 1."""
        best: dict[Hashable, float] = {}
        for position, score in enumerate(self.scores):
            if self.counts is not None and not (position < self.read and self.counts(self.logits[position])):
                continue
            group = position if self.groups is None else self.groups[position]
            best[group] = max(score, best.get(group, -math.inf))
        if len(best) < self.top_k:
            return False
        threshold = sorted(best.values(), reverse=True)[self.top_k - 1]
        # First-stage scores fall, so the next candidate has the highest upper bound of all that are not read. Where
        # the threshold is above it, none of those is among the groups that make the threshold.
        return self.scores[self.read] + (1 - self.weight) < threshold


@dataclass(slots=True)
class _Pace:
    """Time spent, and what the next candidates will probably cost."""

    query: str
    texts: Sequence[str]
    budget: float
    clock: Callable[[], float]
    started: float = field(init=False)
    recent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def affordable(self, start: int, batch_size: int) -> int:
        """How many of the next candidates fit into what is left of the budget, at most ``batch_size``."""
        waiting = min(batch_size, len(self.texts) - start)
        if math.isinf(self.budget):
            return waiting
        if not self.recent:
            return 1
        left = self.budget - (self.clock() - self.started)
        size = 0
        while size < waiting and max(self.recent) * self._cost(start, size + 1) <= left:
            size += 1
        return size

    def timed(self, start: int, size: int, score: Callable[[Sequence[str]], list[float]]) -> list[float]:
        """Score the next candidates and remember the seconds per unit of cost."""
        before = self.clock()
        logits = score(self.texts[start : start + size])
        self.recent = [*self.recent[-1:], (self.clock() - before) / self._cost(start, size)]
        return logits

    def _cost(self, start: int, size: int) -> int:
        characters = sum(len(text) for text in self.texts[start : start + size])
        return characters + size * (len(self.query) + _PAIR_OVERHEAD)


def _score(reranker: Reranker, query: str, texts: Sequence[str]) -> list[float]:
    logits = np.asarray(reranker.score(query, texts), dtype=np.float64)
    if logits.shape != (len(texts),):
        raise ValueError(f"{len(texts)} texts got scores of shape {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("a score is not finite")
    return [float(logit) for logit in logits]


def _sigmoid(logit: float) -> float:
    # The form for each sign in which the exponential cannot overflow.
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _query_warning(reranker: Reranker, query: str) -> str | None:
    if not isinstance(reranker, CutsQueries):
        return None
    read = len(reranker.readable_query(query))
    if read >= len(query):
        return None
    return f"the cross-encoder read the first {read} of the {len(query)} characters of the query"


def _check(
    texts: Sequence[str],
    first_stage: Sequence[float],
    groups: Sequence[Hashable] | None,
    weight: float,
    top_k: int,
    budget_ms: float | None,
    batch_size: int,
) -> None:
    if len(texts) > len(first_stage):
        raise ValueError(f"{len(texts)} texts to read, but only {len(first_stage)} first-stage scores")
    if groups is not None and len(groups) != len(first_stage):
        raise ValueError(f"{len(groups)} groups for {len(first_stage)} candidates")
    if any(later > earlier for earlier, later in pairwise(first_stage)):
        raise ValueError("first-stage scores do not fall: candidates come best first")
    if not 0 <= weight <= 1:
        raise ValueError(f"first_stage_weight is from 0 to 1, not {weight}")
    if top_k < 1 or batch_size < 1:
        raise ValueError(f"top_k and batch_size are at least 1, not {top_k} and {batch_size}")
    if budget_ms is not None and not budget_ms > 0:
        raise ValueError(f"budget_ms is above 0, not {budget_ms}")
