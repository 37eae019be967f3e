"""Make a static model out of a sentence transformer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.datatypes import FloatArray
from retrieval.training.static.vocabulary import count_words, frequent_words, keep_tokens
from retrieval.training.table import StaticTable
from retrieval.training.teacher import Teacher

Vocabulary = Literal["teacher", "both", "corpus"]
Weighting = Literal["zipf", "corpus"]
Corpus = Callable[[], Iterable[str]]
"""Gives the texts of a corpus, from the beginning each time it is called."""
Progress = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and of how many (0: not known)."""


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """How a sentence transformer becomes a token table.

    Args:
        dim: Principal components that are kept, 2 to the width of the teacher.
        sif_coefficient: Weight of a token is ``a / (a + p)`` with ``p`` its probability; smaller damps frequent tokens
            more.
        normalize: Scale the table so that the root mean square of its entries is 1: learning rates then mean the same
            for every teacher.
        vocabulary: The ``teacher``'s; its tokens and frequent words of the corpus (``both``); or only what the
            ``corpus`` needs, for a small table.
        least: Times that a word of the corpus must occur to get an entry.
        words: At most so many words of the corpus.
        weighting: Probabilities by rank in the vocabulary (``zipf``), or as counted in the ``corpus``.
    """

    dim: int = 256
    sif_coefficient: float = 1e-4
    normalize: bool = True
    vocabulary: Vocabulary = "teacher"
    least: int = 5
    words: int = 20_000
    weighting: Weighting = "zipf"


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """A token table and what made it.

    Args:
        table: The static model.
        components: float32 (teacher width, dim): turns a vector of the teacher into one of the table's space.
        words: Words of the corpus that got an entry.
        phrases: Entries of several words.
    """

    table: StaticTable
    components: FloatArray
    words: int
    phrases: int


def distill(
    teacher: str | Path | Teacher,
    settings: DistillSettings = DistillSettings(),
    *,
    corpus: Corpus | None = None,
    phrases: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> StaticTable:
    """Run every token of a vocabulary through the teacher, reduce with PCA, and weigh by frequency.

    Args:
        teacher: Folder of a sentence transformer, or one that is open.
        settings: Vocabulary, dimensions and weighting.
        corpus: Where words and probabilities come from; ``None`` is enough for the teacher's vocabulary and Zipf.
        phrases: Entries of several words.
        on_progress: Told how far it is.

    Returns:
        The table with its tokenizer.

    Raises:
        MissingExtraError: A package for training is not installed.
        ModelError: The teacher cannot be opened or its kind of tokenizer cannot be changed.
        ValueError: The teacher has fewer dimensions than asked for, or the settings need a corpus and there is none.

    Source:
        Model2Vec, https://github.com/MinishLab/model2vec
    """
    return distill_vocabulary(teacher, settings, corpus=corpus, phrases=phrases, on_progress=on_progress).table


def distill_vocabulary(
    teacher: str | Path | Teacher,
    settings: DistillSettings = DistillSettings(),
    *,
    corpus: Corpus | None = None,
    phrases: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> Distilled:
    """The same as `distill`, with what is needed to train the table on vectors of the teacher."""
    show: Progress = on_progress or (lambda stage, done, of: None)
    if corpus is None and (settings.vocabulary != "teacher" or settings.weighting == "corpus"):
        raise ValueError("a vocabulary or weights of a corpus need a corpus; name a folder, a file or an index")
    if not isinstance(teacher, Teacher):
        teacher = Teacher(teacher)
    if not 2 <= settings.dim <= teacher.dim:
        raise ValueError(
            f"dim is {settings.dim}, but vectors of {teacher.folder.name} have {teacher.dim} dimensions; "
            f"take 2 to {teacher.dim}"
        )
    words: list[str] = []
    if corpus is not None and settings.vocabulary != "teacher":
        words = _new_words(corpus, settings, teacher, show)
    vectors, tokenizer = teacher.embed_vocabulary(
        [*words, *phrases], lambda done, of: show("running tokens through the teacher", done, of)
    )
    counts = None
    if corpus is not None and (settings.weighting == "corpus" or settings.vocabulary == "corpus"):
        counts = _count_tokens(tokenizer, corpus, show)
    if settings.vocabulary == "corpus":
        assert counts is not None
        tokenizer, rows = keep_tokens(tokenizer, np.flatnonzero(counts).tolist())
        vectors, counts = vectors[rows], counts[rows]
    reduced, components = _principal(vectors, settings.dim)
    reduced *= _weights(len(reduced), settings, counts)[:, None]
    if settings.normalize:
        reduced /= np.sqrt(np.mean(reduced**2))
    table = StaticTable(reduced.astype(np.float32), tokenizer)
    return Distilled(table, components, len(words), sum(" " in token for token in tokenizer.get_vocab()))


def _new_words(corpus: Corpus, settings: DistillSettings, teacher: Teacher, show: Progress) -> list[str]:
    counts = count_words(corpus(), lambda done: show("counting words", done, 0))
    return frequent_words(counts, least=settings.least, limit=settings.words, known=teacher.vocabulary)


def _count_tokens(tokenizer: Tokenizer, corpus: Corpus, show: Progress) -> NDArray[np.int64]:
    """How often each token occurs in the corpus."""
    counts = np.zeros(tokenizer.get_vocab_size(with_added_tokens=True), np.int64)
    batch: list[str] = []

    def count() -> None:
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        ids = [token for encoding in encodings for token in encoding.ids]
        counts[:] += np.bincount(ids, minlength=len(counts))

    for done, text in enumerate(corpus(), 1):
        batch.append(text.encode("utf-8", "replace").decode())
        if len(batch) == 256:
            count()
            batch = []
            show("counting tokens", done, 0)
    if batch:
        count()
    return counts


def _principal(vectors: FloatArray, dim: int) -> tuple[FloatArray, FloatArray]:
    """The first principal components of rows, and what rows are multiplied with to get them."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred / max(1, len(centred) - 1))
    components = directions[:, ::-1][:, :dim]
    scores = centred @ components
    # The sign of a component is free; the largest score decides, so that every machine gives the same.
    largest = np.abs(scores).argmax(axis=0)
    signs = np.where(scores[largest, np.arange(dim)] < 0, -1.0, 1.0)
    return (scores * signs).astype(np.float32), (components * signs).astype(np.float32)


def _weights(tokens: int, settings: DistillSettings, counts: NDArray[np.int64] | None) -> FloatArray:
    if settings.weighting == "corpus" and counts is not None:
        # One more of each: what the corpus does not have is rare, not impossible.
        probabilities = (counts + 1.0) / (counts.sum() + len(counts))
    else:
        ranks = 1.0 / np.arange(2, tokens + 2)
        probabilities = ranks / ranks.sum()
    weights: FloatArray = (settings.sif_coefficient / (settings.sif_coefficient + probabilities)).astype(np.float32)
    return weights
