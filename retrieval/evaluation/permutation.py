"""What the order of words is worth to a model: the same words shuffled."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.evaluation.contrast import Score
from retrieval.protocols import Encoder, SparseEncoder


@dataclass(frozen=True, slots=True)
class PermutationResult:
    """What changes when the words of a text are shuffled.

    Args:
        texts: How many texts were shuffled.
        dense_change: Largest change of a component of a vector of unit length, over all texts. 0, or the rounding of
            sums in float32, for a model that adds up vectors of words.
        sparse_changed: Texts whose BM25 weights changed.
        logit_change: Median change of the score of the cross-encoder.
        logits_changed: Share of texts whose score changed by more than 0.001.
        original_above: Share of texts that score above their shuffled words.
    """

    texts: int
    dense_change: float
    sparse_changed: int
    logit_change: float
    logits_changed: float
    original_above: float


def permutation_test(
    asked: Sequence[tuple[str, str]],
    encoder: Encoder,
    sparse: SparseEncoder,
    score: Score,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> PermutationResult:
    """Shuffle the words of texts and see which of the models notices.

    Words are what stands between white space, so that the tokens of a text stay the same ones.

    Args:
        asked: Queries, each with a text; texts of a single repeated word are left out.
        encoder: Static encoder, or any other.
        sparse: BM25 encoder.
        score: Cross-encoder.
        seed: Of the shuffling.
        on_progress: Called with the texts done and all texts.

    Raises:
        ValueError: No text can be shuffled.
    """
    draw = random.Random(seed)
    triples = [(query, text, shuffled(text, draw)) for query, text in asked if len(set(text.split())) > 1]
    if not triples:
        raise ValueError("no text has two different words, so there is nothing to shuffle")
    originals, permuted = [text for _, text, _ in triples], [text for _, _, text in triples]
    dense = np.abs(encoder.encode_documents(originals) - encoder.encode_documents(permuted))
    length = float(np.mean([len(text.split()) for text in originals]))
    before, _ = sparse.encode_documents(originals, length)
    after, _ = sparse.encode_documents(permuted, length)
    changed = sum(
        dict(zip(one.indices.tolist(), one.values.tolist(), strict=True))
        != dict(zip(other.indices.tolist(), other.values.tolist(), strict=True))
        for one, other in zip(before, after, strict=True)
    )
    moved = np.empty(len(triples))
    for number, (query, text, other) in enumerate(triples):
        logits = score(query, [text, other])
        moved[number] = float(logits[0]) - float(logits[1])
        if on_progress is not None:
            on_progress(number + 1, len(triples))
    return PermutationResult(
        texts=len(triples),
        dense_change=float(dense.max()),
        sparse_changed=changed,
        logit_change=float(np.median(np.abs(moved))),
        logits_changed=float(np.mean(np.abs(moved) > 0.001)),
        original_above=float(np.mean(moved > 0)),
    )


def shuffled(text: str, draw: random.Random) -> str:
    """The words of a text in another order; it must have two different ones."""
    words = text.split()
    other = list(words)
    while other == words:
        draw.shuffle(other)
    return " ".join(other)
