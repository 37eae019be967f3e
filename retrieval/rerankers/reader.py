"""One query while a cross-encoder reads for it: what is wanted next, and what became of what was read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from retrieval.datatypes import FloatArray, Stopped
from retrieval.ordering import scale_to_unit
from retrieval.protocols import Reranker
from retrieval.rerankers.board import Board, Reading
from retrieval.rerankers.cross_encoder import TokenPairs
from retrieval.rerankers.pace import Pace
from retrieval.rerankers.speed import ReadingSpeed
from retrieval.rerankers.task import ReadingTask

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


@runtime_checkable
class ReadsPairs(Protocol):
    """A reranker that makes pairs ready once, reads pairs of several queries together, and knows how long it takes."""

    @property
    def workers(self) -> int: ...

    def speed(self) -> ReadingSpeed: ...

    def prepare(self, query: str, texts: Sequence[str], *, timed: bool = False) -> TokenPairs: ...

    def score_pairs(self, jobs: Sequence[tuple[TokenPairs, Sequence[int]]]) -> list[FloatArray]: ...


class Reader:
    """One query while it is read: which positions are wanted next, and what became of those before."""

    def __init__(self, task: ReadingTask, reranker: Reranker, clock: Callable[[], float]) -> None:
        self.task, self.reranker, self.clock = task, reranker, clock
        self._texts = {**dict(enumerate(task.texts)), **task.beyond}
        self._board = Board(
            scale_to_unit(task.first_stage), task.groups, task.first_stage_weight, task.top_k, task.counts
        )
        self._stopped: Stopped | None = None
        self._twins: list[int] | None = None
        # Asked first because it makes a lazy reranker load its model, which the budget does not pay for.
        self._warning = _query_warning(reranker, task.query)
        timed = task.budget_ms is not None
        if timed and isinstance(reranker, ReadsPairs):
            reranker.speed()
        budget = math.inf if task.budget_ms is None else task.budget_ms / 1000
        started = clock()
        self._pairs: TokenPairs | None = None
        self._rows = {position: row for row, position in enumerate(self._texts)}
        if isinstance(reranker, ReadsPairs):
            self._pairs = reranker.prepare(task.query, list(self._texts.values()), timed=timed)
            costs = self._pairs.milliseconds[: len(task.texts)] or [0.0] * len(task.texts)
            self._pace = Pace(costs, timed, reranker.workers, budget, clock)
        else:
            fixed = len(task.query) + _PAIR_OVERHEAD
            self._pace = Pace([len(text) + fixed for text in task.texts], False, 1, budget, clock)
        self._pace.started = started

    def wanted(self) -> list[int]:
        """The positions that are to be read next; none when it is done. Asking twice changes nothing."""
        board, task = self._board, self.task
        if self._stopped is None:
            if board.read == len(task.texts):
                self._stopped = "complete"
            elif size := self._pace.affordable(board.read, task.batch_size):
                return list(range(board.read, board.read + size))
            else:
                self._stopped = "budget"
        if self._twins is None:
            self._twins = _unread_twins(board, task.twins, self._texts)
        return self._twins[: task.batch_size]

    def take(self, positions: Sequence[int], logits: Sequence[float], seconds: float) -> None:
        """Note the logits of the positions that were wanted."""
        board, task = self._board, self.task
        if self._stopped is not None and self._twins is not None:
            board.place(positions, logits)
            self._twins = self._twins[len(positions) :]
            return
        self._pace.note(board.read, len(positions), seconds)
        board.add(logits)
        if task.early_stop is None or board.read == len(task.texts):
            return
        if board.settled():
            self._stopped = "settled"
        elif task.early_stop != "exact" and board.likely_settled(task.early_stop, len(task.texts)):
            self._stopped = "likely"

    def score(self, positions: Sequence[int]) -> list[float]:
        """Logits of some positions, read now."""
        if self._pairs is not None and isinstance(self.reranker, ReadsPairs):
            return checked(self.reranker.score_pairs([self.job(positions)])[0], len(positions))
        texts = [self._texts[position] for position in positions]
        return checked(self.reranker.score(self.task.query, texts), len(positions))

    def job(self, positions: Sequence[int]) -> tuple[TokenPairs, list[int]]:
        """What `ReadsPairs` takes for some positions."""
        assert self._pairs is not None
        return self._pairs, [self._rows[position] for position in positions]

    def reading(self) -> Reading:
        """What came of it so far."""
        board = self._board
        logits = tuple(board.logits.get(position) for position in range(len(board.scores)))
        return Reading(logits, tuple(board.scores), len(board.logits), self._stopped or "complete", self._warning)


def _unread_twins(board: Board, twins: Sequence[Sequence[int]], texts: Mapping[int, str]) -> list[int]:
    waiting = []
    for group in twins:
        read = [position for position in group if position in board.logits]
        if read:
            best = min(read, key=lambda position: (-board.scores[position], position))
            unread = sorted(position for position in group if position not in board.logits and position in texts)
            waiting += [(-board.scores[best], best, position) for position in unread]
    return [position for _, _, position in sorted(waiting)[:MOST_TWINS]]


def checked(scores: FloatArray, expected: int) -> list[float]:
    """Logits as floats.

    Raises:
        ValueError: There are others than expected, or one is not finite.
    """
    logits = np.asarray(scores, dtype=np.float64)
    if logits.shape != (expected,):
        raise ValueError(f"{expected} texts got scores of shape {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("a score is not finite")
    return [float(logit) for logit in logits]


def _query_warning(reranker: Reranker, query: str) -> str | None:
    if not isinstance(reranker, CutsQueries):
        return None
    read = len(reranker.readable_query(query))
    if read >= len(query):
        return None
    return f"the cross-encoder read the first {read} of the {len(query)} characters of the query"
