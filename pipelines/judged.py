"""Queries with judgements that a static model is measured on while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.datatypes import FloatArray
from retrieval.encoders import StaticEncoder
from retrieval.evaluation import BeirCollection, bootstrap_interval, evaluate_run
from retrieval.token_tables import StaticModel, TokenTable
from retrieval.training.pairs import Pair, is_held_out
from retrieval.training.table import StaticTable

MEASURE = "nDCG@10"

_DEPTH = 10
_BLOCK = 8192
_MOST_QUERIES = 1000
_MOST_DOCUMENTS = 20_000


@dataclass(frozen=True, slots=True)
class Score:
    """Mean nDCG@10 with its 95 % bootstrap interval.

    Args:
        dimensions: Leading dimensions of the vectors that were used.
        mean: Over all judged queries.
        low: Lower end.
        high: Upper end.
    """

    dimensions: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries, judgements, and the documents that are ranked.

    Args:
        name: For people.
        queries: Text of each query by its id.
        qrels: Grades by query and document id.
        documents: Gives id and text of each document, from the beginning each time.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    documents: Callable[[], Iterator[tuple[str, str]]]

    @classmethod
    def of_collection(cls, folder: str | Path, split: str) -> Judged:
        """A BEIR folder.

        Raises:
            DocumentError: It is incomplete or malformed.
            ValueError: ``split`` is not a plain name.
        """
        collection = BeirCollection.open(folder, split)

        def documents() -> Iterator[tuple[str, str]]:
            for document in collection.documents():
                yield document.id, f"{document.title}\n{document.text}" if document.title else document.text

        return cls(f"{folder} ({split})", collection.queries, collection.qrels, documents)


class HeldOut:
    """Pairs that are kept from training, and the texts among which they have to be found.

    Which queries are held out is decided by a hash, so that it is the same in every run. Judged are at most 1,000 of
    them, over their own texts and up to 20,000 others of the data.

    Args:
        share: Part of the queries, 0 for none.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._answers: dict[str, dict[str, int]] = {}
        self._texts: dict[str, None] = {}
        self._others: dict[str, None] = {}

    def without(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs that may be trained on; the others, and texts, are remembered."""
        for pair in pairs:
            if is_held_out(pair.query, self._share):
                self._hold(pair)
                continue
            if len(self._others) < _MOST_DOCUMENTS:
                self._others[pair.positive] = None
            yield pair

    def _hold(self, pair: Pair) -> None:
        if pair.query not in self._answers and len(self._answers) >= _MOST_QUERIES:
            return
        self._answers.setdefault(pair.query, {})[pair.positive] = 1
        self._texts.update(dict.fromkeys((pair.positive, *pair.negatives)))

    def judged(self) -> Judged | None:
        """Queries are their own ids and so are documents; ``None`` when nothing was held out."""
        if not self._answers:
            return None
        texts = list(self._texts | self._others)
        name = f"{len(self._answers):,} held-out queries over {len(texts):,} texts"
        queries = {query: query for query in self._answers}
        return Judged(name, queries, self._answers, lambda: ((text, text) for text in texts))


def measure(table: StaticTable, judged: Judged, dimensions: int | None = None) -> Score:
    """Rank all documents for every query with a table, and measure.

    Args:
        table: The model.
        judged: What to measure on.
        dimensions: Only the first ones; ``None`` for all.
    """
    model = StaticModel("trained", TokenTable(table.vectors), table.tokenizer, table.rules, "")
    encoder = StaticEncoder(model, dimensions)
    names: list[str] = []
    queries = encoder.encode_queries(list(judged.queries.values()))
    scores = np.full((len(queries), _DEPTH), -np.inf, np.float32)
    places = np.full((len(queries), _DEPTH), -1, np.int64)
    documents = judged.documents()
    while block := list(islice(documents, _BLOCK)):
        vectors = encoder.encode_documents([text for _, text in block])
        scores, places = _best(scores, places, queries @ vectors.T, len(names))
        names.extend(name for name, _ in block)
    run = {
        query: [(names[place], float(score)) for place, score in zip(*ranked, strict=True) if place >= 0]
        for query, ranked in zip(judged.queries, zip(places, scores, strict=True), strict=True)
    }
    measured = evaluate_run(judged.qrels, run, (MEASURE,))
    low, high = bootstrap_interval(list(measured.per_query[MEASURE].values()))
    return Score(encoder.dim, measured.means[MEASURE], low, high)


def _best(
    scores: FloatArray, places: NDArray[np.int64], new: FloatArray, start: int
) -> tuple[FloatArray, NDArray[np.int64]]:
    """The best of those so far and of a block, best first; earlier documents first among equals."""
    everything = np.concatenate([scores, new], axis=1)
    numbers = np.concatenate([places, np.broadcast_to(start + np.arange(new.shape[1]), new.shape)], axis=1)
    order = np.argsort(-everything, axis=1, kind="stable")[:, :_DEPTH]
    return np.take_along_axis(everything, order, 1), np.take_along_axis(numbers, order, 1)
