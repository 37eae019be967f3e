"""The nearest documents of a document: each of its passages looks for its like in all others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.explain import matched_spans
from retrieval.datatypes import (
    Arm,
    ArmScore,
    Candidate,
    Filter,
    FirstStage,
    ScoredPoint,
    SearchRequest,
    SparseVector,
    StoredPoint,
)
from retrieval.errors import StoreInputError
from retrieval.ordering import fuse, order

if TYPE_CHECKING:
    from retrieval.config import FirstStageConfig
    from retrieval.protocols import SparseEncoder, Store

_PASSAGES_ASKED = 12
_CANDIDATES = 100
_SHOWN_WORDS = 8


@dataclass(frozen=True, slots=True)
class SimilarDocument:
    """A document that is like another one, and why.

    Args:
        rank: From 1.
        score: Mean over the passages that asked of the best passage they found in it, 0 to 1.
        document_id: Id of the document.
        title: Its title.
        source: Where it came from.
        metadata: Its metadata.
        passage_id: Its passage that is closest to one of the document asked for.
        text: Text of that passage.
        like: Text of the passage of the document asked for that it is closest to.
        found_by: How many of the passages that asked found the document.
        arms: Rank and score of the passage in each arm; the score of the dense arm is the cosine.
        shared_words: Words that weigh most in BM25 for that pair of passages, heaviest first.
    """

    rank: int
    score: float
    document_id: str
    title: str
    source: str
    metadata: Mapping[str, Any]
    passage_id: str
    text: str
    like: str
    found_by: int
    arms: Mapping[Arm, ArmScore]
    shared_words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SimilarDocuments:
    """The nearest documents of one document.

    Args:
        document_id: The document asked for.
        title: Its title.
        passages: How many passages it has.
        asked: How many of them asked, spread evenly.
        first_stage: The arms that were used.
        documents: The nearest others, best first.
        milliseconds: Time it took.
    """

    document_id: str
    title: str
    passages: int
    asked: int
    first_stage: FirstStage
    documents: tuple[SimilarDocument, ...]
    milliseconds: float


@dataclass(slots=True)
class _Match:
    """What the passages that asked found of one document."""

    total: float
    found_by: int
    best: Candidate
    by: StoredPoint


class Similar:
    """Finds the nearest documents over an open store.

    Args:
        store: Open store.
        sparse: BM25 encoder of the index.
        fusion: How the arms are fused.
        dense_weight: Weight of the dense arm that was chosen for the index, for settings that give none.
    """

    def __init__(
        self, store: Store, sparse: SparseEncoder, fusion: FirstStageConfig, dense_weight: float | None = None
    ) -> None:
        weight = dense_weight if fusion.dense_weight is None else fusion.dense_weight
        self._store = store
        self._sparse = sparse
        self._fusion = fusion.model_copy(update={"candidates": _CANDIDATES, "dense_weight": weight})

    def run(
        self, document_id: str, top_k: int, *, where: Filter | None = None, first_stage: FirstStage = "hybrid"
    ) -> SimilarDocuments:
        """Find them.

        Args:
            document_id: Id as results show it, or the source of the document, which tells documents of one id apart.
            top_k: How many, at least 1.
            where: Filter on what is found.
            first_stage: ``hybrid``, ``dense`` or ``bm25``.

        Raises:
            StoreInputError: No document has this id, or the filter is not usable.
            ValueError: An argument is out of range.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k is a whole number from 1, not {top_k!r}")
        if first_stage not in {"hybrid", "dense", "bm25"}:
            raise ValueError(f"first_stage is 'hybrid', 'dense' or 'bm25', not {first_stage!r}")
        started = time.perf_counter()
        passages = self._passages(document_id)
        asking = [passages[at] for at in _spread(len(passages))]
        own = passages[0].payload
        found = self._matches(asking, _excluding(where, str(own["document"])), first_stage)
        documents = self._described(found, len(asking), top_k)
        return SimilarDocuments(
            document_id=str(own["document_id"]),
            title=str(own["title"]),
            passages=len(passages),
            asked=len(asking),
            first_stage=first_stage,
            documents=documents,
            milliseconds=(time.perf_counter() - started) * 1000,
        )

    def _passages(self, document_id: str) -> list[StoredPoint]:
        for key in ("document_id", "document"):
            where = {"must": [{"key": key, "match": {"value": document_id}}]}
            points = sorted(
                self._store.scan(where, payload=_FIELDS, vectors=["dense", "bm25"]),
                key=lambda point: (str(point.payload["document"]), int(point.payload["index"])),
            )
            if points:
                first = points[0].payload["document"]
                return [point for point in points if point.payload["document"] == first]
        raise StoreInputError(f"no document of {self._store.location} has the id {document_id!r}")

    def _matches(self, asking: Sequence[StoredPoint], where: Filter, first_stage: FirstStage) -> dict[str, _Match]:
        plan: list[tuple[int, Arm]] = []
        requests: list[SearchRequest] = []
        for row, point in enumerate(asking):
            if first_stage != "bm25" and point.dense is not None:
                plan.append((row, "dense"))
                requests.append(SearchRequest(point.dense, _CANDIDATES, where))
            if first_stage != "dense" and point.sparse is not None:
                plan.append((row, "bm25"))
                requests.append(SearchRequest(point.sparse, _CANDIDATES, where))
        arms: list[dict[Arm, list[ScoredPoint]]] = [{} for _ in asking]
        for (row, arm), points in zip(plan, self._store.search(requests) if requests else [], strict=True):
            arms[row][arm] = points
        fused = [_dense_only(one) if first_stage == "dense" else fuse(one, self._fusion) for one in arms]
        return self._by_document(asking, fused)

    def _by_document(self, asking: Sequence[StoredPoint], fused: Sequence[Sequence[Candidate]]) -> dict[str, _Match]:
        ids = list({candidate.id for candidates in fused for candidate in candidates})
        owners = {point.id: str(point.payload["document"]) for point in self._store.get(ids, payload=["document"])}
        found: dict[str, _Match] = {}
        for point, candidates in zip(asking, fused, strict=True):
            best: dict[str, Candidate] = {}
            for candidate in candidates:
                if candidate.id in owners:
                    best.setdefault(owners[candidate.id], candidate)
            for document, candidate in best.items():
                match = found.setdefault(document, _Match(0.0, 0, candidate, point))
                match.total += candidate.score
                match.found_by += 1
                if candidate.score > match.best.score:
                    match.best, match.by = candidate, point
        return found

    def _described(self, found: Mapping[str, _Match], asked: int, top_k: int) -> tuple[SimilarDocument, ...]:
        names = list(found)
        scores = [found[name].total / asked for name in names]
        chosen = order(scores, [found[name].best.rank for name in names], names)[:top_k]
        matches = [found[names[at]] for at in chosen]
        payloads = {point.id: point.payload for point in self._store.get([match.best.id for match in matches])}
        documents = []
        for rank, (at, match) in enumerate(zip(chosen, matches, strict=True), start=1):
            payload = payloads[match.best.id]
            documents.append(
                SimilarDocument(
                    rank=rank,
                    score=scores[at],
                    document_id=payload["document_id"],
                    title=payload["title"],
                    source=payload["source"],
                    metadata=payload.get("metadata", {}),
                    passage_id=match.best.id,
                    text=payload["text"],
                    like=str(match.by.payload["text"]),
                    found_by=match.found_by,
                    arms=match.best.arms,
                    shared_words=self._shared_words(str(match.by.payload["text"]), str(payload["text"]), match.best.id),
                )
            )
        return tuple(documents)

    def _shared_words(self, asked: str, text: str, passage_id: str) -> tuple[str, ...]:
        """The words of a passage that the other one has too, by what each adds to its BM25 score."""
        spans = matched_spans(self._sparse, asked, text)
        words = {text[start:end].lower(): None for start, end in spans}
        terms: dict[int, str] = {}
        for word, vector in zip(words, self._sparse.encode_queries(list(words)), strict=True):
            for term in vector.indices.tolist():
                terms.setdefault(term, word)
        where = {"must": [{"has_id": [passage_id]}]}
        one = np.ones(1, np.float32)
        requests = [SearchRequest(SparseVector(np.array([term], np.uint32), one), 1, where) for term in terms]
        answers = self._store.search(requests) if requests else []
        weights = [(-points[0].score, word) for word, points in zip(terms.values(), answers, strict=True) if points]
        return tuple(dict.fromkeys(word for _, word in sorted(weights)))[:_SHOWN_WORDS]


_FIELDS = ["document", "document_id", "index", "text", "title"]


def _dense_only(arms: Mapping[Arm, Sequence[ScoredPoint]]) -> list[Candidate]:
    """Candidates with the cosine itself as their score."""
    points = arms.get("dense", ())
    return [
        Candidate(point.id, rank, max(0.0, point.score), {"dense": ArmScore(rank, point.score)})
        for rank, point in enumerate(points, start=1)
    ]


def _spread(count: int) -> list[int]:
    """Places of the passages that ask: all, or some from the first to the last."""
    if count <= _PASSAGES_ASKED:
        return list(range(count))
    return sorted({round(step * (count - 1) / (_PASSAGES_ASKED - 1)) for step in range(_PASSAGES_ASKED)})


def _excluding(where: Filter | None, document: str) -> Filter:
    """A filter that also leaves out one document, by its key."""
    other = [{"key": "document", "match": {"value": document}}]
    return {"must_not": other} if not where else {"must": [where], "must_not": other}
