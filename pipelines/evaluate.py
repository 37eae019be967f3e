"""Measure a pipeline on a judged collection: BM25 alone, static vectors alone, both, and with the cross-encoder.

Two passes. Quality: every judged query, one at a time, with as many hits as the measures need, grouped by document;
the cross-encoder then reads everything that ``rerank.depth`` allows. Latency: an even sample of the queries, after a
warm-up that does not count, with ``search.top_k`` hits as a user asks for them; with few hits the cross-encoder may
stop earlier, and what it leaves out cannot change those hits.
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.progress import StepCallback
from pipelines.search_options import SearchArguments
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config
from retrieval.datatypes import IngestProgress, IngestReport, Results
from retrieval.errors import ConfigError
from retrieval.evaluation import (
    BeirCollection,
    LatencySummary,
    bootstrap_interval,
    evaluate_run,
    summarize_latency,
)
from retrieval.manifest import timestamp

MEASURES = ("nDCG@10", "R@100", "RR@10")
SYSTEMS: Mapping[str, SearchArguments] = {
    "BM25": {"first_stage": "bm25", "rerank": False},
    "static": {"first_stage": "dense", "rerank": False},
    "hybrid": {"first_stage": "hybrid", "rerank": False},
    "two-stage": {"first_stage": "hybrid", "rerank": True},
}
"""What is compared, and the arguments of `TwoStagePipeline.search` that make it."""

_HITS = 100
_TIMED = 100
_WARM_UP = 5


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What one system reached.

    Args:
        name: Key of `SYSTEMS`.
        means: Mean of each measure over all judged queries; a query without results counts as zero.
        intervals: 95 % bootstrap interval of each mean.
        per_query: Value of each measure for each query.
        latency: Of single queries with the configured number of hits.
        reranked: Passages that the cross-encoder read for each of the timed queries, on average.
        run: Document ids with scores for each query, best first.
        warnings: Sentences that searches gave, with the number of queries.
    """

    name: str
    means: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_query: Mapping[str, Mapping[str, float]]
    latency: LatencySummary
    reranked: float
    run: Mapping[str, tuple[tuple[str, float], ...]] = field(repr=False)
    warnings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Measurements with everything needed to repeat them.

    Args:
        collection: Folder of the collection.
        split: Which judgements.
        queries: How many judged queries.
        documents: Documents in the index.
        passages: Passages in the index.
        rejected: Documents that could not be used and so cannot be found.
        ingest_seconds: Time of the ingest; near zero when the index was there already.
        encoder: Fingerprint of the static encoder.
        reranker: Name of the cross-encoder.
        config: All settings.
        measures: Names of the measures.
        timed_queries: How many queries latency was measured on.
        timed_top_k: Hits of each of them.
        machine: Facts about this machine.
        date: ISO 8601 UTC.
        systems: One result for each system.
    """

    collection: str
    split: str
    queries: int
    documents: int
    passages: int
    rejected: int
    ingest_seconds: float
    encoder: str
    reranker: str
    config: Mapping[str, object]
    measures: tuple[str, ...]
    timed_queries: int
    timed_top_k: int
    machine: Mapping[str, str | int]
    date: str
    systems: tuple[SystemResult, ...]


def evaluate_collection(
    folder: str | Path,
    config: Config | None = None,
    *,
    index: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
    measures: Sequence[str] = MEASURES,
    on_progress: StepCallback | None = None,
) -> EvaluationReport:
    """Ingest a collection and measure all `SYSTEMS` on it.

    Args:
        folder: A BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``.
        config: Settings; ``None`` for the defaults.
        index: Folder of an index to use again next time; ``None`` for a temporary one.
        split: Which judgements.
        limit: Only the first so many judged queries; ``None`` for all.
        measures: Names as `retrieval.evaluation.evaluate_run` takes them.
        on_progress: Called while ingesting and measuring.

    Raises:
        DocumentError: The collection is incomplete or malformed.
        ConfigError: The index holds documents of something else.
        ValueError: A measure is unknown or ``limit`` is below 1.
        RetrievalError: As for `TwoStagePipeline.open`.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")
    config = config or Config()
    report_progress = on_progress or (lambda stage, done, total: None)
    collection = BeirCollection.open(folder, split)
    chosen = list(collection.queries)[:limit]
    queries = {query: collection.queries[query] for query in chosen}
    qrels = {query: collection.qrels[query] for query in chosen}
    evaluate_run(qrels, {}, measures)  # an unknown measure is better known before the ingest

    with _index_folder(index) as place, TwoStagePipeline.open(place, config) as pipeline:
        ingest = _ingest(pipeline, collection, report_progress)
        systems = tuple(_measure(pipeline, name, queries, qrels, measures, report_progress) for name in SYSTEMS)
        return EvaluationReport(
            collection=str(folder),
            split=split,
            queries=len(queries),
            documents=pipeline.manifest.documents,
            passages=pipeline.manifest.passages,
            rejected=ingest.rejected_count,
            ingest_seconds=ingest.seconds,
            encoder=str(pipeline.encoder.fingerprint),
            reranker=config.rerank.model,
            config=config.model_dump(mode="json"),
            measures=tuple(measures),
            timed_queries=len(_sample(list(queries.values()))),
            timed_top_k=config.search.top_k,
            machine=_machine(),
            date=timestamp(),
            systems=systems,
        )


@contextmanager
def _index_folder(index: str | Path | None) -> Iterator[Path]:
    if index is not None:
        yield Path(index)
        return
    with tempfile.TemporaryDirectory(prefix="retrieval-evaluate-") as temporary:
        yield Path(temporary) / "index"


def _ingest(pipeline: TwoStagePipeline, collection: BeirCollection, on_progress: StepCallback) -> IngestReport:
    if pipeline.manifest.documents:
        _require_same_documents(pipeline, collection)

    def show(progress: IngestProgress) -> None:
        on_progress(f"ingest: {progress.stage}", progress.documents, 0)

    return pipeline.ingest(collection.documents(), on_progress=show)


def _require_same_documents(pipeline: TwoStagePipeline, collection: BeirCollection) -> None:
    """Other documents in the index would be found as well, and count as wrong."""
    own = {document.key for document in collection.documents()}
    first_passages = {"must": [{"key": "index", "match": {"value": 0}}]}
    for point in pipeline.store.scan(first_passages, payload=["document"]):
        if point.payload["document"] not in own:
            raise ConfigError(
                f"{pipeline.store.location} holds {point.payload['document']!r}, which is not in {collection.folder}; "
                "give another --index, or none for a temporary one"
            )


def _measure(
    pipeline: TwoStagePipeline,
    name: str,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str],
    on_progress: StepCallback,
) -> SystemResult:
    arguments = SYSTEMS[name]
    hits = max([_HITS, *(int(cut) for measure in measures for cut in re.findall(r"@(\d+)", measure))])
    deep: SearchArguments = {
        **arguments,
        "candidates": max(hits, pipeline.config.first_stage.candidates),
        "group_by": "document",
    }
    run: dict[str, tuple[tuple[str, float], ...]] = {}
    warnings: dict[str, int] = {}
    for done, (query, text) in enumerate(queries.items()):
        on_progress(f"{name}: quality", done, len(queries))
        results = pipeline.search(text, hits, **deep)
        run[query] = tuple((hit.document_id, hit.score) for hit in results)
        for warning in results.warnings:
            warnings[warning] = warnings.get(warning, 0) + 1
    timed = _time(pipeline, name, list(queries.values()), on_progress)
    measured = evaluate_run(qrels, run, measures)
    return SystemResult(
        name=name,
        means=measured.means,
        intervals={measure: bootstrap_interval(list(measured.per_query[measure].values())) for measure in measures},
        per_query=measured.per_query,
        latency=summarize_latency([results.timings.total for results in timed]),
        reranked=sum(results.reranked for results in timed) / len(timed),
        run=run,
        warnings=warnings,
    )


def _time(pipeline: TwoStagePipeline, name: str, queries: Sequence[str], on_progress: StepCallback) -> list[Results]:
    sample = _sample(queries)
    arguments = SYSTEMS[name]
    for query in sample[:_WARM_UP]:
        pipeline.search(query, **arguments)
    timed = []
    for done, query in enumerate(sample):
        on_progress(f"{name}: latency", done, len(sample))
        timed.append(pipeline.search(query, **arguments))
    return timed


def _sample(queries: Sequence[str]) -> Sequence[str]:
    """At most `_TIMED` queries, evenly spread."""
    count = min(len(queries), _TIMED)
    return [queries[position * len(queries) // count] for position in range(count)]


def _machine() -> dict[str, str | int]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpus": usable,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
