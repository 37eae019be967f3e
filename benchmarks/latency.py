"""Ingest, search and cold start of the defaults on one BEIR folder; the page is written from the figures.

python -m benchmarks.latency --collection path/to/beir/scifact --out benchmarks/latency.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.bench.machine import Watch, describe
from benchmarks.latency_report import write_page
from pipelines import TwoStagePipeline
from retrieval.config import Config, RerankConfig
from retrieval.datatypes import SearchRequest
from retrieval.ordering import fuse

T = TypeVar("T")
COLD_RUNS, WARM_UP, PASSES, PAYLOADS = 11, 10, 5, 15
IMPORTS = ("sentence_transformers", "onnxruntime", "numpy")


def main() -> None:
    """Measure, write the JSON document and the page beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write; the page stands beside it")
    parser.add_argument("--queries", type=int, default=120, help="how many queries are timed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure(arguments.collection, Path(folder) / "index", arguments.queries)
    arguments.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    write_page(numbers, arguments.out.with_suffix(".md"))


def measure(collection: Path, index: Path, limit: int) -> dict[str, Any]:
    """Everything this benchmark reports, milliseconds unless the name says otherwise."""
    watch = Watch()
    lines = (collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()[: limit + WARM_UP]
    queries = [json.loads(line)["text"] for line in lines]
    with TwoStagePipeline.open(index, Config()) as pipeline:
        first, second = pipeline.ingest(collection), pipeline.ingest(collection)
    # Without remembered scores: every measure asks the same queries.
    with TwoStagePipeline.open(index, Config(rerank=RerankConfig(cache_mb=0))) as pipeline:
        numbers = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe(),
            "collection": collection.name,
            "queries": len(queries) - WARM_UP,
            "documents": pipeline.manifest.documents,
            "passages": pipeline.manifest.passages,
            "first_ingest_s": first.seconds,
            "passages_per_s": first.passages_per_second,
            "second_ingest_s": second.seconds,
            "second_ingest_changed": second.added + second.changed,
            "hybrid": percentiles(lambda query: pipeline.search(query, rerank=False), queries, PASSES),
            "parts": parts(pipeline, queries),
            "two_stage": percentiles(pipeline.search, queries),
            "two_stage_budget_100ms": percentiles(lambda query: pipeline.search(query, budget_ms=100), queries),
        }
    numbers["cold_runs"] = COLD_RUNS
    numbers["cold_s"] = cold_starts(index, queries)
    numbers["measured"] = watch.seen()
    return numbers


def percentiles(search: Callable[[str], Any], queries: Sequence[str], passes: int = 1) -> dict[str, float]:
    """Median and 95th percentile of one call, of the best pass; the first calls warm up and do not count."""
    found = []
    for _ in range(passes):
        times = [_milliseconds(search, query) for query in queries][WARM_UP:]
        found.append({"p50": statistics.median(times), "p95": statistics.quantiles(times, n=20)[-1]})
    return min(found, key=lambda one: one["p50"])


def parts(pipeline: TwoStagePipeline, queries: Sequence[str]) -> dict[str, float]:
    """Medians of what a search without the cross-encoder calls, each called alone, the best of some passes."""
    encoder, sparse, store = pipeline.encoder, pipeline.sparse, pipeline.store
    pairs = list(zip(encoder.encode_queries(queries), sparse.encode_queries(queries), strict=True))
    requests = [[SearchRequest(vector, 100), SearchRequest(terms, 100)] for vector, terms in pairs]
    found = [store.search(pair) for pair in requests]
    settings = pipeline.config.first_stage
    fused = [fuse({"dense": dense, "bm25": bm25}, settings) for dense, bm25 in found]

    def median(call: Callable[[T], Any], items: Sequence[T]) -> float:
        return min(statistics.median([_milliseconds(call, item) for item in items]) for _ in range(PASSES))

    return {
        "encode the query, both ways": median(
            lambda query: (encoder.encode_queries([query]), sparse.encode_queries([query])), queries
        ),
        "both arms in one call of the engine": median(store.search, requests),
        "the dense arm alone": median(lambda pair: store.search(pair[:1]), requests),
        "BM25 alone": median(lambda pair: store.search(pair[1:]), requests),
        "fuse two lists of 100": median(lambda arms: fuse({"dense": arms[0], "bm25": arms[1]}, settings), found),
        f"read the payloads of {PAYLOADS} passages": median(
            lambda best: store.get([candidate.id for candidate in best[:PAYLOADS]]), fused
        ),
    }


def cold_starts(index: Path, queries: Sequence[str]) -> dict[str, dict[str, float]]:
    """Wall-clock seconds of whole processes, interleaved, each search with another query; one round does not count."""
    search = [sys.executable, "-m", "pipelines", "search", "--index", str(index), "--json"]
    systems = {
        "retrieval search": search,
        "retrieval search --no-rerank": [*search, "--no-rerank"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    commands = {f"import {name}": [sys.executable, "-c", f"import {name}"] for name in IMPORTS}
    systems |= {name: command for name, command in commands.items() if _works(command)}
    times: dict[str, list[float]] = {name: [] for name in systems}
    for query in queries[: COLD_RUNS + 1]:
        for name, command in systems.items():
            started = time.perf_counter()
            _run([*command, query] if "search" in name else command)
            times[name].append(time.perf_counter() - started)
    counted = {name: values[1:] for name, values in times.items()}
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in counted.items()
    }


def _works(command: Sequence[str]) -> bool:
    try:
        _run(command)
    except subprocess.CalledProcessError:
        return False
    return True


def _run(command: Sequence[str]) -> None:
    # Installed packages come with their bytecode; the round that does not count writes it for these sources.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=quiet, stderr=quiet, env=environment)


def _milliseconds(call: Callable[[T], Any], item: T) -> float:
    started = time.perf_counter()
    call(item)
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
