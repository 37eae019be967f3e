"""How well a query tells apart two nearly equal texts of which only one answers it."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.errors import DocumentError

Score = Callable[[str, Sequence[str]], FloatArray]
"""Logits of a query with each text, as `retrieval.protocols.Reranker.score` gives them."""


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """A query, the text that answers it, and a nearly equal text that does not.

    Args:
        query: The query.
        better: Must score above ``worse``.
        worse: Differs from ``better`` in a few words.
        topic: Pairs about the same thing have the same; intervals are drawn over topics.
    """

    query: str
    better: str
    worse: str
    topic: str = ""


@dataclass(frozen=True, slots=True)
class ContrastResult:
    """Shares of right orders with 95 % intervals from resampling topics; a tie is wrong.

    Args:
        pairs: Queries with two texts.
        accuracy: Share of them with the better text above the worse one; chance is 0.5.
        accuracy_interval: Low and high.
        both: Couples of queries over the same two texts that want opposite orders.
        both_accuracy: Share of them with both orders right; chance is 0.25, and a model that does not see the
            difference between the two queries has 0. 0 when there is no couple.
        both_interval: Low and high.
    """

    pairs: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    both: int
    both_accuracy: float
    both_interval: tuple[float, float]


ACCURACY_BY_CHANCE = 0.5
BOTH_BY_CHANCE = 0.25


def contrast_accuracy(
    pairs: Sequence[ContrastPair], score: Score, on_progress: Callable[[int, int], None] | None = None
) -> ContrastResult:
    """Measure how often the better text scores above the worse one.

    Args:
        pairs: What to order; each query reads both texts in one call.
        score: Cross-encoder.
        on_progress: Called with the pairs done and all pairs.

    Raises:
        ValueError: There are no pairs.

    Source:
        NevIR, https://arxiv.org/abs/2305.07614
    """
    if not pairs:
        raise ValueError("there are no contrast pairs to measure with")
    right = np.zeros(len(pairs), dtype=bool)
    for number, pair in enumerate(pairs):
        better, worse = score(pair.query, [pair.better, pair.worse])
        right[number] = better > worse
        if on_progress is not None:
            on_progress(number + 1, len(pairs))
    return summarize_orders(right, _couples(pairs), [pair.topic or pair.query for pair in pairs])


Order = Literal["right", "wrong", "tie", "missing"]
"""How two texts stand for a query that one of them answers; ``missing``: neither was found."""

_EQUAL = 1e-5


def order_of(answer: float | None, other: float | None) -> Order:
    """How the text that answers a query and its twin are ordered by their scores.

    Scores that differ by less than 0.00001, of the larger one or absolutely, are a tie: sums of the same numbers in
    another order differ by that much, and no model means anything by it.

    Args:
        answer: Score of the text that answers; ``None`` when it was not found.
        other: Score of its twin; ``None`` when it was not found. What was found stands above what was not.
    """
    if answer is None or other is None:
        return "missing" if answer is other else "wrong" if answer is None else "right"
    if math.isclose(answer, other, rel_tol=_EQUAL, abs_tol=_EQUAL):
        return "tie"
    return "right" if answer > other else "wrong"


def summarize_orders(
    right: Sequence[bool] | NDArray[np.bool_], couples: Sequence[tuple[int, int]], topics: Sequence[str]
) -> ContrastResult:
    """Shares of right orders, of single queries and of couples.

    Args:
        right: Whether each query has its text above the other.
        couples: Numbers of queries over the same two texts that want opposite orders.
        topics: Topic of each query.
    """
    both = [bool(right[one] and right[other]) for one, other in couples]
    return ContrastResult(
        pairs=len(right),
        accuracy=float(np.mean(right)),
        accuracy_interval=topic_interval(right, topics),
        both=len(couples),
        both_accuracy=float(np.mean(both)) if both else 0.0,
        both_interval=topic_interval(both, [topics[one] for one, _ in couples]),
    )


def _couples(pairs: Sequence[ContrastPair]) -> list[tuple[int, int]]:
    """Numbers of pairs with the same two texts in opposite orders."""
    places: dict[frozenset[str], list[int]] = {}
    for number, pair in enumerate(pairs):
        places.setdefault(frozenset((pair.better, pair.worse)), []).append(number)
    return [
        (one, other)
        for numbers in places.values()
        for one, other in combinations(numbers, 2)
        if pairs[one].better == pairs[other].worse
    ]


def topic_interval(values: Sequence[float] | NDArray[Any], topics: Sequence[str]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean, from 2,000 resamples of topics.

    Args:
        values: One for each query; none gives 0 to 1.
        topics: Queries with the same topic are drawn together.
    """
    if not len(values):
        return 0.0, 1.0
    names = {topic: index for index, topic in enumerate(dict.fromkeys(topics))}
    of = np.array([names[topic] for topic in topics])
    sums, sizes = np.bincount(of, np.asarray(values, dtype=np.float64)), np.bincount(of)
    drawn = np.random.default_rng(0).integers(0, len(names), (2000, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def read_question_contrasts(path: str | Path) -> list[ContrastPair]:
    """Questions over two edits of a passage of which one says yes and the other says no.

    A row has ``question``, ``doc1``, ``doc2``, ``label1``, ``label2`` and ``passage_id``; rows with other labels than
    YES and NO are left out.

    Raises:
        DocumentError: The file is missing or not of that kind.

    Source:
        CondaQA, https://arxiv.org/abs/2211.00295
    """
    pairs = []
    for row in _rows(path, "question", "doc1", "doc2", "label1", "label2"):
        labels = (row["label1"], row["label2"])
        if labels in (("YES", "NO"), ("NO", "YES")):
            texts = (row["doc1"], row["doc2"]) if labels[0] == "YES" else (row["doc2"], row["doc1"])
            pairs.append(ContrastPair(row["question"], *texts, topic=str(row.get("passage_id", ""))))
    return pairs


def read_claim_contrasts(path: str | Path, split: str | None = None) -> list[ContrastPair]:
    """Claims with a text that supports them and one that refutes them.

    A row has ``claim``, ``evidence`` and ``label`` (``SUPPORTS`` or ``REFUTES``), and perhaps ``id`` and ``split``.

    Args:
        path: JSON lines, gzipped or not.
        split: Only rows with this ``split``; ``None`` for all.

    Raises:
        DocumentError: The file is missing or not of that kind.

    Source:
        FEVER-symmetric, https://arxiv.org/abs/1908.05267
    """
    evidence: dict[str, tuple[list[str], list[str]]] = {}
    for row in _rows(path, "claim", "evidence", "label"):
        if split in (None, row.get("split")) and row["label"] in ("SUPPORTS", "REFUTES"):
            evidence.setdefault(row["claim"], ([], []))[row["label"] == "REFUTES"].append(row["evidence"])
    return [
        ContrastPair(claim, better, worse)
        for claim, (supporting, refuting) in evidence.items()
        for better, worse in product(supporting, refuting)
    ]


def read_constraint_contrasts(queries: str | Path, corpus: str | Path) -> list[ContrastPair]:
    """Queries with documents that meet a constraint and others that meet its opposite.

    A row of ``queries`` has ``query``, ``constraint_satisfying_doc_ids`` and ``constraint_violating_doc_ids``; a row
    of ``corpus`` has ``doc_id`` and ``text``.

    Raises:
        DocumentError: A file is missing or not of that kind, or a document is not in the corpus.
    """
    texts = {row["doc_id"]: row["text"] for row in _rows(corpus, "doc_id", "text")}
    try:
        return [
            ContrastPair(row["query"], texts[better], texts[worse])
            for row in _rows(queries, "query", "constraint_satisfying_doc_ids", "constraint_violating_doc_ids")
            for better, worse in product(row["constraint_satisfying_doc_ids"], row["constraint_violating_doc_ids"])
        ]
    except KeyError as error:
        raise DocumentError(f"{queries} names the document {error}, which is not in {corpus}") from error


def _rows(path: str | Path, *names: str) -> Iterator[dict[str, Any]]:
    source = Path(path)
    try:
        with (
            gzip.open(source, "rt", encoding="utf-8")
            if source.suffix == ".gz"
            else source.open(encoding="utf-8") as lines
        ):
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict) or not row.keys() >= set(names):
                    raise DocumentError(f"{source}:{number}: a row needs {', '.join(names)}")
                yield row
    except (OSError, EOFError, ValueError, RecursionError) as error:
        raise DocumentError(f"{source} cannot be read as JSON lines: {error}") from error
