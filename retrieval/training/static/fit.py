"""Train a token table so that the sum over a sentence points where a teacher's vector of the sentence points."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.errors import MissingExtraError
from retrieval.training.pairs import split_sentences
from retrieval.training.table import StaticTable

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, float], None]
"""Called with the passes done, all passes, and the mean cosine of held-out sentences with their targets."""

LEAST_SENTENCES = 100
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How token vectors follow a teacher.

    Args:
        passes: Over the sentences, at most.
        seconds: Time limit; the pass under way is finished.
        batch_size: Sentences a step.
        learning_rate: Of the token vectors at the start, falling to a twentieth; meant for tables whose entries have a
            root mean square of 1.
        held_out: Part of the sentences that is only measured, at least 50 and at most 1,000 of them.
        seed: Order of the sentences.
    """

    passes: int = 12
    seconds: float = 300.0
    batch_size: int = 256
    learning_rate: float = 0.02
    held_out: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What came out; the measured sentences were not trained on.

    Args:
        table: The best table that was found, the starting one when nothing was better.
        sentences: Sentences trained on.
        held_out: Sentences measured.
        before: Mean cosine of the starting table with the targets of the held-out sentences.
        after: The same of ``table``.
        passes: Passes that were made.
    """

    table: StaticTable
    sentences: int
    held_out: int
    before: float
    after: float
    passes: int


def sample_sentences(texts: Iterable[str], limit: int, *, seed: int = 0) -> list[str]:
    """Different sentences of 3 to 60 words out of a stream of texts, a uniform sample in random order.

    Args:
        texts: Read once; only the sample is kept.
        limit: At most so many.
        seed: Chooses them.

    Source:
        Reservoir sampling, algorithm R
    """
    generator = random.Random(seed)
    sample: list[str] = []
    seen = 0
    for text in texts:
        for sentence in split_sentences(text):
            words = sentence.split()
            if len(words) < 3:
                continue
            seen += 1
            place = len(sample) if len(sample) < limit else generator.randrange(seen)
            if place < limit:
                sample[place : place + 1] = [" ".join(words[:_LONGEST])]
    sample = list(dict.fromkeys(sample))
    generator.shuffle(sample)
    return sample


def fit_sentences(
    table: StaticTable,
    sentences: Sequence[str],
    targets: FloatArray,
    settings: FitSettings = FitSettings(),
    on_progress: Progress | None = None,
) -> Fitted:
    """Train all token vectors by cosine to the targets; what helps sentences that were held out is kept.

    Args:
        table: Where to start; it is not changed.
        sentences: In random order; the first of them are held out.
        targets: float32 (sentences, dim), of any length.
        settings: See `FitSettings`.
        on_progress: Told after each pass.

    Raises:
        MissingExtraError: torch is not installed.
        ValueError: There are too few sentences.

    Source:
        Tokenlearn, https://minish.ai/blog/2024-10-29-tokenlearn
    """
    if len(sentences) < LEAST_SENTENCES:
        raise ValueError(
            f"training on a teacher's vectors needs at least {LEAST_SENTENCES} different sentences of three words or "
            f"more, the corpus has {len(sentences)}; take a larger corpus or do without"
        )
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train", "training a static model") from error
    started = time.monotonic()
    held = min(1000, max(50, round(settings.held_out * len(sentences))))
    ids = [np.array(row, np.int64) for row in table.tokenize(sentences)]
    goals = targets / np.maximum(np.linalg.norm(targets, axis=1, keepdims=True), 1e-12)
    rows = np.array([row for row in range(held, len(ids)) if len(ids[row])])
    before = best = _mean_cosine(table.vectors, ids[:held], goals[:held])
    kept, passes = table.vectors, 0
    vectors = torch.nn.Parameter(torch.from_numpy(table.vectors.copy()))
    optimizer = torch.optim.Adam([vectors], lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.05 ** (1 / max(1, settings.passes)))
    generator = np.random.default_rng(settings.seed)
    while passes < settings.passes and len(rows) and (not passes or time.monotonic() - started < settings.seconds):
        order = generator.permutation(rows)
        for start in range(0, len(order), settings.batch_size):
            batch = order[start : start + settings.batch_size]
            sums = _sums(vectors, [ids[row] for row in batch])
            loss = 1.0 - torch.cosine_similarity(sums, torch.from_numpy(goals[batch])).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        decay.step()
        passes += 1
        now = vectors.detach().numpy()
        cosine = _mean_cosine(now, ids[:held], goals[:held])
        if cosine > best:
            best, kept = cosine, now.copy()
        if on_progress is not None:
            on_progress(passes, settings.passes, cosine)
    return Fitted(table.with_vectors(kept), len(rows), held, before, best, passes)


def _sums(vectors: torch.Tensor, ids: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    import torch

    offsets = np.cumsum([0, *map(len, ids[:-1])])
    return torch.nn.functional.embedding_bag(
        torch.from_numpy(np.concatenate(ids)), vectors, torch.from_numpy(offsets), mode="sum"
    )


def _mean_cosine(vectors: FloatArray, ids: Sequence[NDArray[np.int64]], goals: FloatArray) -> float:
    """A sentence without a known token counts as zero."""
    sums = np.stack([vectors[row].sum(axis=0) for row in ids])
    norms = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)
    return float(((sums * goals).sum(axis=1) / norms).mean())
