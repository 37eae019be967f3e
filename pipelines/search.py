"""The read path: both arms fetch, fusion orders, the cross-encoder reads the best, one function sorts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from pipelines.cautions import Cautions, answered
from pipelines.confidence import Confidence
from pipelines.hits import Fetched, Outcomes, best_hits, groups_of
from pipelines.points import readable_text
from pipelines.search_options import SearchOptions
from pipelines.tracing import span
from pipelines.twins import Twins, unsettled
from retrieval.config import Config
from retrieval.datatypes import (
    Arm,
    FloatArray,
    Results,
    ScoredPoint,
    SearchRequest,
    SparseVector,
    Timings,
)
from retrieval.errors import RetrievalError
from retrieval.negation import negation_cues
from retrieval.ordering import fuse
from retrieval.protocols import Encoder, Reranker, SparseEncoder, Store
from retrieval.rerankers import (
    EarlyStop,
    IndexCalibration,
    LikelySettled,
    Reading,
    ReadingTask,
    choose_windows,
    read_together,
)

_NEGATION_DEPTH = 2


class Search:
    """Both stages over an open store; safe from several threads.

    Args:
        config: Settings of fusion and reranking.
        encoder: Static encoder of the index.
        sparse: BM25 encoder of the index.
        store: Open store.
        reranker: Gives the cross-encoder; called by every search that reranks.
        dense_weight: Weight of the dense arm that was chosen for the index, for a configuration that gives none.
        clock: Seconds by which the budget of the second stage is spent, never going back.
        calibration: What logits mean for the index; ``None`` for what the cross-encoder says itself.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        sparse: SparseEncoder,
        store: Store,
        reranker: Callable[[], Reranker],
        dense_weight: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        calibration: IndexCalibration | None = None,
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
        self._clock = clock
        self.calibration = calibration
        self._confidence: Confidence | None = None

    def run(self, queries: Sequence[str], options: SearchOptions) -> list[Results]:
        """Search for every query, one call to each encoder and to the store.

        Raises:
            TypeError: ``queries`` is a string or holds something else than strings.
            ValueError: ``min_score`` asks for a probability or a threshold that is not there.
            StoreError: The store failed or the filter is not usable.
        """
        if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
            raise TypeError("queries are a list of strings")
        if not queries:
            return []
        with span("search", queries=len(queries), first_stage=options.first_stage, top_k=options.top_k):
            return self._both_stages(queries, options)

    def confidence(self) -> Confidence:
        """What the logits of the cross-encoder mean for this index.

        Raises:
            ModelError: The cross-encoder cannot be opened.
        """
        return self._confidence_in(self._reranker())

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
        outcomes = list(self._second_stages(zip(queries, fetched, strict=True), options))
        rerank_ms = (time.perf_counter() - retrieved) * share
        timings = Timings(encode_ms, retrieve_ms, rerank_ms, encode_ms + retrieve_ms + rerank_ms)
        return [replace(outcome, timings=timings) for outcome in outcomes]

    def _first_stage(self, dense: FloatArray, sparse: Sequence[SparseVector], options: SearchOptions) -> list[Fetched]:
        plan: list[tuple[int, Arm]] = []
        requests: list[SearchRequest] = []
        for row, weights in enumerate(sparse):
            if options.first_stage != "bm25" and dense[row].any():
                plan.append((row, "dense"))
                requests.append(SearchRequest(dense[row], options.candidates, options.where, options.exact))
            if options.first_stage != "dense" and len(weights.indices):
                plan.append((row, "bm25"))
                requests.append(SearchRequest(weights, options.candidates, options.where, options.exact))
        arms: list[dict[Arm, list[ScoredPoint]]] = [{} for _ in sparse]
        with span("retrieve", requests=len(requests), candidates=options.candidates):
            answers = self._store.search(requests) if requests else []
        for (row, arm), points in zip(plan, answers, strict=True):
            arms[row][arm] = points
        settings = self._fusion
        if settings.candidates != options.candidates:
            settings = settings.model_copy(update={"candidates": options.candidates})
        with span("fuse"):
            return [Fetched(fuse(found, settings), dense[row], []) for row, found in enumerate(arms)]

    def _second_stages(self, found: Iterable[tuple[str, Fetched]], options: SearchOptions) -> Iterator[Results]:
        """Read for all queries together, of which a few are open at a time; results without their timings."""
        opened: deque[_Open] = deque()

        def tasks() -> Iterator[ReadingTask]:
            for query, candidates in found:
                one = self._open(query, candidates, options)
                opened.append(one)
                yield one.task

        with span("rerank", depth=options.depth) as reading_span:
            read, stops = 0, []
            for reading in self._readings(tasks()):
                one = opened.popleft()
                read += reading.reranked
                stops.append(reading.stopped)
                if reading.warning is None and one.readers.warning is not None:
                    reading = replace(reading, warning=one.readers.warning)
                yield self._results(one, reading, options)
            reading_span.set(queries=len(stops), reranked=read, stopped=",".join(sorted(set(stops))))

    def _readings(self, tasks: Iterable[ReadingTask]) -> Iterator[Reading]:
        """As `read_together`; the cross-encoder is opened by the first task that needs it."""
        waiting = iter(tasks)
        for task in waiting:
            if task.texts:
                yield from read_together(chain([task], waiting), self._reranker(), clock=self._clock)
            else:
                yield Reading.unread(task.first_stage)

    def _open(self, query: str, found: Fetched, options: SearchOptions) -> _Open:
        """Look at the candidates of a query and say what is to be read of them."""
        cues = negation_cues(query)
        depth = options.depth * (_NEGATION_DEPTH if cues else 1) if options.rerank else 0
        with span("load"):
            if depth:
                # A twin of what is read may stand anywhere.
                found.load(self._store, len(found.candidates))
            else:
                found.load_groups(self._store, options.top_k, options.group_by)
            twins = self._twins(query, found)
        readers = self._open_reranker() if depth and found.payloads else _Readers()
        least = readers.confidence.least(options.min_score) if depth else None
        plan = _Plan(depth, twins, least)
        task, ranges = self._task(query, found, plan, options, readers)
        return _Open(query, found, cues, plan, readers, task, ranges)

    def _results(self, one: _Open, reading: Reading, options: SearchOptions) -> Results:
        found, least, confidence = one.found, one.plan.least, one.readers.confidence
        outcomes = Outcomes(found.candidates.ids, reading, one.ranges, confidence.probabilities(reading.logits))
        shown = best_hits(found, outcomes, options)
        hits = shown if least is None else best_hits(found, outcomes, options, least)
        open_orders = unsettled(one.plan.twins, found, outcomes, hits, confidence.twin_margin)
        cautions = Cautions(one.query, one.cues, one.plan.depth, options, confidence, least)
        return Results(
            query=one.query,
            hits=hits,
            reranked=reading.reranked,
            stopped=reading.stopped,
            candidates=len(found.candidates),
            warnings=(*cautions.of(len(found.candidates), reading, shown, hits), *open_orders),
            settled=not open_orders,
            answered=answered(shown, hits, confidence.threshold),
        )

    def _twins(self, query: str, found: Fetched) -> Twins:
        """The loaded candidates that differ only by polarity."""
        return Twins.among(query, found)

    def _windows(self, found: Fetched, texts: Sequence[str]) -> list[tuple[int, int]]:
        """What is read of texts."""
        return choose_windows(found.vector, texts, self._encoder, self._config.rerank.window_words)

    def _open_reranker(self) -> _Readers:
        """The cross-encoder, and what its logits mean here."""
        try:
            reranker = self._reranker()
        except (RetrievalError, OSError) as error:
            return _Readers(warning=f"not reranked, the cross-encoder cannot be opened: {error}")
        return _Readers(reranker, self._confidence_in(reranker))

    def _confidence_in(self, reranker: Reranker) -> Confidence:
        if self._confidence is None:
            self._confidence = Confidence.of(reranker, self.calibration)
        return self._confidence

    def _task(
        self, query: str, found: Fetched, plan: _Plan, options: SearchOptions, readers: _Readers
    ) -> tuple[ReadingTask, dict[int, tuple[int, int]]]:
        """What the cross-encoder is to read, nothing where there is none; and the stretch of each text."""
        settings = self._config.rerank
        first = found.candidates.scores
        in_order = min(plan.depth, len(found.payloads)) if readers.reranker is not None else 0
        positions = [*range(in_order), *plan.twins.to_read(in_order)] if in_order else []
        texts = [str(found.payloads[at]["text"]) for at in positions]
        spans = self._windows(found, texts)
        ranges = dict(zip(positions, spans, strict=True))
        stretches = {
            at: readable_text(found.payloads[at], text[start:end])
            for at, text, (start, end) in zip(positions, texts, spans, strict=True)
        }
        groups = groups_of(found, options.group_by)
        task = ReadingTask(
            query,
            [stretches[at] for at in range(in_order)],
            first,
            settings.first_stage_weight,
            options.top_k,
            # A candidate whose document is not known counts with the first one's, so that it settles nothing.
            groups=groups + groups[:1] * (len(first) - len(groups)) if groups else None,
            budget_ms=options.budget_ms,
            batch_size=settings.batch_size,
            counts=None if plan.least is None else partial(readers.confidence.reaches, least=plan.least),
            twins=plan.twins.groups,
            beyond={at: stretches[at] for at in positions[in_order:]},
            early_stop=self._early_stop(readers.confidence),
        )
        return task, ranges

    def _early_stop(self, confidence: Confidence) -> EarlyStop:
        wanted = self._config.rerank.early_stop
        if isinstance(wanted, float):
            # Without a forecast for this cross-encoder only what is certain stops it.
            return "exact" if confidence.forecast is None else LikelySettled(confidence.forecast, wanted)
        return "exact" if wanted == "exact" else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be read: the first ``depth``, and their twins; and the probability that a hit needs."""

    depth: int
    twins: Twins
    least: float | None


@dataclass(frozen=True, slots=True)
class _Readers:
    """Who reads, ``None`` for nobody, and why nobody does where somebody should."""

    reranker: Reranker | None = None
    confidence: Confidence = Confidence()
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class _Open:
    """A query whose candidates are being read, and what its result needs besides."""

    query: str
    found: Fetched
    cues: Sequence[str]
    plan: _Plan
    readers: _Readers
    task: ReadingTask
    ranges: dict[int, tuple[int, int]]
