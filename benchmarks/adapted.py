"""What adaptation and quantization do on judged collections, both stages, with the defaults.

    python benchmarks/adapted.py path/to/beir/scifact … --out benchmarks/adapted.json

Each collection is ingested, measured, adapted without labels, measured again with float vectors, with both stages, and
with quantized vectors (rescored, oversampling 3). Collections are measured only: nothing is chosen by their queries.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines import TwoStagePipeline
from retrieval.datatypes import FirstStage, Quantization, Results
from retrieval.evaluation import BeirCollection, evaluate_run

MEASURES = ("nDCG@10", "R@100", "RR@10")
ARMS: dict[str, FirstStage] = {"BM25": "bm25", "static": "dense", "hybrid": "hybrid"}
QUANTIZED = {
    "TurboQuant, 2 bits": Quantization(kind="turbo", bits=2, rescore=True, oversampling=3.0),
    "binary": Quantization(kind="binary", bits=1, rescore=True, oversampling=3.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=Path, help="BEIR folders")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    records: dict[str, Any] = {}
    for folder in arguments.collections:
        records[folder.name] = measure(folder)
        arguments.out.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        print(folder.name, json.dumps(records[folder.name]["nDCG@10"]), flush=True)


def measure(folder: Path) -> dict[str, Any]:
    collection = BeirCollection.open(folder, "test")
    with tempfile.TemporaryDirectory() as index, TwoStagePipeline.open(index) as pipeline:
        pipeline.ingest(folder)
        found = {"before": arms(pipeline, collection)}
        report = asdict(pipeline.adapt())
        found["after"] = arms(pipeline, collection)
        found["after"]["two-stage"] = scored(
            collection, {name: pipeline.search(query, 100) for name, query in collection.queries.items()}
        )
        found["quantized"] = {}
        for name, quantization in QUANTIZED.items():
            pipeline.store.set_quantization(quantization)
            pipeline.store.optimize()
            found["quantized"][name] = arms(pipeline, collection)["static"]
    summary = {
        state: {system: round(values["nDCG@10"], 4) for system, values in systems.items()}
        for state, systems in found.items()
    }
    return {"nDCG@10": summary, "measures": found, "adapt": report}


def arms(pipeline: TwoStagePipeline, collection: BeirCollection) -> dict[str, dict[str, float]]:
    names = list(collection.queries)
    queries = [collection.queries[name] for name in names]
    found = {}
    for system, arm in ARMS.items():
        results = pipeline.search_many(queries, 100, first_stage=arm, rerank=False)
        found[system] = scored(collection, dict(zip(names, results, strict=True)))
    return found


def scored(collection: BeirCollection, results: dict[str, Results]) -> dict[str, float]:
    run = {name: [(hit.document_id, hit.score) for hit in hits] for name, hits in results.items()}
    return dict(evaluate_run(collection.qrels, run, MEASURES).means)


if __name__ == "__main__":
    main()
