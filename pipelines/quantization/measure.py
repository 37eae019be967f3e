"""What an index gives and costs with its vectors compressed as they are: likeness, quality, time and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.plan import code_bytes
from pipelines.progress import StepCallback
from pipelines.quantization.queries import SampledQueries
from pipelines.search_options import SearchOptions
from pipelines.serving import Serving
from retrieval.config import Config
from retrieval.datatypes import FirstStage, Quantization, Results, ScoredPoint, SearchRequest
from retrieval.errors import StoreError
from retrieval.evaluation import LatencySummary, evaluate_run, summarize_latency

TOP = 100
NDCG = "nDCG@10"
OVERLAP = f"overlap@{TOP}"

_HITS = 10
_WARM_UP = 5
_BATCH = 10
_PROBES = 20
_FLOAT_NOISE = 1e-5
_WHOLE = 0.99


@dataclass(frozen=True, slots=True)
class Measurement:
    """One state of an index.

    Args:
        quantization: How its vectors are compressed.
        in_effect: Share of the vectors that searches score in compressed form, sampled; 0 without quantization.
        overlap: Mean share of the exact top 100 of the static arm that its search returns.
        ndcg: Mean nDCG@10 of the static arm alone; ``None`` without judgements.
        first_stage_ndcg: The same of the configured first stage.
        static: How long the static arm alone takes: encoding the query and fetching candidates.
        first_stage: The same of the configured first stage.
        bytes_per_passage: Of the vectors that are read for every search; with compression the originals, of four bytes
            a dimension, stay stored beside them for rescoring.
        bytes: The same over all passages.
    """

    quantization: Quantization
    in_effect: float
    overlap: float
    ndcg: float | None
    first_stage_ndcg: float | None
    static: LatencySummary
    first_stage: LatencySummary
    bytes_per_passage: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Values:
    """What one state gave for each query: the means of these are in its `Measurement`.

    Args:
        overlaps: Of the queries of which the encoder knows a word.
        ndcgs: Of all queries; ``None`` without judgements.
    """

    overlaps: tuple[float, ...]
    ndcgs: tuple[float, ...] | None


class Measurer:
    """Measures the states of one index, always with the same queries.

    Args:
        config: Settings of the index.
        serving: What serves.
        passages: How many there are.
        queries: The queries.
        on_progress: Called after every query.

    Raises:
        StoreError: The encoder knows no word of any query, or the index holds no vector.
    """

    def __init__(
        self, config: Config, serving: Serving, passages: int, queries: SampledQueries, on_progress: StepCallback
    ) -> None:
        self._config = config
        self._serving = serving
        self._passages = passages
        self._queries = queries
        self._on_progress = on_progress
        vectors = serving.encoder.encode_queries(list(queries.texts.values()))
        self._known = [bool(row.any()) for row in vectors]
        self._vectors = [row for row, known in zip(vectors, self._known, strict=True) if known]
        requests = [SearchRequest(vector, TOP, exact=True) for vector in self._vectors]
        self._exact = self._search(requests, "exact search")
        if not any(self._exact):
            raise StoreError(
                f"{serving.store.location} has no vectors that are near to any of {len(vectors)} queries; quantization "
                "has nothing to act on"
            )

    def in_effect(self) -> float:
        """Share of sampled vectors that searches score in compressed form, told by their scores."""
        if self._serving.store.quantization.kind == "none":
            return 0.0
        exact = self._exact[:_PROBES]
        requests = [
            SearchRequest(vector, len(points), {"must": [{"has_id": [p.id for p in points]}]}, rescore=False)
            for vector, points in zip(self._vectors, exact, strict=False)
            if points
        ]
        compressed = total = 0
        answers = self._search(requests, "compressed search")
        for points, coded in zip([points for points in exact if points], answers, strict=True):
            scores = {point.id: point.score for point in points}
            total += len(coded)
            compressed += sum(abs(scores[point.id] - point.score) > _FLOAT_NOISE for point in coded)
        share = compressed / total if total else 0.0
        # A compressed score may be the exact one by chance.
        return 1.0 if share >= _WHOLE else share

    def measure(self, stage: str) -> tuple[Measurement, Values]:
        """Measure the state that the index is in.

        Args:
            stage: Name of it for progress: ``before``.
        """
        store = self._serving.store
        found = self._search([SearchRequest(vector, TOP) for vector in self._vectors], f"{stage}: {OVERLAP}")
        overlaps = tuple(
            len({point.id for point in exact} & {point.id for point in points}) / len(exact)
            for exact, points in zip(self._exact, found, strict=True)
            if exact
        )
        arms = self._config.first_stage.arms
        static = self._run(f"{stage}: static arm", "dense")
        both = static if arms == "dense" else self._run(f"{stage}: first stage", arms)
        ndcgs = self._ndcgs([[hit.document_id for hit in results] for results in static])
        first = self._ndcgs([[hit.document_id for hit in results] for results in both])
        share, dim = self.in_effect(), self._serving.encoder.dim
        per_passage = share * code_bytes(store.quantization, dim) + (1 - share) * dim * 4
        measurement = Measurement(
            quantization=store.quantization,
            in_effect=share,
            overlap=float(np.mean(overlaps)),
            ndcg=_mean(ndcgs),
            first_stage_ndcg=_mean(first),
            static=_latency(static),
            first_stage=_latency(both),
            bytes_per_passage=per_passage,
            bytes=round(per_passage * self._passages),
        )
        return measurement, Values(overlaps, ndcgs)

    def exact(self) -> Values:
        """What the static arm gives with every vector as it was given, compared with every query."""
        ids = list(dict.fromkeys(point.id for points in self._exact for point in points))
        stored = [
            point
            for start in range(0, len(ids), 1_000)
            for point in self._serving.store.get(ids[start : start + 1_000], payload=["document_id"])
        ]
        documents = {point.id: str(point.payload["document_id"]) for point in stored}
        ranked = iter(self._exact)
        lists = [
            list(dict.fromkeys(documents[point.id] for point in next(ranked) if point.id in documents))[:_HITS]
            if known
            else []
            for known in self._known
        ]
        return Values(tuple(1.0 for points in self._exact if points), self._ndcgs(lists))

    def _run(self, stage: str, arms: FirstStage) -> list[Results]:
        options = SearchOptions.from_config(
            self._config, _HITS, {"rerank": False, "first_stage": arms, "group_by": "document"}
        )
        texts = list(self._queries.texts.values())
        for text in texts[:_WARM_UP]:
            self._serving.search.run([text], options)
        results = []
        for done, text in enumerate(texts):
            self._on_progress(stage, done, len(texts))
            results += self._serving.search.run([text], options)
        return results

    def _ndcgs(self, ranked: Sequence[Sequence[str]]) -> tuple[float, ...] | None:
        qrels = self._queries.qrels
        if qrels is None:
            return None
        run = {
            query: [(document, -float(place)) for place, document in enumerate(documents)]
            for query, documents in zip(self._queries.texts, ranked, strict=True)
        }
        return tuple(evaluate_run(qrels, run, [NDCG]).per_query[NDCG].values())

    def _search(self, requests: Sequence[SearchRequest], stage: str) -> list[list[ScoredPoint]]:
        answers = []
        for start in range(0, len(requests), _BATCH):
            self._on_progress(stage, start, len(requests))
            answers += self._serving.store.search(requests[start : start + _BATCH])
        return answers


def _mean(values: Sequence[float] | None) -> float | None:
    return None if values is None else float(np.mean(values))


def _latency(results: Sequence[Results]) -> LatencySummary:
    return summarize_latency([one.timings.encode + one.timings.retrieve for one in results])
