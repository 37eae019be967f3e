"""Ranking lists as batches of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from retrieval.training.lists import RankingList

IntArray = NDArray[np.int64]
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
    """

    lists: int = 8
    negatives: int = 4
    random_negatives: int = 1
    max_tokens: int = 144
    query_tokens: int = 48


@dataclass(frozen=True, slots=True, eq=False)
class ListBatch:
    """Tokenised pairs of some lists; ``lists[i]`` are the rows of list ``i``, its positive first."""

    pairs: list[TokenPair]
    lists: list[slice]


def list_batches(
    lists: Sequence[RankingList], tokenizer: Tokenizer, settings: BatchSettings, *, epochs: int, seed: int
) -> Iterator[ListBatch]:
    """All lists in random order, ``epochs`` times, with negatives drawn anew each time."""
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(len(lists))
        for start in range(0, len(order), settings.lists):
            chosen = [lists[index] for index in order[start : start + settings.lists]]
            texts = [_texts_to_read(item, chosen, settings, generator) for item in chosen]
            ends = np.cumsum([0, *map(len, texts)])
            pairs = tokenize_pairs(
                tokenizer,
                [item.query for item, read in zip(chosen, texts, strict=True) for _ in read],
                [text for read in texts for text in read],
                max_tokens=settings.max_tokens,
                query_tokens=settings.query_tokens,
            )
            yield ListBatch(pairs, [slice(int(a), int(b)) for a, b in pairwise(ends)])


def _texts_to_read(
    item: RankingList, chosen: Sequence[RankingList], settings: BatchSettings, generator: np.random.Generator
) -> list[str]:
    others = [other.positive for other in chosen if other.positive != item.positive]
    return [
        item.positive,
        *(item.negatives[index] for index in generator.permutation(len(item.negatives))[: settings.negatives]),
        *(others[index] for index in generator.permutation(len(others))[: settings.random_negatives]),
    ]


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
