"""What a teacher adds: how similar it finds sentences and passages, as soft targets of the contrastive loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.protocols import Encoder
from retrieval.training.adaptation.corpus import CorpusPassage, split_sentences
from retrieval.training.adaptation.queries import indexed_text
from retrieval.training.adaptation.sums import Bags, IntArray, pack, select
from retrieval.training.table import StaticTable

_AT_ONCE = 32
_TEMPERATURE = 0.05
FEWEST = 64


@dataclass(frozen=True, slots=True, eq=False)
class TeacherBatch:
    """A batch with soft targets; see `Trainer.step`."""

    anchors: Bags
    positives: Bags
    documents: IntArray
    targets: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Sentences and their passages as token ids, with the teacher's vectors of both."""

    anchors: Bags
    positives: Bags
    documents: IntArray
    anchor_vectors: FloatArray
    positive_vectors: FloatArray

    def draw(self, size: int, generator: np.random.Generator) -> TeacherBatch:
        """A batch of at most ``size`` different passages."""
        rows = generator.permutation(len(self.documents))[:size]
        scores = self.anchor_vectors[rows] @ self.positive_vectors[rows].T / _TEMPERATURE
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        targets = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        return TeacherBatch(select(self.anchors, rows), select(self.positives, rows), self.documents[rows], targets)


def take_lessons(
    teacher: Encoder,
    table: StaticTable,
    passages: Sequence[CorpusPassage],
    documents: IntArray,
    rows: IntArray,
    enough: Callable[[int], bool],
) -> Lessons | None:
    """Let the teacher read passages, in the order of ``rows``, until it is ``enough``.

    Args:
        teacher: Any encoder.
        table: Gives the token ids.
        passages: All passages.
        documents: Number of the document of each passage.
        rows: Which passages, in this order.
        enough: Told how many were read; true to stop.

    Returns:
        The lessons, ``None`` when fewer than 64 passages were read.
    """
    sentences: list[str] = []
    texts: list[str] = []
    vectors: list[tuple[FloatArray, FloatArray]] = []
    read = 0
    while read < len(rows) and not enough(read):
        some = [passages[row] for row in rows[read : read + _AT_ONCE]]
        anchors = [max(split_sentences(one.text) or [one.text], key=len) for one in some]
        wholes = [indexed_text(one) for one in some]
        vectors.append((teacher.encode_queries(anchors), teacher.encode_documents(wholes)))
        sentences.extend(anchors)
        texts.extend(wholes)
        read += len(some)
    if read < FEWEST:
        return None
    anchor_ids, positive_ids = pack(table.tokenize(sentences)), pack(table.tokenize(texts))
    full = np.flatnonzero((anchor_ids.lengths > 0) & (positive_ids.lengths > 0))
    left, right = (np.concatenate([pair[side] for pair in vectors])[full] for side in (0, 1))
    return Lessons(select(anchor_ids, full), select(positive_ids, full), documents[rows[:read]][full], left, right)
