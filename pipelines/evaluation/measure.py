"""One system on one collection, in two passes.

Quality: every judged query, one at a time, with all candidates, of which the best passage of each document counts; the
cross-encoder then reads everything that ``rerank.depth`` allows. Latency: an even sample of the queries, after a
warm-up that does not count, with ``search.top_k`` hits as a user asks for them; with few hits the cross-encoder may
stop earlier, and what it leaves out cannot change those hits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation.footprint import bytes_of
from pipelines.evaluation.report import Setup, SystemResult, cost_per_million
from pipelines.evaluation.systems import System
from pipelines.progress import StepCallback
from pipelines.search_options import SearchArguments
from pipelines.two_stage import TwoStagePipeline
from retrieval.datatypes import Results
from retrieval.evaluation import LatencySummary, bootstrap_interval, evaluate_run, summarize_latency

_HITS = 100
_TIMED = 100
_WARM_UP = 5

Run = Mapping[str, tuple[tuple[str, float], ...]]
Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What systems are measured against.

    Args:
        queries: Text of each judged query.
        qrels: Their judgements.
        measures: Names of the measures.
    """

    queries: Mapping[str, str]
    qrels: Qrels
    measures: tuple[str, ...]


def measure_system(
    pipeline: TwoStagePipeline,
    system: System,
    judged: Judged,
    setup: tuple[int, Setup],
    price_per_hour: float | None,
    on_progress: StepCallback,
    on_results: Callable[[str, Results], None] | None = None,
) -> SystemResult:
    """Both passes of one system.

    Args:
        pipeline: Over the ingested collection.
        system: What to measure.
        judged: Queries, judgements and measures.
        setup: Position and facts of the index.
        price_per_hour: Of the machine.
        on_progress: Called after every query.
        on_results: Called with the id of each query and its candidates, passage by passage.
    """
    run, warnings = _run(pipeline, system, judged, on_progress, on_results)
    timed = _time(pipeline, system, list(judged.queries.values()), on_progress)
    latency = summarize_latency([results.timings.total for results in timed])
    arms = system.arguments.get("first_stage") or pipeline.config.first_stage.arms
    return result_of_run(
        system.name,
        run,
        judged.qrels,
        judged.measures,
        setup=setup[0],
        latency=latency,
        reranked=sum(results.reranked for results in timed) / len(timed),
        bytes_per_passage=bytes_of(arms, setup[1].dense_bytes, setup[1].sparse_bytes),
        cost=cost_per_million(latency.queries_per_second, price_per_hour),
        warnings=warnings,
    )


def result_of_run(
    name: str,
    run: Run,
    qrels: Qrels,
    measures: Sequence[str],
    *,
    setup: int | None = None,
    latency: LatencySummary | None = None,
    reranked: float | None = None,
    bytes_per_passage: float | None = None,
    cost: float | None = None,
    warnings: Mapping[str, int] | None = None,
) -> SystemResult:
    """Measure a finished run; what is known beyond it is passed on."""
    measured = evaluate_run(qrels, run, measures)
    return SystemResult(
        name=name,
        setup=setup,
        means=measured.means,
        intervals={measure: bootstrap_interval(list(measured.per_query[measure].values())) for measure in measures},
        per_query=measured.per_query,
        unanswered=sum(not run.get(query) for query in qrels),
        latency=latency,
        reranked=reranked,
        bytes_per_passage=bytes_per_passage,
        cost_per_million=cost,
        run=run,
        warnings=warnings or {},
    )


def timed_sample(queries: Sequence[str]) -> Sequence[str]:
    """The queries that latency is measured on: at most 100, evenly spread."""
    count = min(len(queries), _TIMED)
    return [queries[position * len(queries) // count] for position in range(count)]


def _run(
    pipeline: TwoStagePipeline,
    system: System,
    judged: Judged,
    on_progress: StepCallback,
    on_results: Callable[[str, Results], None] | None,
) -> tuple[Run, Mapping[str, int]]:
    hits = deepest_cut(judged.measures)
    # All candidates are asked for, so that the cross-encoder stops at its depth or budget alone.
    passages: SearchArguments = {**system.arguments, "group_by": "passage"}
    run: dict[str, tuple[tuple[str, float], ...]] = {}
    warnings: dict[str, int] = {}
    for done, (query, text) in enumerate(judged.queries.items()):
        on_progress(f"{system.name}: quality", done, len(judged.queries))
        results = pipeline.search(text, pipeline.config.first_stage.candidates, **passages)
        best: dict[str, float] = {}
        for hit in results:
            best.setdefault(hit.document_id, hit.score)
        run[query] = tuple(best.items())[:hits]
        for warning in results.warnings:
            warnings[warning] = warnings.get(warning, 0) + 1
        if on_results is not None:
            on_results(query, results)
    return run, warnings


def deepest_cut(measures: Sequence[str]) -> int:
    """How many hits the measures look at, at least 100."""
    return max([_HITS, *(int(cut) for measure in measures for cut in re.findall(r"@(\d+)", measure))])


def _time(
    pipeline: TwoStagePipeline, system: System, queries: Sequence[str], on_progress: StepCallback
) -> list[Results]:
    sample = timed_sample(queries)
    for query in sample[:_WARM_UP]:
        pipeline.search(query, **system.arguments)
    timed = []
    for done, query in enumerate(sample):
        on_progress(f"{system.name}: latency", done, len(sample))
        timed.append(pipeline.search(query, **system.arguments))
    return timed
