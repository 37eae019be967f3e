"""Evaluations: of a collection with everything that can be measured, and of finished runs alone."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.evaluation.footprint import dense_bytes, sparse_bytes
from pipelines.evaluation.loss_report import LossReport
from pipelines.evaluation.loss_summary import Traced
from pipelines.evaluation.losses import find_losses
from pipelines.evaluation.measure import Judged, Qrels, Run, measure_system, result_of_run, timed_sample
from pipelines.evaluation.report import CollectionReport, Setup, SystemResult
from pipelines.evaluation.systems import (
    BASELINE,
    MEASURES,
    SYSTEMS,
    TRACED,
    System,
    groups_of,
    require_baseline,
    require_distinct,
)
from pipelines.evaluation.traces import QueryTrace, trace_of
from pipelines.progress import StepCallback
from pipelines.two_stage import TwoStagePipeline
from retrieval.config import Config, MemoryStoreConfig
from retrieval.datatypes import IngestProgress, IngestReport, Results
from retrieval.errors import ConfigError
from retrieval.evaluation import BeirCollection, compare, evaluate_run, read_qrels


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to measure and compare.

    Args:
        split: Which judgements of the folder.
        qrels: Judgements of another file; ``None`` for those of the split.
        limit: Only the first so many judged queries; ``None`` for all.
        measures: Names as `retrieval.evaluation.evaluate_run` takes them.
        systems: Settings of further systems by their names.
        runs: Results of further systems by their names.
        baseline: Name of the system to compare with; ``None`` for BM25, or the first where only runs are compared.
        price_per_hour: Of the machine, for the cost of a million queries.
        losses: Whether to tell where the two-stage system lost relevant documents.

    Raises:
        ValueError: ``limit`` is below 1 or the price is not a positive number.
    """

    split: str = "test"
    qrels: Path | None = None
    limit: int | None = None
    measures: tuple[str, ...] = MEASURES
    systems: Mapping[str, Config] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    baseline: str | None = None
    price_per_hour: float | None = None
    losses: bool = True

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is at least 1, not {self.limit}")
        if not self.measures:
            raise ValueError(f"name at least one measure, such as {MEASURES[0]}")
        price = self.price_per_hour
        if price is not None and not (math.isfinite(price) and price > 0):
            raise ValueError(f"price_per_hour is a number above 0, not {price}")


def evaluate_collection(
    folder: str | Path,
    config: Config | None = None,
    *,
    index: str | Path | None = None,
    options: EvaluateOptions | None = None,
    on_progress: StepCallback | None = None,
) -> CollectionReport:
    """Ingest a collection, measure all systems on it and compare them.

    Args:
        folder: A BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``.
        config: Settings of the built-in systems; ``None`` for the defaults.
        index: Folder of an index to use again next time; ``None`` for a temporary one. Further systems share it where
            their settings give the same index.
        options: What to measure and compare; ``None`` for the defaults.
        on_progress: Called while ingesting and measuring.

    Raises:
        DocumentError: The collection is incomplete or malformed.
        ConfigError: The index holds documents of something else.
        ValueError: A measure, the baseline or a name of a system cannot be used, or a run has no judged query.
        RetrievalError: As for `TwoStagePipeline.open`.
    """
    config, options = config or Config(), options or EvaluateOptions()
    report_progress = on_progress or (lambda stage, done, total: None)
    collection = BeirCollection.open(folder, options.split, qrels=options.qrels)
    qrels = _limited(collection.qrels, options.limit)
    queries = {query: collection.queries[query] for query in qrels}
    # A mistake is better known before the ingest.
    baseline = options.baseline or BASELINE
    names = [*SYSTEMS, *options.systems, *options.runs]
    require_distinct(names)
    require_baseline(baseline, names)
    foreign = _results_of_runs(qrels, options)

    setups: list[Setup] = []
    systems: list[SystemResult] = []
    ingests: dict[str, IngestReport] = {}
    losses: LossReport | None = None
    with tempfile.TemporaryDirectory(prefix="retrieval-evaluate-") as temporary:
        for number, group in enumerate(groups_of(config, options.systems)):
            key = group.index_settings
            first = number == 0 or key == next(iter(ingests))
            place = Path(index) if index is not None and first else Path(temporary) / _digest(key)
            with TwoStagePipeline.open(place, group.config) as pipeline:
                if key not in ingests or isinstance(group.config.store, MemoryStoreConfig):
                    ingests[key] = _ingest(pipeline, collection, report_progress)
                setups.append(_setup(pipeline, ingests[key]))
                judged = Judged(queries, qrels, options.measures)
                for system in group.systems:
                    setup, price = (number, setups[-1]), options.price_per_hour
                    if not number and system.name == TRACED and options.losses:
                        result, losses = _traced(pipeline, system, judged, setup, price, ingests[key], report_progress)
                    else:
                        result = measure_system(pipeline, system, judged, setup, price, report_progress)
                    systems.append(result)
    report = _report(
        shown_path(folder), queries, qrels, options, baseline, (*systems, *foreign), setups=tuple(setups), config=config
    )
    return replace(report, losses=losses)


def evaluate_runs(options: EvaluateOptions) -> CollectionReport:
    """Measure and compare finished runs, without a collection.

    Args:
        options: With ``qrels`` and at least one of ``runs``; ``systems`` and the price have no meaning.

    Raises:
        DocumentError: The judgements cannot be read.
        ValueError: Judgements or runs are missing, a measure or the baseline is unknown, or a run has no judged query.
    """
    if options.qrels is None or not options.runs or options.systems:
        raise ValueError("without the folder of a collection, judgements and runs are needed, and no other systems")
    qrels = _limited(read_qrels(options.qrels), options.limit)
    names = list(options.runs)
    require_distinct(names)
    baseline = options.baseline or names[0]
    require_baseline(baseline, names)
    results = _results_of_runs(qrels, options)
    return _report(shown_path(options.qrels), dict.fromkeys(qrels, ""), qrels, options, baseline, results)


def _traced(
    pipeline: TwoStagePipeline,
    system: System,
    judged: Judged,
    setup: tuple[int, Setup],
    price: float | None,
    ingest: IngestReport,
    on_progress: StepCallback,
) -> tuple[SystemResult, LossReport]:
    """Measure a system and follow its relevant documents."""
    traces: dict[str, QueryTrace] = {}

    def keep(query: str, results: Results) -> None:
        traces[query] = trace_of(results, judged.qrels[query], depth=pipeline.config.rerank.depth)

    result = measure_system(pipeline, system, judged, setup, price, on_progress, keep)
    traced = Traced(system.name, judged.queries, judged.qrels, traces, result.run, ingest)
    return result, find_losses(pipeline, traced, on_progress)


def _limited(qrels: Qrels, limit: int | None) -> Qrels:
    return {query: qrels[query] for query in list(qrels)[:limit]}


def _results_of_runs(qrels: Qrels, options: EvaluateOptions) -> tuple[SystemResult, ...]:
    evaluate_run(qrels, {}, options.measures)
    for name, run in options.runs.items():
        if not any(query in qrels for query in run):
            raise ValueError(f"run {name!r} has no results for any of the {len(qrels):,} judged queries: other ids?")
    return tuple(
        result_of_run(name, {query: run[query] for query in qrels if query in run}, qrels, options.measures)
        for name, run in options.runs.items()
    )


def _report(
    collection: str,
    queries: Mapping[str, str],
    qrels: Qrels,
    options: EvaluateOptions,
    baseline: str,
    systems: tuple[SystemResult, ...],
    *,
    setups: tuple[Setup, ...] = (),
    config: Config | None = None,
) -> CollectionReport:
    return CollectionReport(
        collection=collection,
        split=shown_path(options.qrels) if options.qrels is not None else options.split,
        queries=queries,
        qrels=qrels,
        measures=options.measures,
        setups=setups,
        systems=systems,
        baseline=baseline,
        comparisons=compare({system.name: system.per_query for system in systems}, baseline),
        timed_queries=len(timed_sample(list(queries.values()))) if setups else 0,
        timed_top_k=config.search.top_k if config is not None else 0,
        price_per_hour=options.price_per_hour,
    )


def shown_path(path: str | Path) -> str:
    """A path as it was given, by its name alone where it was absolute: reports are made to be shown."""
    return Path(path).name if Path(path).is_absolute() else str(path)


def _digest(settings: str) -> str:
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _setup(pipeline: TwoStagePipeline, ingest: IngestReport) -> Setup:
    return Setup(
        documents=pipeline.manifest.documents,
        passages=pipeline.manifest.passages,
        rejected=ingest.rejected_count,
        ingest_seconds=ingest.seconds,
        encoder=str(pipeline.encoder.fingerprint),
        reranker=pipeline.config.rerank.model,
        dense_bytes=dense_bytes(pipeline),
        sparse_bytes=sparse_bytes(pipeline),
        config=pipeline.config.model_dump(mode="json"),
    )


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
