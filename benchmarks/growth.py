"""How cost grows with the number of passages: ingest, build, memory, disk, latency of search, recall of the codes.

One size after the other, each in an index of its own and in processes of their own; what was measured is written
after every size, and a run that was stopped goes on with the size it was at. The corpus is that of `scale_corpus`.

python -m benchmarks.growth --pairs DIR --corpus corpus.jsonl --work DIR --out benchmarks/growth.json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.machine import Watch, describe
from benchmarks.growth_report import write_report
from benchmarks.ingest_run import Memory, disk_bytes
from benchmarks.scale_corpus import real_queries, write_corpus
from pipelines import TwoStagePipeline
from retrieval.datatypes import FirstStage, ScoredPoint, SearchRequest
from retrieval.stores import peek_order

SIZES = (10_000, 100_000, 300_000, 1_000_000)
LIMIT = 100
_QUERIES, _WARM_UP, _PASSES = 300, 20, 3
_EXACT = 100
_WATCH_S = 0.25
_INGEST = """
import json, sys, time
from pipelines import TwoStagePipeline
marks = []
def note(progress):
    if progress.stage == "indexing" and not marks:
        marks.append(time.perf_counter())
began = time.perf_counter()
with TwoStagePipeline.open(sys.argv[2]) as pipeline:
    report = pipeline.ingest(sys.argv[1], on_progress=note)
    done = time.perf_counter()
searchable = marks[0] if marks else done
print(json.dumps({
    "documents": report.added, "passages": report.passages,
    "searchable_s": searchable - began, "build_s": done - searchable, "total_s": time.perf_counter() - began,
}))
"""


def main() -> None:
    """Measure the sizes that the file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of pair files")
    parser.add_argument("--corpus", type=Path, required=True, help="JSON lines; written where it is not there")
    parser.add_argument("--work", type=Path, required=True, help="folder for indexes, which are erased again")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--keep", action="store_true", help="leave the indexes there")
    parser.add_argument("--fresh", action="store_true", help="measure all sizes again")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; tables and plot stand beside it")
    arguments = parser.parse_args()
    write_corpus(arguments.pairs, arguments.corpus, max(arguments.sizes))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    record = _record(arguments.out, fresh=arguments.fresh)
    for size in arguments.sizes:
        if str(size) in record["sizes"]:
            continue
        index = arguments.work / f"index-{size}"
        print(f"{size:,} passages", file=sys.stderr)
        record["sizes"][str(size)] = measure(arguments.pairs, arguments.corpus, size, index)
        record["date"] = datetime.now(UTC).isoformat(timespec="minutes")
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
        if not arguments.keep:
            shutil.rmtree(index)
    write_report(record, arguments.out)


def measure(pairs: Path, corpus: Path, size: int, index: Path) -> dict[str, Any]:
    """Everything about one size; an index that is complete is not made again."""
    watch = Watch()
    index.parent.mkdir(parents=True, exist_ok=True)
    kept = index.with_name(f"{index.name}.json")
    if not kept.exists():
        shutil.rmtree(index, ignore_errors=True)
        part = _beginning(corpus, size, index.with_name(f"corpus-{size}.jsonl"))
        kept.write_text(json.dumps(ingest(part, index)))
        part.unlink()
    row: dict[str, Any] = json.loads(kept.read_text())
    row["disk_mb"] = disk_bytes(index) / 1e6
    search = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth_search", str(pairs), str(index)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    row |= json.loads(search.stdout.splitlines()[-1])
    kept.unlink()
    return row | {"measured": watch.seen()}


def ingest(source: Path, index: Path) -> dict[str, Any]:
    """One ingest in a process of its own, its seconds and its most memory with all processes that it starts."""
    command = [sys.executable, "-c", _INGEST, str(source), str(index)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watched = Memory(process.pid, _WATCH_S)
        with watched:
            printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the ingest of {source} ended with status {process.returncode}")
    row: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return row | {"peak_mb": watched.total / 1e6, "peak_anonymous_mb": watched.anonymous / 1e6}


def search(pairs: Path, index: Path) -> dict[str, Any]:
    """Latency of whole searches without the cross-encoder, and what the dense arm finds of the true best hundred."""
    asked = real_queries(pairs, _QUERIES)
    opened = time.perf_counter()
    with TwoStagePipeline.open(index) as pipeline:
        opened = time.perf_counter() - opened
        store = pipeline.store
        order = peek_order(index, pipeline.manifest.generation)
        arms: dict[FirstStage, Latency] = {arm: latency(pipeline, asked, arm) for arm in ("hybrid", "dense", "bm25")}
        memory = _memory_mb()
        vectors = pipeline.encoder.encode_queries(asked[:_EXACT])
        found, true = (
            [_ids(store.search([SearchRequest(vector, LIMIT, exact=exact)])[0]) for vector in vectors]
            for exact in (False, True)
        )
        recalls = [len(some & best) / len(best) for some, best in zip(found, true, strict=True) if best]
        return {
            "opened_s": opened,
            **{f"{arm}_p50_ms": one.p50 for arm, one in arms.items()},
            "hybrid_p95_ms": arms["hybrid"].p95,
            "hybrid_cpu_ms": arms["hybrid"].cpu,
            "recall_at_100": float(np.mean(recalls)),
            "quantization": str(store.quantization),
            "graph": order.graph,
            "search_mb": memory,
        }


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one search: median, 95th percentile, and mean of processor time of all threads."""

    p50: float
    p95: float
    cpu: float


def latency(pipeline: TwoStagePipeline, asked: Sequence[str], arm: FirstStage) -> Latency:
    """That of whole searches for a hundred candidates, in the pass of some that other work disturbed least."""
    passes = []
    for number in range(_PASSES + 1):
        times, worked = [], time.process_time()
        for query in asked if number else asked[:_WARM_UP]:
            started = time.perf_counter()
            pipeline.search(query, rerank=False, first_stage=arm, candidates=LIMIT)
            times.append((time.perf_counter() - started) * 1000)
        cpu = (time.process_time() - worked) * 1000 / len(times)
        passes.append(Latency(float(np.percentile(times, 50)), float(np.percentile(times, 95)), cpu))
    return min(passes[1:], key=lambda one: one.p50)


def _ids(hits: Sequence[ScoredPoint]) -> set[str]:
    return {hit.id for hit in hits}


def _memory_mb() -> dict[str, float]:
    """Resident memory of this process, MB: its own, and pages of files that the system may take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("Rss")}
    return {"anonymous": sizes["RssAnon"], "files": sizes["RssFile"]}


def _beginning(corpus: Path, size: int, part: Path) -> Path:
    written = 0
    with corpus.open("rb") as source, part.open("wb") as target:
        for line in islice(source, size):
            target.write(line)
            written += 1
    if written < size:
        part.unlink()
        raise RuntimeError(f"{corpus} has only {written:,} of {size:,} passages; erase it, so that it is written again")
    return part


def _record(path: Path, *, fresh: bool) -> dict[str, Any]:
    if path.exists() and not fresh:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return {"machine": describe(), "queries": _QUERIES, "passes": _PASSES, "sizes": {}}


if __name__ == "__main__":
    main()
