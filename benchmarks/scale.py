"""What a passage costs on disk and a query in processor time, by the size of the index: constants of `retrieval plan`.

One size a run, each in an index of its own; the rows of the runs before are kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipelines import TwoStagePipeline
from retrieval.config import parse_config
from retrieval.datatypes import Point, Quantization, SearchRequest, SparseVector, StoredPoint
from retrieval.protocols import Store
from retrieval.stores import open_store

QUERIES = 300
LIMIT = 100
PARTS = {
    "vector_storage-dense": "dense vectors, float32",
    "quantized": "dense vectors, compressed",
    "vector_index-dense": "graph",
    "vector_storage-bm25": "sparse vectors",
    "vector_index-bm25": "inverted index",
    "payload_storage": "payload",
    "payload_index": "payload indexes",
    "tracker": "ids",
}


def passages(folder: Path) -> list[str]:
    """The different passages of all pairs, those that answer something and those that do not, in a random order."""
    found: dict[str, None] = {}
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                pair = json.loads(line)
                found.update(dict.fromkeys((pair["positive"], *pair.get("negatives", ()))))
    texts = list(found)
    return [texts[i] for i in np.random.default_rng(11).permutation(len(texts))]


def queries(folder: Path) -> list[str]:
    chosen: list[str] = []
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            chosen.extend(json.loads(line)["query"] for line in islice(lines, 40))
    return [chosen[i] for i in np.random.default_rng(7).permutation(len(chosen))[:QUERIES]]


def disk(engine: Path) -> dict[str, int]:
    """Bytes of the blocks in use, by part."""
    sizes: Counter[str] = Counter()
    for path in (engine / "segments").rglob("*"):
        if path.is_file():
            place = "/".join(path.relative_to(engine / "segments").parts[1:])
            part = next((name for key, name in _by_length() if key in place), "other")
            sizes[part] += path.stat().st_blocks * 512
    return dict(sizes)


def _by_length() -> list[tuple[str, str]]:
    # "quantized" lies inside of the folder of the vectors.
    return sorted(PARTS.items(), key=lambda item: item[0] != "quantized")


def cost(store: Store, requests: Sequence[SearchRequest]) -> dict[str, float]:
    """Milliseconds of one query after the other, in the pass of five that other work disturbed least."""
    store.search(requests[:20])
    passes = []
    for _ in range(5):
        walls, before = [], time.process_time()
        for request in requests:
            started = time.perf_counter()
            store.search([request])
            walls.append((time.perf_counter() - started) * 1000)
        spent = (time.process_time() - before) * 1000 / len(requests)
        passes.append({"cpu_mean": spent, "wall_p50": median(walls), "wall_p95": float(np.percentile(walls, 95))})
    return min(passes, key=lambda one: one["cpu_mean"])


def measure(pairs: Path, index: Path, size: int) -> dict[str, Any]:
    config = parse_config({"hnsw": {"threshold": 1}, "quantization": {"kind": "turbo", "bits": 2}})
    shutil.rmtree(index, ignore_errors=True)
    texts = passages(pairs)[:size]
    with TwoStagePipeline.open(index, config) as pipeline:
        wall, cpu = time.perf_counter(), time.process_time()
        report = pipeline.ingest((f"{number:07}", text) for number, text in enumerate(texts))
        ingest = {"passages": report.passages, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        manifest = pipeline.manifest
        asked = queries(pairs)
        sparse = pipeline.sparse.encode_queries(asked)
        dense = pipeline.encoder.encode_queries(asked)
        bm25 = cost(pipeline.store, [SearchRequest(vector, LIMIT) for vector in sparse])
        wall, cpu = time.perf_counter(), _of_children()
        pipeline.store.optimize()
        built = {"wall": time.perf_counter() - wall, "cpu": _of_children() - cpu}
        row = {
            "passages": manifest.passages,
            "terms_per_passage": manifest.terms / manifest.passages,
            "characters_per_passage": float(
                np.mean([len(point.payload["text"]) for point in islice(pipeline.store.scan(payload=["text"]), 5000)])
            ),
            "ingest": ingest,
            "build": built,
            "bm25_ms_before_optimize": bm25,
            "bm25_ms": cost(pipeline.store, [SearchRequest(vector, LIMIT) for vector in sparse]),
            "dense_ms": cost(pipeline.store, [SearchRequest(vector, LIMIT) for vector in dense]),
            "dense_exact_ms": cost(pipeline.store, [SearchRequest(vector, LIMIT, exact=True) for vector in dense[:50]]),
            "query_terms": float(np.mean([len(vector.indices) for vector in sparse])),
            "quantization": str(Quantization("turbo", 2)),
        }
        pipeline.store.flush()
        row["bytes"] = disk(index / "generations" / str(pipeline.store.generation) / "engine")
    return row


def _of_children() -> float:
    """Processor time of the processes that have ended, in one of which an index is optimized."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def again(pairs: Path, index: Path) -> dict[str, Any]:
    """The queries over an index that is there."""
    with TwoStagePipeline.open(index) as pipeline:
        asked = queries(pairs)
        sparse = [SearchRequest(vector, LIMIT) for vector in pipeline.sparse.encode_queries(asked)]
        vectors = pipeline.encoder.encode_queries(asked)
        return {
            "bm25_ms": cost(pipeline.store, sparse),
            "dense_ms": cost(pipeline.store, [SearchRequest(vector, LIMIT) for vector in vectors]),
            "dense_exact_ms": cost(pipeline.store, [SearchRequest(one, LIMIT, exact=True) for one in vectors[:50]]),
        }


def growth(pairs: Path, index: Path, copies: int) -> Iterator[dict[str, Any]]:
    """BM25 queries over more passages than there are: those of the index again, their weights a little changed."""
    chosen = np.random.default_rng(3)
    with (
        tempfile.TemporaryDirectory(dir=index.parent) as folder,
        TwoStagePipeline.open(index) as pipeline,
        closing(open_store(parse_config({"hnsw": {"m": 0}}), dim=2, path=folder)) as store,
    ):
        sparse = pipeline.sparse.encode_queries(queries(pairs))
        requests = [SearchRequest(vector, LIMIT) for vector in sparse]
        for copy in range(1, copies + 1):
            points = pipeline.store.scan(payload=False, vectors=["bm25"])
            while batch := [point for point in islice(points, 4096) if point.sparse is not None]:
                store.upsert([_again(point, copy, chosen) for point in batch])
            if copy.bit_count() == 1:
                store.optimize()
                yield {"passages": store.count(), "bm25_ms": cost(store, requests)}


def _again(point: StoredPoint, copy: int, chosen: np.random.Generator) -> Point:
    assert point.sparse is not None
    values = point.sparse.values * chosen.uniform(0.9, 1.1, len(point.sparse.values)).astype(np.float32)
    name = str(uuid.UUID(int=uuid.UUID(point.id).int ^ copy))
    return Point(name, None, SparseVector(point.sparse.indices, values), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of pair files")
    parser.add_argument("--index", type=Path, required=True, help="folder of the index")
    parser.add_argument("--passages", type=int, default=0, help="measure an index of so many")
    parser.add_argument("--again", action="store_true", help="only the queries of the last one, once more")
    parser.add_argument("--copies", type=int, default=0, help="measure BM25 over so many copies of the last one")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    machine = {"cpus": 2, "processor": "AMD EPYC", "engine": "qdrant-edge-py 0.9.0"}
    record = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"machine": machine, "rows": []}
    if arguments.passages:
        record["rows"].append(measure(arguments.pairs, arguments.index, arguments.passages))
    if arguments.again:
        record["rows"][-1].update(again(arguments.pairs, arguments.index))
    if arguments.copies:
        record["bm25_growth"] = []
        for row in growth(arguments.pairs, arguments.index, arguments.copies):
            record["bm25_growth"].append(row)
            arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
