"""What the engine alone takes: points with ready vectors, handed over in batches, and nothing else.

python -m benchmarks.ingest_floor corpus.jsonl FOLDER PASSAGES
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from itertools import islice
from pathlib import Path

import qdrant_edge as engine

from pipelines.points import passage_id, passage_payload
from pipelines.preparation import Preparing
from retrieval.chunking import Chunker
from retrieval.config import Config
from retrieval.datatypes import Point, Quantization, SparseVector
from retrieval.documents import open_documents
from retrieval.encoders import Bm25Encoder
from retrieval.models import open_encoder
from retrieval.stores.edge_engine import Engine
from retrieval.stores.edge_records import edge_point

BATCH = 256
_AVERAGE_LENGTH = 120.0


def ready_points(source: Path, count: int) -> list[Point]:
    """The first passages of a source as points."""
    config = Config()
    encoder = open_encoder(config.encoder)
    work = Preparing(encoder, Bm25Encoder(config.bm25), Chunker.of_encoder(config.chunking, encoder))
    documents = list(islice(open_documents(source, config.documents, on_rejected=lambda _: None), count))
    rows = zip(documents, work.digests(documents), work.cut(documents), strict=True)
    passages = [(document, digest, passage) for document, digest, cut in rows for passage in cut][:count]
    vectors = work.encode([passage for *_, passage in passages], _AVERAGE_LENGTH)
    points = []
    for row, (document, digest, passage) in enumerate(passages):
        terms = slice(int(vectors.offsets[row]), int(vectors.offsets[row + 1]))
        points.append(
            Point(
                passage_id(document.key, digest, passage.index),
                vectors.dense[row] if vectors.known[row] else None,
                SparseVector(vectors.indices[terms], vectors.weights[terms]) if terms.stop > terms.start else None,
                passage_payload(document, passage, digest=digest, terms=int(vectors.lengths[row]), run=1),
            )
        )
    return points


def floor(points: list[Point], folder: Path) -> dict[str, float]:
    """Microseconds per point of translating points for the engine, and of its taking them; a flush is at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = Config()
    shard = Engine(
        folder / "engine",
        place=folder,
        dim=next(len(point.dense) for point in points if point.dense is not None),
        hnsw=config.hnsw,
        quantization=Quantization(),
        min_free_mb=0,
    )
    translating = taking = 0.0
    worked = time.process_time()
    for start in range(0, len(points), BATCH):
        began = time.perf_counter()
        operation = engine.UpdateOperation.upsert_points([edge_point(point) for point in points[start : start + BATCH]])
        translated = time.perf_counter()
        shard.call("upsert", lambda open_shard, operation=operation: open_shard.update(operation))
        taking += time.perf_counter() - translated
        translating += translated - began
    began = time.perf_counter()
    shard.call("flush", lambda open_shard: open_shard.flush())
    flushing, worked = time.perf_counter() - began, time.process_time() - worked
    shard.close()
    each = 1e6 / len(points)
    return {
        "passages": len(points),
        "translate_us": translating * each,
        "update_us": taking * each,
        "flush_us": flushing * each,
        "total_us": (translating + taking + flushing) * each,
        "cpu_us": worked * each,
    }


def main() -> None:
    """Print one JSON object: the best of three runs, because nothing can be faster than the engine is."""
    points = ready_points(Path(sys.argv[1]), int(sys.argv[3]))
    print(json.dumps(min((floor(points, Path(sys.argv[2])) for _ in range(3)), key=lambda row: row["total_us"])))


if __name__ == "__main__":
    main()
