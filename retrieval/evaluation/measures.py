"""Measures of a run against judgements, per query and as means, with intervals; and summaries of latencies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Qrels = Mapping[str, Mapping[str, int]]
"""Query id to document id to grade."""
Run = Mapping[str, Sequence[tuple[str, float]]]
"""Query id to (document id, score) pairs."""

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10")
_RESAMPLES = 2000
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of measures, by the names asked for.

    Args:
        means: Mean of each measure over all judged queries.
        per_query: Value of each measure for each judged query, in the order of the judgements.
    """

    means: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """How long queries took, one after another.

    Args:
        p50: Median in milliseconds.
        p95: 95th percentile in milliseconds.
        queries_per_second: Number of queries by the sum of their times; 0 when nothing was measured.
    """

    p50: float
    p95: float
    queries_per_second: float


def evaluate_run(qrels: Qrels, run: Run, measures: Sequence[str] = DEFAULT_MEASURES) -> Measured:
    """Measure a run; the run and the judgements are not changed.

    Every judged query counts, with 0 when the run has nothing for it or nothing relevant exists; queries of the run
    without judgements do not count. Grades below 1 are not relevant. Results are ranked by score; equal scores keep the
    order in which they stand in the run, and a document that appears twice counts once, at its better place.

    Args:
        qrels: Judgements.
        run: Results of each query.
        measures: Names as ``ir_measures`` has them, such as ``nDCG@10``, ``R@100``, ``RR@10``, ``AP``.

    Raises:
        ValueError: There are no judgements, a measure is unknown, or a score is not a number.
    """
    import ir_measures

    if not qrels:
        raise ValueError("no query is judged, so there is nothing to measure")
    parsed = {name: _parse(name) for name in measures}
    ranked = {query: _by_rank(query, run.get(query, ())) for query in qrels}
    names = {measure: name for name, measure in parsed.items()}
    values = {name: dict.fromkeys(qrels, 0.0) for name in measures}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    for metric in ir_measures.iter_calc(list(names), judged, ranked):
        values[names[metric.measure]][metric.query_id] = float(metric.value)
    means = {name: math.fsum(rows.values()) / len(rows) for name, rows in values.items()}
    return Measured(means, values)


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a mean, from 2,000 resamples.

    For two systems over the same queries, pass the differences per query: their interval excludes 0 when the queries
    show a difference.

    Args:
        values: One value for each query.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: There are no values, or one is not finite.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError(f"an interval needs at least one value, all of them finite, not {data.size} values")
    random = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    for start in range(0, _RESAMPLES, _BATCH):
        means[start : start + _BATCH] = data[random.integers(0, data.size, (_BATCH, data.size))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summarize_latency(milliseconds: Sequence[float]) -> LatencySummary:
    """Percentiles and throughput of queries that ran one after another.

    Args:
        milliseconds: Time of each query.

    Raises:
        ValueError: There are none, or one is negative or not finite.
    """
    data = np.asarray(milliseconds, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all() or (data < 0).any():
        raise ValueError(f"latencies are finite and from 0, at least one of them; got {data.size} values")
    p50, p95 = np.percentile(data, [50, 95])
    total = float(data.sum())
    return LatencySummary(float(p50), float(p95), data.size * 1000 / total if total > 0 else 0.0)


def _parse(name: str) -> Any:
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError) as error:
        raise ValueError(f"measure {name!r} is unknown; measures look like {', '.join(DEFAULT_MEASURES)}") from error


def _by_rank(query: str, results: Sequence[tuple[str, float]]) -> dict[str, float]:
    if any(math.isnan(score) for _, score in results):
        raise ValueError(f"the run has a score for query {query!r} that is not a number")
    ranked = dict.fromkeys(document for document, _ in sorted(results, key=lambda result: -result[1]))
    # trec_eval breaks ties by document id, so ranks stand in for the scores.
    return {document: float(len(ranked) - place) for place, document in enumerate(ranked)}
