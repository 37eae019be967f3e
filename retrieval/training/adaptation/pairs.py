"""Training pairs without labels: a part of a passage asks for the rest of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.training.adaptation.corpus import SENTENCE, TokenizedCorpus
from retrieval.training.adaptation.sums import Bags, IntArray, keep, ragged

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PairShares:
    """Which parts of passages become anchors.

    Args:
        titles: Share of title and heading anchors among passages that have them.
        keywords: Share of anchors of 3 to 8 terms of the passage, rare ones first.
        keep: Share of the positives that keep the anchor.
        keyword_keep: The same for anchors of rare terms.
        dropout: Share of the anchor's tokens that is left out.
        anchor_tokens: Longer anchors are cut to a run of so many tokens.
    """

    titles: float = 0.25
    keywords: float = 0.1
    keep: float = 0.1
    keyword_keep: float = 0.1
    dropout: float = 0.3
    anchor_tokens: int = 48


def draw_pairs(
    corpus: TokenizedCorpus, rows: IntArray, rarity: FloatArray, shares: PairShares, generator: np.random.Generator
) -> tuple[Bags, Bags]:
    """One anchor and one positive from each passage of a batch.

    Args:
        corpus: The passages.
        rows: Numbers of the passages (batch,).
        rarity: How rare each token is, as a logarithm (vocabulary,).
        shares: See `PairShares`.
        generator: Draws.

    Returns:
        Anchors and positives, both ``batch`` long; some may be empty.
    """
    first, counts = corpus.passages[rows], corpus.passages[rows + 1] - corpus.passages[rows]
    starts, lengths = corpus.pieces[first], corpus.pieces[first + counts] - corpus.pieces[first]
    positions, offsets = ragged(starts, lengths)
    bags = Bags(corpus.tokens[positions], offsets)
    row = np.repeat(np.arange(len(rows)), lengths)

    piece = first + (generator.random(len(rows)) * counts).astype(np.int64)
    named = (corpus.kinds[first] != SENTENCE) & (counts > 1)
    piece = np.where(named & (generator.random(len(rows)) < shares.titles), first, piece)
    begins, ends = corpus.pieces[piece], corpus.pieces[piece + 1]
    excess = np.maximum(ends - begins - shares.anchor_tokens, 0)
    cut = begins + (generator.random(len(rows)) * (excess + 1)).astype(np.int64)
    inside = (positions >= begins[row]) & (positions < ends[row])
    anchor = (positions >= cut[row]) & (positions < np.minimum(cut + shares.anchor_tokens, ends)[row])

    noise = generator.random(len(positions))
    halves = (counts == 1)[row]
    anchor = np.where(halves, noise < 0.5, anchor)
    removed = np.where(halves, anchor, inside)

    words = generator.random(len(rows)) < shares.keywords
    words &= lengths >= 12
    chosen = _keywords(bags, row, words, rarity, generator)
    anchor, removed = np.where(words[row], chosen, anchor), np.where(words[row], chosen, removed)

    whole = (generator.random(len(rows)) < np.where(words, shares.keyword_keep, shares.keep))[row]
    positive = whole | ~removed
    short = np.bincount(row[anchor], minlength=len(rows)) < 4
    drop = generator.random(len(positions))
    anchor &= (drop >= shares.dropout) | short[row]
    return keep(bags, anchor), keep(bags, positive)


def _keywords(
    bags: Bags, row: IntArray, words: BoolArray, rarity: FloatArray, generator: np.random.Generator
) -> BoolArray:
    chosen = np.zeros(len(bags.ids), bool)
    where = np.flatnonzero(words[row])
    if not len(where):
        return chosen
    scores = rarity[bags.ids[where]] + generator.gumbel(size=len(where))
    order = where[np.lexsort((-scores, row[where]))]
    rank = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    wanted = generator.integers(3, 9, len(words))
    chosen[order] = rank < wanted[row[order]]
    return chosen
