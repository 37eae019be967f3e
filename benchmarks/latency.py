"""Ingest, search and cold-start times of the defaults on one BEIR folder.

python benchmarks/latency.py --collection path/to/beir/scifact --out benchmarks/latency.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines import TwoStagePipeline
from retrieval.config import Config

COLD_RUNS = 15
WARM_UP = 10


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--queries", type=int, default=200, help="how many queries are timed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(arguments.collection, Path(folder) / "index", arguments.queries)
    text = json.dumps(numbers, indent=2)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def measure(collection: Path, index: Path, limit: int) -> dict[str, Any]:
    """Everything this benchmark reports, milliseconds unless the name says otherwise."""
    lines = (collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()[: limit + WARM_UP]
    queries = [json.loads(line)["text"] for line in lines]
    with TwoStagePipeline.open(index, Config()) as pipeline:
        first, second = pipeline.ingest(collection), pipeline.ingest(collection)
        numbers = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
            "documents": pipeline.manifest.documents,
            "passages": pipeline.manifest.passages,
            "first_ingest_s": first.seconds,
            "passages_per_s": first.passages_per_second,
            "second_ingest_s": second.seconds,
            "second_ingest_changed": second.added + second.changed,
            "hybrid": percentiles(lambda query: pipeline.search(query, rerank=False), queries),
            "two_stage": percentiles(pipeline.search, queries),
            "two_stage_budget_100ms": percentiles(lambda query: pipeline.search(query, budget_ms=100), queries),
        }
    numbers["cold_search_s"] = cold_starts(index, queries, [])
    numbers["cold_search_no_rerank_s"] = cold_starts(index, queries, ["--no-rerank"])
    return numbers


def percentiles(search: Callable[[str], Any], queries: list[str]) -> dict[str, float]:
    """Median and 95th percentile of one call; the first calls warm up and do not count."""
    times = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        times.append((time.perf_counter() - started) * 1000)
    times = times[WARM_UP:]
    return {"p50": statistics.median(times), "p95": statistics.quantiles(times, n=20)[-1]}


def cold_starts(index: Path, queries: list[str], options: list[str]) -> dict[str, float]:
    """Wall-clock seconds of whole `retrieval search` processes, each with another query."""
    times = []
    for query in queries[:COLD_RUNS]:
        command = [sys.executable, "-m", "pipelines", "search", query, "--index", str(index), "--json", *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


if __name__ == "__main__":
    main()
