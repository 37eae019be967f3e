"""What a cluster is about: the words that its texts have more often than all texts do.

A word counts with the share of the cluster's texts that have it, times the logarithm of how much larger that share is
than among all texts: frequent and distinctive words come first. Inflected forms of a word count together, and its most
frequent form is shown. It is the idea of class-based TF-IDF with shares of texts in the place of counts.

Source:
    Grootendorst 2022, "BERTopic: neural topic modeling with a class-based TF-IDF procedure", https://arxiv.org/abs/2203.05794
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from pipelines.corpus_views.overlap import words_of

if TYPE_CHECKING:
    import numpy as np

    from retrieval.protocols import SparseEncoder

_LABEL, _TERMS = 3, 8
_LETTERS = 3
_TEXTS_WITH_IT = 2
_WORDS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True)
class Labelled:
    """A cluster in words.

    Args:
        label: The most telling ones.
        terms: More of them, most telling first.
    """

    label: str
    terms: tuple[str, ...]


def label_clusters(
    texts: Sequence[str], numbers: NDArray[np.int64], count: int, sparse: SparseEncoder
) -> list[Labelled]:
    """Describe every cluster.

    Args:
        texts: A text for each point.
        numbers: Cluster of each, from 0.
        count: How many clusters there are.
        sparse: BM25 encoder; words that it ignores are left out, words that it takes for one count together.
    """
    bags = [{word for word in words_of(text) if len(word) >= _LETTERS and not word[0].isdigit()} for text in texts]
    term_of = _terms({word for bag in bags for word in bag}, sparse)
    everywhere: Counter[int] = Counter()
    inside: list[Counter[int]] = [Counter() for _ in range(count)]
    forms: list[dict[int, Counter[str]]] = [defaultdict(Counter) for _ in range(count)]
    for bag, number in zip(bags, numbers.tolist(), strict=True):
        terms = {term_of[word] for word in bag if word in term_of}
        everywhere.update(terms)
        inside[number].update(terms)
        for word in bag:
            if word in term_of:
                forms[number][term_of[word]][word] += 1
    sizes = Counter(numbers.tolist())
    return [_labelled(inside[number], forms[number], sizes[number], everywhere, len(texts)) for number in range(count)]


def _labelled(
    inside: Counter[int], forms: dict[int, Counter[str]], size: int, everywhere: Counter[int], total: int
) -> Labelled:
    def telling(term: int) -> float:
        here, there = inside[term] / size, everywhere[term] / total
        # Where one cluster is everything, what is frequent is all there is to say.
        return here if size == total else here * math.log(here / there)

    often = [term for term in inside if inside[term] >= min(_TEXTS_WITH_IT, size)]
    best = sorted(often, key=lambda term: (-telling(term), min(forms[term])))[:_TERMS]
    words = tuple(max(sorted(forms[term]), key=forms[term].__getitem__) for term in best)
    return Labelled(", ".join(words[:_LABEL]) or "(no words)", words)


def _terms(words: Iterable[str], sparse: SparseEncoder) -> dict[str, int]:
    """The BM25 term of each word that has exactly one."""
    ordered, terms = sorted(words), {}
    for start in range(0, len(ordered), _WORDS_AT_ONCE):
        some = ordered[start : start + _WORDS_AT_ONCE]
        for word, vector in zip(some, sparse.encode_queries(some), strict=True):
            if len(vector.indices) == 1:
                terms[word] = int(vector.indices[0])
    return terms
