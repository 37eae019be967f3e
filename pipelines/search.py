"""The read path: both arms fetch, fusion orders, the cross-encoder reads the best, one function sorts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.points import readable_text
from pipelines.search_options import SearchOptions
from pipelines.tracing import span
from retrieval.config import Config
from retrieval.datatypes import (
    Arm,
    Candidate,
    FloatArray,
    GroupBy,
    Hit,
    Results,
    ScoredPoint,
    SearchRequest,
    SparseVector,
    Timings,
)
from retrieval.errors import RetrievalError
from retrieval.negation import negation_cues
from retrieval.ordering import fuse, order
from retrieval.protocols import Encoder, Reranker, SparseEncoder, Store
from retrieval.rerankers import Reading, choose_windows, read_candidates

_NEGATION_DEPTH = 2
_PASSAGES_PER_GROUP: dict[GroupBy, int] = {"document": 3, "passage": 1}
"""Payloads loaded at first for each hit wanted; more only if these fall into too few groups."""


@dataclass(slots=True)
class _Fetched:
    """The first stage of one query: candidates in fused order, and the payloads of the first of them."""

    candidates: list[Candidate]
    vector: FloatArray
    payloads: list[Mapping[str, Any]]

    def load(self, store: Store, upto: int) -> None:
        """Have the payloads of the first ``upto`` candidates; one that was deleted since the search is left out."""
        start = len(self.payloads)
        wanted = self.candidates[start:upto]
        points = (
            {point.id: point.payload for point in store.get([candidate.id for candidate in wanted])} if wanted else {}
        )
        kept = [candidate for candidate in wanted if candidate.id in points]
        self.candidates[start:upto] = kept
        self.payloads += [points[candidate.id] for candidate in kept]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Final score of a candidate, and its logit and what was read of it, if it was."""

    score: float
    logit: float | None
    read: tuple[int, int] | None


class Search:
    """Both stages over an open store; safe from several threads.

    Args:
        config: Settings of fusion and reranking.
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        store: Open store.
        reranker: Gives the cross-encoder; called by every search that reranks.
        dense_weight: Weight of the dense arm that was chosen for the index, for a configuration that gives none.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        sparse: SparseEncoder,
        store: Store,
        reranker: Callable[[], Reranker],
        dense_weight: float | None = None,
    ) -> None:
        first_stage = config.first_stage
        if first_stage.dense_weight is None:
            first_stage = first_stage.model_copy(update={"dense_weight": dense_weight})
        self._config = config
        self._fusion = first_stage
        self._encoder = encoder
        self._sparse = sparse
        self._store = store
        self._reranker = reranker

    def run(self, queries: Sequence[str], options: SearchOptions) -> list[Results]:
        """Search for every query, one call to each encoder and to the store.

        Raises:
            TypeError: ``queries`` is a string or holds something else than strings.
            StoreError: The store failed or the filter is not usable.
        """
        if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
            raise TypeError("queries are a list of strings")
        if not queries:
            return []
        with span("search", queries=len(queries), first_stage=options.first_stage, top_k=options.top_k):
            return self._both_stages(queries, options)

    def _both_stages(self, queries: Sequence[str], options: SearchOptions) -> list[Results]:
        started = time.perf_counter()
        with span("encode", queries=len(queries)):
            dense = self._encoder.encode_queries(queries)
            sparse = self._sparse.encode_queries(queries)
        encoded = time.perf_counter()
        fetched = self._first_stage(dense, sparse, options)
        retrieved = time.perf_counter()
        share = 1000 / len(queries)
        encode_ms, retrieve_ms = (encoded - started) * share, (retrieved - encoded) * share
        return [
            self._second_stage(query, found, options, encode_ms, retrieve_ms)
            for query, found in zip(queries, fetched, strict=True)
        ]

    def _first_stage(self, dense: FloatArray, sparse: Sequence[SparseVector], options: SearchOptions) -> list[_Fetched]:
        plan: list[tuple[int, Arm]] = []
        requests: list[SearchRequest] = []
        for row, weights in enumerate(sparse):
            if options.first_stage != "bm25" and dense[row].any():
                plan.append((row, "dense"))
                requests.append(SearchRequest(dense[row], options.candidates, options.where))
            if options.first_stage != "dense" and len(weights.indices):
                plan.append((row, "bm25"))
                requests.append(SearchRequest(weights, options.candidates, options.where))
        arms: list[dict[Arm, list[ScoredPoint]]] = [{} for _ in sparse]
        with span("retrieve", requests=len(requests), candidates=options.candidates):
            answers = self._store.search(requests) if requests else []
        for (row, arm), points in zip(plan, answers, strict=True):
            arms[row][arm] = points
        settings = self._fusion.model_copy(update={"candidates": options.candidates})
        with span("fuse"):
            return [_Fetched(fuse(found, settings), dense[row], []) for row, found in enumerate(arms)]

    def _second_stage(
        self, query: str, found: _Fetched, options: SearchOptions, encode_ms: float, retrieve_ms: float
    ) -> Results:
        started = time.perf_counter()
        cues = negation_cues(query)
        depth = options.depth * (_NEGATION_DEPTH if cues else 1) if options.rerank else 0
        with span("load"):
            found.load(self._store, max(depth, options.top_k * _PASSAGES_PER_GROUP[options.group_by]))
        with span("rerank", depth=depth) as reading_span:
            reading, ranges = self._read(query, found, depth, options)
            reading_span.set(reranked=reading.reranked, stopped=reading.stopped)
        warnings = _warnings(query, found, reading, cues, depth)
        outcomes = _outcomes(found, reading, ranges)
        hits = _hits(found, outcomes, options)
        if len(hits) < options.top_k and len(found.payloads) < len(found.candidates):
            found.load(self._store, len(found.candidates))
            hits = _hits(found, outcomes, options)
        rerank_ms = (time.perf_counter() - started) * 1000
        return Results(
            query=query,
            hits=hits,
            timings=Timings(encode_ms, retrieve_ms, rerank_ms, encode_ms + retrieve_ms + rerank_ms),
            reranked=reading.reranked,
            stopped=reading.stopped,
            candidates=len(found.candidates),
            warnings=warnings,
        )

    def _read(
        self, query: str, found: _Fetched, depth: int, options: SearchOptions
    ) -> tuple[Reading, list[tuple[int, int]]]:
        """Let the cross-encoder read; without it, or if it fails, the first stage stands."""
        first = [candidate.score for candidate in found.candidates]
        payloads = found.payloads[:depth]
        if not payloads:
            return Reading.unread(first), []
        try:
            reranker = self._reranker()
        except (RetrievalError, OSError) as error:
            return Reading.unread(first, f"not reranked, the cross-encoder cannot be opened: {error}"), []
        settings = self._config.rerank
        texts = [str(payload["text"]) for payload in payloads]
        ranges = choose_windows(found.vector, texts, self._encoder, settings.window_words)
        groups = _groups(found, options.group_by)
        reading = read_candidates(
            query,
            [
                readable_text(payload, text[start:end])
                for payload, text, (start, end) in zip(payloads, texts, ranges, strict=True)
            ],
            first,
            reranker,
            first_stage_weight=settings.first_stage_weight,
            top_k=options.top_k,
            # A candidate whose document is not known counts with the first one's, so that it settles nothing.
            groups=groups + groups[:1] * (len(first) - len(groups)),
            budget_ms=options.budget_ms,
            batch_size=settings.batch_size,
        )
        return reading, ranges


def _groups(found: _Fetched, group_by: GroupBy) -> list[str]:
    """The group of each candidate whose payload is loaded."""
    if group_by == "document":
        return [str(payload["document"]) for payload in found.payloads]
    return [candidate.id for candidate, _ in zip(found.candidates, found.payloads, strict=False)]


def _warnings(query: str, found: _Fetched, reading: Reading, cues: Sequence[str], depth: int) -> tuple[str, ...]:
    warnings = []
    if not query.strip():
        warnings.append("the query is empty")
    elif not found.candidates:
        warnings.append("nothing matches: no word of the query is in the index, or the filter leaves nothing")
    if cues and found.candidates:
        words = ", ".join(repr(cue) for cue in cues)
        seen = f"may read {depth} candidates for it, twice as many" if reading.reranked else "did not read"
        warnings.append(f"the query says {words}: the first stage cannot see negation, and the cross-encoder {seen}")
    if reading.warning is not None:
        warnings.append(reading.warning)
    return tuple(warnings)


def _outcomes(found: _Fetched, reading: Reading, ranges: Sequence[tuple[int, int]]) -> dict[str, _Outcome]:
    """What became of each candidate, by id: positions move when a candidate turns out to be deleted."""
    read = [*ranges, *(None for _ in found.candidates[len(ranges) :])]
    return {
        candidate.id: _Outcome(score, logit, None if logit is None else span)
        for candidate, score, logit, span in zip(found.candidates, reading.scores, reading.logits, read, strict=True)
    }


def _hits(found: _Fetched, outcomes: Mapping[str, _Outcome], options: SearchOptions) -> tuple[Hit, ...]:
    """The best loaded candidate of each group, best first.

    What is not loaded was not read and ranked behind all that is, so it cannot come before any of these.
    """
    groups = _groups(found, options.group_by)
    loaded = found.candidates[: len(groups)]
    scores = [outcomes[candidate.id].score for candidate in loaded]
    best: dict[str, int] = {}
    for position in order(scores, [candidate.rank for candidate in loaded], [candidate.id for candidate in loaded]):
        best.setdefault(groups[position], position)
    chosen = [at for at in best.values() if options.min_score is None or scores[at] >= options.min_score]
    return tuple(
        _hit(rank, loaded[at], found.payloads[at], outcomes[loaded[at].id])
        for rank, at in enumerate(chosen[: options.top_k], start=1)
    )


def _hit(rank: int, candidate: Candidate, payload: Mapping[str, Any], outcome: _Outcome) -> Hit:
    return Hit(
        rank=rank,
        score=outcome.score,
        document_id=payload["document_id"],
        passage_id=candidate.id,
        text=payload["text"],
        title=payload["title"],
        headings=tuple(payload["headings"]),
        start=payload["start"],
        end=payload["end"],
        source=payload["source"],
        metadata=payload["metadata"],
        first_stage_rank=candidate.rank,
        first_stage_score=candidate.score,
        rerank_score=outcome.logit,
        read=outcome.read,
        arms=candidate.arms,
    )
