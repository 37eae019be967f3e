"""Hard negatives: passages of an index that look like the answer of a query and are not.

Both arms of the first stage bring candidates. What is known to answer, or nearly repeats the answer, is left out; a
cross-encoder drops what it finds about as good as the answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Literal

import numpy as np

from retrieval.datatypes import FloatArray, SearchRequest
from retrieval.protocols import Encoder, Reranker, SparseEncoder, Store
from retrieval.training.known import KnownPositives, shared_runs
from retrieval.training.pairs import Pair
from retrieval.training.reranker.lists import RankingList, closest_windows, cut_lists, holds

EXACT_BELOW = 100_000
"""Passages up to which dense search is exact whatever the index is set to: it costs a few milliseconds there."""

_READ_IN_VAIN = 3


@dataclass(frozen=True, slots=True)
class MineSettings:
    """How hard negatives are chosen.

    Args:
        negatives: How many a list gets at most.
        depth: They come from the first ``depth`` of each arm.
        given: Of the negatives, how many may come from those that the pair brought along.
        near_duplicate: A passage with a cosine to the positive above this is not used.
        overlap: Nor is one that shares more than this part of its runs of five words with the positive (of the shorter
            text's runs, so that a part of the positive counts as a whole one).
        margin: What the cross-encoder leaves of the score of the positive: ``relative`` is a share of its probability,
            ``absolute`` is subtracted from its logit. What scores above that is taken for an answer and dropped.
        margin_kind: How ``margin`` is meant.
        window_words: Longer passages are cut to the window of so many words that is closest to the query.
        batch_size: Queries fetched at a time.
        seed: Chooses among the candidates.

    Raises:
        ValueError: A number is out of range.

    Source:
        ``relative`` is TopK-PercPos and ``absolute`` TopK-MarginPos of NV-Retriever, https://arxiv.org/abs/2407.15831;
        there with cosines of an embedding model, here with a cross-encoder.
    """

    negatives: int = 7
    depth: int = 50
    given: int = 1
    near_duplicate: float = 0.9
    overlap: float = 0.5
    margin: float = 0.95
    margin_kind: Literal["relative", "absolute"] = "relative"
    window_words: int = 90
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("negatives", 1), ("depth", 1), ("given", 0), ("window_words", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is at least {least}, not {getattr(self, name)}")
        if self.margin_kind not in {"relative", "absolute"}:
            raise ValueError(f"margin_kind is 'relative' or 'absolute', not {self.margin_kind!r}")
        if self.margin_kind == "relative" and not 0.0 < self.margin <= 1.0:
            raise ValueError(f"a relative margin is a share of the positive's score, 0 to 1, not {self.margin}")
        if not math.isfinite(self.margin):
            raise ValueError(f"margin is a finite number, not {self.margin}")

    def ceiling(self, positive: float) -> float:
        """The logit above which a passage is taken for an answer, where the positive has the logit ``positive``."""
        if self.margin_kind == "absolute":
            return positive - self.margin
        share = self.margin / (1.0 + math.exp(-max(positive, -700.0)))
        return math.inf if share >= 1.0 else math.log(share) - math.log1p(-share)


@dataclass(frozen=True, slots=True)
class MineCounts:
    """What became of the queries and their candidates.

    Args:
        queries: Queries that were looked at.
        lists: Queries that got a list; the others had no usable negative.
        negatives: Negatives in these lists.
        known: Candidates left out as known positives of the query.
        near: Candidates left out as near duplicates of the positive.
        answered: Candidates left out because they hold the answer.
        dropped: Candidates that the cross-encoder scored too near to the positive, or above it.
        read: Texts that the cross-encoder read, positives among them.
    """

    queries: int = 0
    lists: int = 0
    negatives: int = 0
    known: int = 0
    near: int = 0
    answered: int = 0
    dropped: int = 0
    read: int = 0

    def __add__(self, other: MineCounts) -> MineCounts:
        return MineCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    text: str
    vector: FloatArray
    document: str = ""


@dataclass(slots=True, eq=False)
class _Work:
    """One query on its way to a list."""

    pair: Pair
    positive: str
    vector: FloatArray
    given: list[_Candidate]
    left: Iterator[str]
    chosen: dict[str, float] = field(default_factory=dict)
    offered: list[str] = field(default_factory=list)
    score: float | None = None
    reads: int = 0
    exhausted: bool = False


class Miner:
    """Finds negatives for pairs, a batch at a time.

    The same pair at the same position gets the same list, whatever came before it.

    Args:
        store: Open store; payloads hold ``text`` and ``document_id``.
        encoder: Static encoder of the store.
        sparse: BM25 encoder of the store.
        known: Answers of all queries.
        reranker: Drops false negatives; ``None`` leaves them in.
        settings: What is chosen.
    """

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        sparse: SparseEncoder,
        known: KnownPositives,
        reranker: Reranker | None = None,
        settings: MineSettings = MineSettings(),
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._sparse = sparse
        self._known = known
        self._reranker = reranker
        self._settings = settings
        self._exact = store.count() <= EXACT_BELOW

    def mine(
        self, pairs: Sequence[Pair], position: int = 0, on_list: Callable[[int], None] | None = None
    ) -> tuple[list[RankingList], MineCounts]:
        """Lists of a batch of pairs, in their order; a pair without any usable negative has none.

        Args:
            pairs: The batch; its size decides how much is held at a time.
            position: Number of the first pair in the whole run, which the random choice depends on.
            on_list: Told how much of the batch is done, in queries, after each that the cross-encoder has read for;
                lists that lack negatives count in part.

        Raises:
            StoreError: The store failed.
            ModelError: The cross-encoder failed.
        """
        works = self._begin(pairs, position)
        tally: Counter[str] = Counter(queries=len(works))
        while active := [work for work in works if self._wants_more(work)]:
            self._offer(active, tally)
            self._judge(active, tally, lambda: self._report(works, on_list))
        lists = [self._list(work) for work in works if work.chosen]
        tally.update(lists=len(lists), negatives=sum(len(item.negatives) for item in lists))
        return lists, MineCounts(**tally)

    def _wants_more(self, work: _Work) -> bool:
        """Not satisfied, not at the end, and not reading in vain what the cross-encoder takes for answers."""
        wanted = self._settings.negatives
        return len(work.chosen) < wanted and not work.exhausted and work.reads < _READ_IN_VAIN * wanted + 1

    def _report(self, works: Sequence[_Work], on_list: Callable[[int], None] | None) -> None:
        if on_list is not None:
            wanted = self._settings.negatives
            on_list(int(sum(len(work.chosen) / wanted if self._wants_more(work) else 1.0 for work in works)))

    def _begin(self, pairs: Sequence[Pair], position: int) -> list[_Work]:
        settings = self._settings
        whole = [RankingList(pair.query, pair.positive, ()) for pair in pairs]
        cut = cut_lists(whole, [pair.answer for pair in pairs], self._encoder, settings.window_words)
        vectors = self._encoder.encode_documents([pair.positive for pair in pairs])
        works = []
        for row, (pair, arms) in enumerate(zip(pairs, self._search([pair.query for pair in pairs]), strict=True)):
            generator = np.random.default_rng((settings.seed, position + row))
            own = [text for text in pair.negatives if text.strip()]
            texts = [own[at] for at in generator.permutation(len(own))[: settings.given]]
            given = [_Candidate(*item) for item in zip(texts, self._encoder.encode_documents(texts), strict=True)]
            order = _mixed(arms, settings.negatives, generator)
            works.append(_Work(pair, cut[row].positive, vectors[row], given, iter(order)))
        return works

    def _search(self, queries: Sequence[str]) -> list[list[list[str]]]:
        """Ids that each arm returns for each query, with one call of the store."""
        dense, sparse = self._encoder.encode_queries(queries), self._sparse.encode_queries(queries)
        depth, rows, requests = self._settings.depth, [], []
        for row, weights in enumerate(sparse):
            if dense[row].any():
                rows.append(row)
                requests.append(SearchRequest(dense[row], depth, exact=self._exact))
            if len(weights.indices):
                rows.append(row)
                requests.append(SearchRequest(weights, depth))
        found: list[list[list[str]]] = [[] for _ in queries]
        for row, points in zip(rows, self._store.search(requests) if requests else [], strict=True):
            found[row].append([point.id for point in points])
        return found

    def _offer(self, works: Sequence[_Work], tally: Counter[str]) -> None:
        """Give every work as many of its next candidates as it lacks, less those that are plainly answers."""
        taken: list[tuple[_Work, list[str]]] = []
        for work in works:
            lacking = self._settings.negatives - len(work.chosen) - len(work.given)
            taken.append((work, list(islice(work.left, max(lacking, 0)))))
            work.exhausted = len(taken[-1][1]) < lacking
        stored = self._load([name for _, names in taken for name in names])
        for work, names in taken:
            candidates = [*work.given, *(stored[name] for name in names if name in stored)]
            work.given = []
            reasons = [self._reason(work, candidate) for candidate in candidates]
            tally.update(reason for reason in reasons if reason)
            work.offered = [item.text for item, reason in zip(candidates, reasons, strict=True) if not reason]

    def _load(self, names: Sequence[str]) -> dict[str, _Candidate]:
        wanted = list(dict.fromkeys(names))
        points = self._store.get(wanted, payload=["text", "document_id"], vectors=["dense"]) if wanted else []
        nothing = np.zeros(self._encoder.dim, dtype=np.float32)
        return {
            point.id: _Candidate(
                str(point.payload["text"]),
                nothing if point.dense is None else point.dense,
                str(point.payload["document_id"]),
            )
            for point in points
        }

    def _reason(self, work: _Work, candidate: _Candidate) -> str:
        """Why a candidate cannot be a negative, a name of `MineCounts`; empty when it can."""
        pair, settings = work.pair, self._settings
        if self._known.answers(pair.query, candidate.text, candidate.document):
            return "known"
        if holds(candidate.text, pair.answer):
            return "answered"
        if float(candidate.vector @ work.vector) > settings.near_duplicate:
            return "near"
        return "near" if shared_runs(candidate.text, pair.positive) > settings.overlap else ""

    def _judge(self, works: Sequence[_Work], tally: Counter[str], on_read: Callable[[], None]) -> None:
        """Cut what was offered to windows and keep those that score below the positive by the margin."""
        queries = [work.pair.query for work in works for _ in work.offered]
        texts = [text for work in works for text in work.offered]
        windows = iter(closest_windows(queries, texts, self._encoder, self._settings.window_words))
        for work in works:
            offered = list(dict.fromkeys(islice(windows, len(work.offered))))
            fresh = [text for text in offered if text not in work.chosen and text != work.positive]
            if self._reranker is None or not fresh:
                work.chosen.update(dict.fromkeys(fresh, 0.0))
                continue
            unread = [] if work.score is not None else [work.positive]
            scores = [float(score) for score in self._reranker.score(work.pair.query, [*unread, *fresh])]
            work.reads += len(scores)
            tally["read"] += len(scores)
            if work.score is None:
                work.score = scores.pop(0)
            ceiling = self._settings.ceiling(work.score)
            kept = {text: score for text, score in zip(fresh, scores, strict=True) if score <= ceiling}
            tally["dropped"] += len(fresh) - len(kept)
            work.chosen.update(kept)
            on_read()

    def _list(self, work: _Work) -> RankingList:
        pair = work.pair
        if work.score is None:
            return RankingList(pair.query, work.positive, tuple(work.chosen), pair.source)
        ranked = sorted(work.chosen.items(), key=lambda item: -item[1])
        scores = (work.score, *(score for _, score in ranked))
        return RankingList(pair.query, work.positive, tuple(text for text, _ in ranked), pair.source, scores)


def _mixed(arms: Sequence[Sequence[str]], negatives: int, generator: np.random.Generator) -> Iterable[str]:
    """Half as many as are wanted from the top ranks of the arms in turn, then everything else at random."""
    top = dict.fromkeys(name for rank in zip_longest(*arms) for name in rank if name is not None)
    deep = list(top)
    shuffled = (deep[at] for at in generator.permutation(len(deep)))
    return dict.fromkeys([*deep[: negatives // 2 + 1], *shuffled])
