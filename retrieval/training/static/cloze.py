"""Pairs without labels, drawn anew in each step: a sentence, and the rest of the passage that it stands in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.training.pairs import split_sentences
from retrieval.training.table import StaticTable

IntArray = NDArray[np.int64]
_SHORTEST, _LONGEST = 4, 40


class Cloze:
    """Passages as tokenized sentences; only those with two sentences or more, one of them of 4 to 40 words, count.

    Args:
        table: Tokenizes the sentences.
        passages: Copies count once, so that no passage is a negative of itself.
        max_tokens: The rest of a passage is cut.

    Source:
        Inverse cloze task, https://arxiv.org/abs/1906.00300
    """

    def __init__(self, table: StaticTable, passages: Sequence[str], max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._sentences: list[list[IntArray]] = []
        self._usable: list[list[int]] = []
        different = list(dict.fromkeys(passages))
        for start in range(0, len(different), 1024):
            self._add(table, [split_sentences(text) for text in different[start : start + 1024]])

    def _add(self, table: StaticTable, passages: Sequence[Sequence[str]]) -> None:
        ids = iter(table.tokenize([sentence for sentences in passages for sentence in sentences]))
        for sentences in passages:
            tokens = [np.array(next(ids), dtype=np.int64) for _ in sentences]
            usable = [
                at
                for at, sentence in enumerate(sentences)
                if len(tokens[at]) and _SHORTEST <= len(sentence.split()) <= _LONGEST
            ]
            if usable and sum(len(one) > 0 for one in tokens) > 1:
                self._sentences.append(tokens)
                self._usable.append(usable)

    def __len__(self) -> int:
        return len(self._sentences)

    def draw(self, size: int, generator: np.random.Generator) -> tuple[list[IntArray], list[IntArray]]:
        """Sentences of different passages and the rests of these passages, ``size`` of each or as many as there are."""
        queries, rests = [], []
        for row in generator.choice(len(self), min(size, len(self)), replace=False):
            tokens, usable = self._sentences[row], self._usable[row]
            chosen = usable[generator.integers(len(usable))]
            queries.append(tokens[chosen])
            rests.append(np.concatenate(tokens[:chosen] + tokens[chosen + 1 :])[: self._max_tokens])
        return queries, rests
