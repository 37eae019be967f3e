"""Ranking lists as batches of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.training.reranker.lists import RankingList

IntArray = NDArray[np.int64]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Names of the arrays of `pad_pairs`, in their order."""

TokenPair = tuple[list[int], int]
"""Ids of ``[CLS] query [SEP] text [SEP]``, and how many of them belong to the query."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What is read of a list.

    Args:
        lists: Lists whose gradients make one step.
        negatives: Hard negatives of a list that are read, chosen at random each time.
        random_negatives: Positives of other lists of the same step that are read besides.
        max_tokens: Length of a pair; the text is cut.
        query_tokens: Longer queries are cut.
        contrast: Share of the lists of a step that are contrast lists, 0 to 1; of these the first negative, the twin of
            the positive, is always read. Without effect where there are none.
        bucket: Lists of so many steps are sorted by length before they are dealt out, so that the texts of a step are
            of similar length; 1 leaves the order to chance.
    """

    lists: int = 8
    negatives: int = 4
    random_negatives: int = 1
    max_tokens: int = 144
    query_tokens: int = 48
    contrast: float = 0.0
    bucket: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class ListBatch:
    """Tokenised pairs of some lists.

    Args:
        pairs: Of all lists.
        lists: ``lists[i]`` are the rows of list ``i``, its positive first.
        scores: What the teacher gives to the rows of each list, nan where it gave nothing.
    """

    pairs: list[TokenPair]
    lists: list[slice]
    scores: list[NDArray[np.float32]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Read:
    """A list, the numbers of its negatives that are read, and the texts of other lists."""

    item: RankingList
    negatives: list[int]
    others: list[str]

    @property
    def texts(self) -> list[str]:
        return [self.item.positive, *(self.item.negatives[index] for index in self.negatives), *self.others]

    def scores(self) -> NDArray[np.float32]:
        given = self.item.scores
        known = [given[0], *(given[1 + index] for index in self.negatives)] if given else []
        return np.array(known + [math.nan] * (len(self.texts) - len(known)), dtype=np.float32)


def steps_of_epoch(lists: int, settings: BatchSettings) -> int:
    """Steps in which every one of so many lists is read once."""
    return math.ceil(lists / settings.lists)


def list_batches(
    lists: Sequence[RankingList],
    tokenizer: Tokenizer,
    settings: BatchSettings,
    *,
    epochs: int,
    seed: int,
    contrast: Sequence[RankingList] = (),
    first: int = 0,
) -> Iterator[ListBatch]:
    """All lists in random order, ``epochs`` times, with negatives drawn anew each time.

    Args:
        lists: What is read.
        tokenizer: Without truncation and padding.
        settings: How much of it.
        epochs: How often.
        seed: Draws; a step depends on nothing but the seed and its number.
        contrast: Contrast lists, mixed in by ``settings.contrast``; they are begun again when all were read.
        first: Number of the step to begin with.
    """
    per_epoch = steps_of_epoch(len(lists), settings)
    order = _Order(len(contrast), seed)
    for epoch in range(first // per_epoch, epochs):
        steps = _deal(lists, settings, np.random.default_rng([seed, epoch]))
        for number in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            if number < first:
                continue
            generator = np.random.default_rng([seed, epochs + number, 1])
            chosen = [lists[index] for index in steps[number - epoch * per_epoch]]
            mixed = _contrast_places(len(chosen), settings.contrast, number) if contrast else range(0)
            twins = [contrast[order.at(place)] for place in mixed]
            yield _tokenized(_read_lists(chosen, twins, settings, generator), tokenizer, settings)


def _deal(
    lists: Sequence[RankingList], settings: BatchSettings, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Numbers of the lists of each step of an epoch."""
    order = generator.permutation(len(lists))
    if settings.bucket > 1:
        size = settings.lists * settings.bucket
        length = np.array(
            [len(item.positive) + sum(map(len, item.negatives)) / max(1, len(item.negatives)) for item in lists]
        )
        order = np.concatenate(
            [(part := order[at : at + size])[np.argsort(length[part])] for at in range(0, len(order), size)]
        )
    steps = [order[start : start + settings.lists] for start in range(0, len(order), settings.lists)]
    return [steps[index] for index in generator.permutation(len(steps))] if settings.bucket > 1 else steps


def _contrast_places(lists: int, share: float, step: int) -> range:
    """Which contrast lists, counted from the first step, belong to a step: ``share`` of all lists are such."""
    per_step = lists * share / (1.0 - share) if share < 1.0 else float(lists)
    return range(math.floor(step * per_step), math.floor((step + 1) * per_step))


class _Order:
    """An endless order of so many things: one permutation after the other."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._rounds: dict[int, NDArray[np.int64]] = {}

    def at(self, place: int) -> int:
        turn, index = divmod(place, self._count)
        if turn not in self._rounds:
            self._rounds = {turn: np.random.default_rng([self._seed, turn, 2]).permutation(self._count)}
        return int(self._rounds[turn][index])


def _read_lists(
    chosen: Sequence[RankingList],
    twins: Sequence[RankingList],
    settings: BatchSettings,
    generator: np.random.Generator,
) -> list[_Read]:
    reads = []
    for number, item in enumerate((*chosen, *twins)):
        kept = [0] if number >= len(chosen) else []
        drawn = [int(index) for index in generator.permutation(len(item.negatives)) if index not in kept]
        others = [other.positive for other in chosen if other.positive != item.positive]
        random = [others[index] for index in generator.permutation(len(others))[: settings.random_negatives]]
        reads.append(_Read(item, (kept + drawn)[: settings.negatives], random))
    return reads


def _tokenized(reads: Sequence[_Read], tokenizer: Tokenizer, settings: BatchSettings) -> ListBatch:
    texts = [read.texts for read in reads]
    ends = np.cumsum([0, *map(len, texts)])
    pairs = tokenize_pairs(
        tokenizer,
        [read.item.query for read in reads for _ in read.texts],
        [text for several in texts for text in several],
        max_tokens=settings.max_tokens,
        query_tokens=settings.query_tokens,
    )
    return ListBatch(pairs, [slice(int(a), int(b)) for a, b in pairwise(ends)], [read.scores() for read in reads])


def tokenize_pairs(
    tokenizer: Tokenizer, queries: Sequence[str], texts: Sequence[str], *, max_tokens: int, query_tokens: int
) -> list[TokenPair]:
    """Tokenize query ``i`` with text ``i``; the text is cut to fit, the query only beyond ``query_tokens``."""
    first, separator = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    asked = tokenizer.encode_batch_fast(list(queries), add_special_tokens=False)
    read = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    pairs = []
    for question, text in zip(asked, read, strict=True):
        query = question.ids[:query_tokens]
        room = max(1, max_tokens - 3 - len(query))
        pairs.append(([first, *query, separator, *text.ids[:room], separator], len(query) + 2))
    return pairs


def pad_pairs(pairs: Sequence[TokenPair]) -> tuple[IntArray, IntArray, IntArray]:
    """``input_ids``, ``attention_mask`` and ``token_type_ids`` of tokenised pairs, int64 (n, longest)."""
    shape = (len(pairs), max(len(ids) for ids, _ in pairs))
    input_ids, mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, (ids, query) in enumerate(pairs):
        input_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
        types[row, query : len(ids)] = 1
    return input_ids, mask, types
