"""What an evaluation found, with everything needed to repeat it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.evaluation.loss_report import LossReport
from retrieval.evaluation import Comparison, LatencySummary

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Setup:
    """An index and the settings that some systems were measured with.

    Args:
        documents: Documents in the index.
        passages: Passages in the index.
        rejected: Documents that could not be used and so cannot be found.
        ingest_seconds: Time of the ingest; near zero when the index was there already.
        encoder: Fingerprint of the static encoder.
        reranker: Name of the cross-encoder.
        dense_bytes: Of the vector of a passage as searches read it, compressed where that is in effect.
        sparse_bytes: Of the BM25 entries of a passage, 8 for each term; the mean over at most 10,000 passages.
        config: All settings.
    """

    documents: int
    passages: int
    rejected: int
    ingest_seconds: float
    encoder: str
    reranker: str
    dense_bytes: float
    sparse_bytes: float
    config: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What one system reached.

    Args:
        name: Of the system.
        setup: Position in `CollectionReport.setups`; ``None`` for a run from elsewhere.
        means: Mean of each measure over all judged queries; a query without results counts as zero.
        intervals: 95 % bootstrap interval of each mean.
        per_query: Value of each measure for each query.
        unanswered: Judged queries without results.
        latency: Of single queries with the configured number of hits; ``None`` for a run from elsewhere.
        reranked: Passages that the cross-encoder read for each of the timed queries, on average; ``None`` likewise.
        bytes_per_passage: Of what the first stage searches, without texts and ids; ``None`` likewise.
        cost_per_million: Of a million queries one after another, in the currency of the price; ``None`` without one.
        run: Document ids with scores for each query, best first.
        warnings: Sentences that searches gave, with the number of queries.
    """

    name: str
    setup: int | None
    means: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_query: Mapping[str, Mapping[str, float]]
    unanswered: int
    latency: LatencySummary | None
    reranked: float | None
    bytes_per_passage: float | None
    cost_per_million: float | None
    run: Mapping[str, tuple[tuple[str, float], ...]] = field(repr=False)
    warnings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """Systems side by side on one collection.

    Args:
        collection: Folder of the collection as it was given, its name where that was absolute; the file of judgements
            where only runs were compared.
        split: Which judgements: their name in the folder, or their file.
        queries: Text of each judged query; empty texts where only runs were compared.
        qrels: The judgements that were used.
        measures: Names of the measures.
        setups: One for each configuration; the first gives the built-in systems.
        systems: One result for each system.
        baseline: Name of the system that the others are compared with.
        comparisons: Measure by measure; empty where there is one system only.
        timed_queries: How many queries latency was measured on.
        timed_top_k: Hits of each of them, as the first configuration says.
        price_per_hour: Of the machine; ``None`` where none was given.
        losses: Where the two-stage system lost relevant documents; ``None`` where that was not asked for, or only runs
            were compared.
    """

    collection: str
    split: str
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]] = field(repr=False)
    measures: tuple[str, ...]
    setups: tuple[Setup, ...]
    systems: tuple[SystemResult, ...]
    baseline: str
    comparisons: tuple[Comparison, ...]
    timed_queries: int
    timed_top_k: int
    price_per_hour: float | None
    losses: LossReport | None = None

    @property
    def name(self) -> str:
        """The last part of the folder."""
        return Path(self.collection).resolve().name

    def against_baseline(self, system: str, measure: str) -> Comparison | None:
        """The comparison of a system; ``None`` for the baseline itself."""
        return next((one for one in self.comparisons if (one.system, one.measure) == (system, measure)), None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One or more collections.

    Args:
        command: Command line that gives this again; empty for evaluations made in Python.
        version: Of this project.
        date: ISO 8601 UTC.
        machine: Facts about this machine.
        collections: One report for each.
    """

    command: str
    version: str
    date: str
    machine: Mapping[str, str | int]
    collections: tuple[CollectionReport, ...]


def cost_per_million(queries_per_second: float, price_per_hour: float | None) -> float | None:
    """Price of a million queries that run one after another on a machine.

    Args:
        queries_per_second: Throughput.
        price_per_hour: Of the machine.

    Returns:
        The price in the same currency; ``None`` without a price or throughput.
    """
    if price_per_hour is None or queries_per_second <= 0:
        return None
    return _MILLION / queries_per_second / 3600 * price_per_hour


def machine_facts() -> dict[str, str | int]:
    """Processor, usable cores, system and Python of this machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpus": usable,
        "platform": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
