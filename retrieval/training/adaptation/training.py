"""The training run: which passages make a batch, how long it goes, how the learning rate falls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.training.adaptation.corpus import TokenizedCorpus
from retrieval.training.adaptation.pairs import PairShares, draw_pairs
from retrieval.training.adaptation.progress import Clock
from retrieval.training.adaptation.sums import IntArray, select
from retrieval.training.adaptation.teacher import Lessons
from retrieval.training.adaptation.trainer import Rates, Trainer

_WARMUP = 20
_FINAL = 0.05
_REPORT_EVERY = 10
_LESSON_EVERY = 3
_TIME_SHARE = 0.75  # of the limit; the rest is for the check


@dataclass(frozen=True, slots=True)
class Course:
    """How training goes over a corpus.

    Args:
        steps: Fixed number of steps; ``None`` for what the corpus needs and the clock allows.
        batch_size: Passages a step; every other passage of the batch is a negative.
        dimensions: The loss is the mean over these numbers of leading dimensions.
        learning_rate: See `Rates`.
        temperature: See `Rates`.
        shares: Which parts of passages become anchors.
    """

    steps: int | None
    batch_size: int
    dimensions: tuple[int, ...]
    learning_rate: float
    temperature: float
    shares: PairShares


def train(
    start: FloatArray,
    corpus: TokenizedCorpus,
    rows: IntArray,
    course: Course,
    lessons: Lessons | None,
    clock: Clock,
    generator: np.random.Generator,
) -> tuple[FloatArray, int]:
    """Train the vectors on some passages of a corpus.

    Args:
        start: Starting vectors (vocabulary, dim).
        corpus: The passages.
        rows: Those to train on.
        course: See `Course`.
        lessons: What a teacher said, ``None`` without one.
        clock: Ends the training when there is no fixed number of steps.
        generator: All draws.

    Returns:
        The trained vectors and the number of steps.
    """
    size = min(course.batch_size, len(rows))
    pieces = len(corpus.kinds) / len(corpus)
    wanted = course.steps or planned_steps(len(rows), pieces, size)
    rates = Rates(vectors=course.learning_rate, pull=_pull(len(rows) * pieces), temperature=course.temperature)
    trainer = Trainer(start, rates, course.dimensions)
    rarity = np.log((len(corpus.tokens) + 1) / (corpus.counts() + 1)).astype(np.float32)
    batches = _batches(rows, size, generator)
    since, losses, step, done = clock.seconds, list[float](), 0, 0.0
    while done < 1:
        rate = min(1.0, (step + 1) / _WARMUP) * (1 - (1 - _FINAL) * done)
        step += 1
        if lessons is not None and step % _LESSON_EVERY == 0:
            lesson = lessons.draw(size, generator)
            loss = trainer.step(lesson.anchors, lesson.positives, lesson.documents, rate, lesson.targets)
        else:
            batch = next(batches)
            anchors, positives = draw_pairs(corpus, batch, rarity, course.shares, generator)
            full = np.flatnonzero((anchors.lengths > 0) & (positives.lengths > 0))
            loss = np.nan
            if len(full) > 1:
                loss = trainer.step(select(anchors, full), select(positives, full), corpus.documents[batch[full]], rate)
        losses.append(loss)
        done = step / wanted if course.steps else max(step / wanted, clock.share(since, _TIME_SHARE))
        if step % _REPORT_EVERY == 0 or done >= 1:
            clock.report("training", step, wanted, loss=None if np.isnan(losses).all() else float(np.nanmean(losses)))
            losses.clear()
    return trainer.vectors, step


def planned_steps(passages: int, pieces: float, batch_size: int) -> int:
    """Steps that a corpus needs: long passages have more to ask, a small corpus is gone over more often.

    Args:
        passages: Passages to train on.
        pieces: Sentences, titles and headings of a passage, on average.
        batch_size: Passages a step.
    """
    passes = min(40.0, max(6.0, 5.0 * pieces))
    return max(40, round(passes * passages / batch_size))


def _pull(pieces: float) -> float:
    """The start weighs as much as a fixed number of observations: it holds a small corpus and lets a large one go."""
    return min(0.03, 100.0 / max(1.0, pieces))


def _batches(rows: IntArray, size: int, generator: np.random.Generator) -> Iterator[IntArray]:
    while True:
        order = generator.permutation(rows)
        yield from (order[at : at + size] for at in range(0, len(order) - size + 1, size))
