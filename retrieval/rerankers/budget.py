"""The loop of the second stage: read the best candidates, stop when time is up or the top can no longer change."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from retrieval.protocols import Reranker
from retrieval.rerankers.board import Reading
from retrieval.rerankers.reader import Reader, ReadsPairs, checked
from retrieval.rerankers.task import EarlyStop, ReadingTask

_logger = logging.getLogger(__name__)

LANES = 4
"""Queries that are read at the same time by `read_together`."""


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
    early_stop: EarlyStop = "exact",
    clock: Callable[[], float] = time.monotonic,
) -> Reading:
    """Let a cross-encoder read candidates, best first, within a budget.

    The final score is ``w * first + (1 - w) * sigmoid(logit)``, where ``first`` is the first-stage score min-max
    scaled over all candidates. A candidate that was not read counts as if its sigmoid were 0, so it stays in
    first-stage order and never passes a read one that the first stage had before it.

    Reading stops when all texts are read; when no further candidate is expected to fit into the budget; or when the
    best ``top_k`` groups are settled: no unread text could enter them with a sigmoid of 1. That is exact, so the top of
    a smaller ``top_k`` is the prefix of the top of a larger one. With a forecast reading also stops when no unread text
    will probably enter the first few groups, as many as it says, whatever ``top_k``: so the prefix stays one.

    What fits into the budget is judged by the slower of the last two batches. At the beginning it is judged by the
    speed of the machine where the reranker knows it (`ReadsPairs`), else one candidate is read to learn it. The first
    candidate is always read.

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
        budget_ms: Milliseconds for reading, not for loading a model or learning the speed of the machine, which are
            done once; ``None`` for no limit. What the reranker remembers costs nothing.
        batch_size: Candidates per call of the reranker, at most.
        counts: Whether a candidate with a given logit is good enough to be shown, where unread ones are not shown
            either; ``None`` when all may be.
        twins: Groups of candidates that belong together, as positions; each candidate is in one at most.
        beyond: Texts of the twins that are not among ``texts``, by position; one that is missing is not read.
        early_stop: When to stop before all is read.
        clock: Seconds, never going back.

    Raises:
        ValueError: A number is out of range, a first-stage score is not finite or they do not fall, or the sequences do
            not fit together.
    """
    task = ReadingTask(
        query,
        texts,
        first_stage,
        first_stage_weight,
        top_k,
        groups,
        budget_ms,
        batch_size,
        counts,
        twins,
        beyond or {},
        early_stop,
    )
    return _read_alone(task, reranker, clock)


def read_together(
    tasks: Iterable[ReadingTask], reranker: Reranker, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Reading]:
    """`read_candidates` for several queries, whose pairs a reranker that can (`ReadsPairs`) reads together.

    A logit depends on its pair alone, so the readings are those of one query at a time. Tasks with a budget are read
    by themselves, so that nobody else's pairs are paid from it.

    Args:
        tasks: Taken as they are needed, a few ahead.
        reranker: The cross-encoder.
        clock: Seconds, never going back.

    Yields:
        One reading for each task, in their order.
    """
    waiting = iter(tasks)
    if not isinstance(reranker, ReadsPairs):
        yield from (_read_alone(task, reranker, clock) for task in waiting)
        return
    lanes: deque[Reader | Reading] = deque()
    while True:
        for task in islice(waiting, LANES - len(lanes)):
            lanes.append(_read_alone(task, reranker, clock) if task.budget_ms else _begun(task, reranker, clock))
        if not lanes:
            return
        _read_a_batch_each([lane for lane in lanes if isinstance(lane, Reader)], reranker, lanes)
        while lanes and isinstance(first := lanes[0], Reading):
            lanes.popleft()
            yield first


def _read_a_batch_each(readers: Sequence[Reader], reranker: ReadsPairs, lanes: deque[Reader | Reading]) -> None:
    """One batch of every query, in one call; those that are done become their readings."""
    wanted = [(reader, positions) for reader in readers if (positions := reader.wanted())]
    try:
        logits = reranker.score_pairs([reader.job(positions) for reader, positions in wanted]) if wanted else []
        for (reader, positions), scores in zip(wanted, logits, strict=True):
            reader.take(positions, checked(scores, len(positions)), 0.0)
    except Exception:
        # One of them failed, and nobody knows which: each by itself, so that the others are read.
        for reader in readers:
            lanes[lanes.index(reader)] = _read_alone(reader.task, reader.reranker, reader.clock)
        return
    for reader in readers:
        if not reader.wanted():
            lanes[lanes.index(reader)] = reader.reading()


def _begun(task: ReadingTask, reranker: Reranker, clock: Callable[[], float]) -> Reader | Reading:
    if not task.texts:
        return Reading.unread(task.first_stage)
    try:
        return Reader(task, reranker, clock)
    except Exception as error:
        return _failed(task, reranker, error)


def _read_alone(task: ReadingTask, reranker: Reranker, clock: Callable[[], float]) -> Reading:
    reader = _begun(task, reranker, clock)
    if isinstance(reader, Reading):
        return reader
    try:
        while positions := reader.wanted():
            before = clock()
            logits = reader.score(positions)
            reader.take(positions, logits, clock() - before)
    except Exception as error:
        return _failed(task, reranker, error)
    return reader.reading()


def _failed(task: ReadingTask, reranker: Reranker, error: Exception) -> Reading:
    _logger.warning("the reranker failed, the first-stage order stands", exc_info=error)
    problem = f"{type(error).__name__}: {error}"
    return Reading.unread(task.first_stage, f"not reranked, {reranker.name} failed with {problem}")
