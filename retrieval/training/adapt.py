"""Unsupervised adaptation: the static model learns the words of a corpus from the corpus itself.

A part of a passage (a sentence, the title, a few rare words) asks for the rest of it; the vectors and the weights of
the tokens that the corpus uses are trained so that it is found. Passages that were held out then tell whether search
got better, and how much the static arm may say in the fusion with BM25. Needs numpy and scipy, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval.protocols import Encoder, SparseEncoder
from retrieval.training.adaptation.check import CheckRow, Pool
from retrieval.training.adaptation.corpus import CorpusPassage, TokenizedCorpus, tokenize_corpus
from retrieval.training.adaptation.pairs import PairShares
from retrieval.training.adaptation.progress import AdaptProgress, Clock
from retrieval.training.adaptation.queries import count_words, indexed_text, pseudo_queries
from retrieval.training.adaptation.sums import IntArray, require_scipy
from retrieval.training.adaptation.teacher import Lessons, take_lessons
from retrieval.training.adaptation.training import Course, train
from retrieval.training.adaptation.verdict import judge
from retrieval.training.table import StaticTable

__all__ = ["AdaptProgress", "AdaptSettings", "Adaptation", "CheckRow", "CorpusPassage", "adapt"]

FEWEST_PASSAGES = 50
_POOL = 20_000
_POOL_A_SECOND = 100
_HELD_OUT = 600
_TEACHER_PASSAGES = 4096
_TEACHER_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """How a static model is adapted.

    Args:
        seconds: Time limit of reading, training and checking (not of re-encoding).
        passages: At most so many are meant to be read; the caller samples, uniformly by seed.
        dimensions: The loss is the mean over these numbers of leading dimensions; those that the model does not have
            are left out, and all dimensions of the model always count.
        seed: Held-out passages, order of the passages, anchors.
        steps: Training steps; ``None`` for what the corpus needs within ``seconds``. With a number, the result is
            the same in every run.
        batch_size: Passages a step; every other passage of the batch is a negative.
        learning_rate: Of the vectors, in parts of the root mean square of the table's entries.
        temperature: Cosines are divided by it.
        shares: Which parts of passages become anchors.

    Raises:
        ValueError: A number is out of its range.
    """

    seconds: float = 150.0
    passages: int = 200_000
    dimensions: tuple[int, ...] = (256, 128, 64, 32)
    seed: int = 0
    steps: int | None = None
    batch_size: int = 512
    learning_rate: float = 0.03
    temperature: float = 0.05
    shares: PairShares = field(default_factory=PairShares)

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds is more than 0, not {self.seconds}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is at least 1 or None, not {self.steps}")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is at least 2, not {self.batch_size}")
        if not 0.02 <= self.temperature <= 1:
            raise ValueError(f"temperature is 0.02 to 1, not {self.temperature}")


@dataclass(frozen=True, slots=True, eq=False)
class Adaptation:
    """What adaptation found.

    Args:
        table: The adapted table, also when the check refused it.
        dense_weight: Weight of the static arm in min-max fusion for this corpus, with ``table``.
        start_weight: The same with the starting table.
        rows: The self-check.
        accepted: False when the check showed a loss: keep the starting table.
        reason: One sentence for a person.
        steps: Training steps.
        passages: Passages read.
        seconds: Time taken.
    """

    table: StaticTable
    dense_weight: float
    start_weight: float
    rows: tuple[CheckRow, ...]
    accepted: bool
    reason: str
    steps: int
    passages: int
    seconds: float


def adapt(
    table: StaticTable,
    passages: Sequence[CorpusPassage],
    settings: AdaptSettings = AdaptSettings(),
    *,
    sparse: SparseEncoder,
    teacher: Encoder | None = None,
    on_progress: Callable[[AdaptProgress], None] | None = None,
) -> Adaptation:
    """Train a static model on the passages of a corpus, without labels, and check it on held-out pseudo-queries.

    Tokens that the corpus does not have keep their vectors to the last bit.

    Args:
        table: Where to start; it is not changed.
        passages: Passages of the corpus, or a uniform sample of them.
        settings: See `AdaptSettings`.
        sparse: The BM25 arm, for the check of the hybrid and for the weight of the fusion.
        teacher: An encoder whose similarities are learned as well, read for at most 40 % of the time; ``None`` to
            learn from the corpus alone.
        on_progress: Told how far it is.

    Raises:
        ValueError: There are fewer than 50 passages with at least four tokens that the model knows, or the table
            holds no vectors or values that are not finite.
        MissingExtraError: scipy is not installed.

    Source:
        Inverse cloze task, https://arxiv.org/abs/1906.00300; in-batch negatives and Matryoshka in `contrast`.
    """
    require_scipy()
    clock = Clock(settings.seconds, on_progress)
    clock.report("reading", 0, len(passages))
    corpus = _read(table, passages)
    clock.report("reading", len(passages), len(passages))
    generator = np.random.default_rng(settings.seed)
    order = generator.permutation(len(passages))
    held_out = min(_HELD_OUT, max(len(passages) // 8, min(50, len(passages) // 3)))
    trained_on = order[held_out:]
    trained_on = trained_on[np.diff(corpus.bounds)[trained_on] >= 2]
    lessons = None
    if teacher is not None:
        lessons = _ask(teacher, table, passages, corpus, trained_on, settings, clock)
    vectors, steps = train(table.vectors, corpus, trained_on, _course(table, settings), lessons, clock, generator)

    shown = min(_POOL, max(2 * held_out, int(_POOL_A_SECOND * settings.seconds)))
    pool = _pool(table, passages, corpus, order[:shown], held_out, settings.seed, sparse)
    clock.report("checking", 0, len(pool.kinds))
    judged = judge(pool, table, table.with_vectors(vectors), settings.seed)
    clock.report("checking", len(pool.kinds), len(pool.kinds), check=judged.change)
    return Adaptation(
        judged.table,
        judged.dense_weight,
        judged.start_weight,
        judged.rows,
        judged.accepted,
        judged.reason,
        steps,
        len(passages),
        clock.seconds,
    )


def _read(table: StaticTable, passages: Sequence[CorpusPassage]) -> TokenizedCorpus:
    if not np.isfinite(table.vectors).all() or not table.vectors.any():
        raise ValueError("the table to adapt has no vectors, or values that are not finite; open a whole model")
    corpus = tokenize_corpus(table, passages)
    usable = int((np.diff(corpus.bounds) >= 4).sum())
    if usable < FEWEST_PASSAGES:
        raise ValueError(
            f"adaptation needs at least {FEWEST_PASSAGES} passages with four known tokens, got {usable} "
            f"of {len(passages)}; ingest more documents"
        )
    return corpus


def _course(table: StaticTable, settings: AdaptSettings) -> Course:
    width = table.vectors.shape[1]
    dimensions = (width, *(dim for dim in sorted(set(settings.dimensions), reverse=True) if 0 < dim < width))
    return Course(
        settings.steps, settings.batch_size, dimensions, settings.learning_rate, settings.temperature, settings.shares
    )


def _ask(
    teacher: Encoder,
    table: StaticTable,
    passages: Sequence[CorpusPassage],
    corpus: TokenizedCorpus,
    rows: IntArray,
    settings: AdaptSettings,
    clock: Clock,
) -> Lessons | None:
    most = min(_TEACHER_PASSAGES, len(rows))
    since = clock.seconds

    def enough(read: int) -> bool:
        clock.report("reading", read, most)
        return read >= most or (settings.steps is None and clock.share(since, _TEACHER_SHARE) >= 1)

    return take_lessons(teacher, table, passages, corpus.documents, rows[:most], enough)


def _pool(
    table: StaticTable,
    passages: Sequence[CorpusPassage],
    corpus: TokenizedCorpus,
    shown: IntArray,
    held_out: int,
    seed: int,
    sparse: SparseEncoder,
) -> Pool:
    pool = [passages[row] for row in shown]
    queries = pseudo_queries(pool, range(held_out), count_words(one.text for one in pool), seed)
    if not queries:
        raise ValueError("no held-out passage has a sentence of four words, so that adaptation could not be checked")
    return Pool(table, [indexed_text(one) for one in pool], corpus.documents[shown], queries, sparse)
