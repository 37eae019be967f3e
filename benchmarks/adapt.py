"""What adaptation does to search: before and after, on development sets that no bundled model was trained on.

    python benchmarks/adapt.py --pairs DIR --beir DIR --out benchmarks/adapt.json

Each set is ingested, both arms fetch 100 passages, `retrieval.training.adapt` trains on the passages alone (it never
sees a query), and the judged queries are asked again. Scores are nDCG@10 and recall@100. With ``--transformer DIR`` the
same sets are searched with a sentence transformer as the dense arm instead, which is added to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defaults import DEVELOPMENT_PAIRS, DevelopmentSet, fused, read_collection, read_pairs
from pipelines import TwoStagePipeline
from retrieval.datatypes import Arm, FloatArray, Passage, ScoredPoint, SearchRequest
from retrieval.evaluation import evaluate_run
from retrieval.models import find_model
from retrieval.training import AdaptSettings, CorpusPassage, StaticTable, adapt

DEFAULT_WEIGHT = 0.4
Points = dict[str, list[ScoredPoint]]


def bm25_arm(development: DevelopmentSet) -> Points:
    with tempfile.TemporaryDirectory() as folder, TwoStagePipeline.open(folder) as pipeline:
        pipeline.ingest(development.documents)
        sparse = pipeline.sparse.encode_queries(list(development.queries.values()))
        answers = pipeline.store.search([SearchRequest(vector, 100) for vector in sparse])
        ids = sorted({point.id for points in answers for point in points})
        names = {point.id: str(point.payload["document_id"]) for point in pipeline.store.get(ids)}
        return {
            query: [ScoredPoint(names[point.id], point.score) for point in points]
            for query, points in zip(development.queries, answers, strict=True)
        }


def dense_arm(development: DevelopmentSet, encode: Callable[[list[str]], FloatArray]) -> Points:
    documents = [Passage(one.id, 0, one.text, 0, len(one.text), one.title) for one in development.documents]
    passages = encode([one.indexed_text for one in documents])
    queries = encode(list(development.queries.values()))
    return {
        query: best(vector @ passages.T, documents) for query, vector in zip(development.queries, queries, strict=True)
    }


def best(scores: FloatArray, documents: list[Passage]) -> list[ScoredPoint]:
    order = np.argsort(-scores, kind="stable")[:100]
    return [ScoredPoint(documents[place].document_id, float(scores[place])) for place in order]


def measure(development: DevelopmentSet, arms: dict[Arm, Points], weight: float | None) -> dict[str, float]:
    """One arm alone, or both fused where a weight of the static arm is given."""
    run = {}
    for query in development.queries:
        points = {arm: found[query] for arm, found in arms.items()}
        listed = next(iter(points.values())) if weight is None else fused(points, weight)
        run[query] = [(one.id, one.score) for one in listed][:100]
    means = evaluate_run(development.qrels, run, ("nDCG@10", "R@100")).means
    return {name: round(float(value), 4) for name, value in means.items()}


def examine(development: DevelopmentSet, table: StaticTable, settings: AdaptSettings) -> dict[str, Any]:
    from retrieval.config import Bm25Config
    from retrieval.encoders import Bm25Encoder

    bm25, before = bm25_arm(development), dense_arm(development, table.encode)
    passages = [CorpusPassage(one.text, one.title, (), one.id) for one in development.documents]
    adapted = adapt(table, passages, settings, sparse=Bm25Encoder(Bm25Config()))
    after = dense_arm(development, adapted.table.encode)
    return {
        "passages": len(passages),
        "queries": len(development.queries),
        "bm25": measure(development, {"bm25": bm25}, None),
        "static before": measure(development, {"dense": before}, None),
        "static after": measure(development, {"dense": after}, None),
        "hybrid before": measure(development, {"dense": before, "bm25": bm25}, DEFAULT_WEIGHT),
        "hybrid after, 0.4": measure(development, {"dense": after, "bm25": bm25}, DEFAULT_WEIGHT),
        "hybrid after": measure(development, {"dense": after, "bm25": bm25}, adapted.dense_weight),
        "weight": adapted.dense_weight,
        "accepted": adapted.accepted,
        "reason": adapted.reason,
        "steps": adapted.steps,
        "seconds": round(adapted.seconds, 1),
        "check": [asdict(row) for row in adapted.rows],
    }


def examine_transformer(development: DevelopmentSet, folder: str) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    started, spent = time.perf_counter(), time.process_time()
    dense = dense_arm(development, lambda texts: model.encode(texts, normalize_embeddings=True, batch_size=16))
    return {
        "transformer": measure(development, {"dense": dense}, None),
        "transformer hybrid": measure(development, {"dense": dense, "bm25": bm25_arm(development)}, DEFAULT_WEIGHT),
        "transformer seconds": round(time.perf_counter() - started, 1),
        "transformer cpu seconds": round(time.process_time() - spent, 1),
    }


SYSTEMS = ("bm25", "static before", "static after", "hybrid before", "hybrid after, 0.4", "hybrid after")


def table_of(sets: dict[str, dict[str, Any]]) -> str:
    columns = ("set", "passages", *SYSTEMS, "weight", "recall@100", "accepted", "steps", "s")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, one in sets.items():
        scores = [f"{one[system]['nDCG@10']:.3f}" for system in SYSTEMS]
        recall = f"{one['hybrid before']['R@100']:.3f} → {one['hybrid after']['R@100']:.3f}"
        accepted = "yes" if one["accepted"] else "no"
        cells = [name, str(one["passages"]), *scores, str(one["weight"]), recall, accepted, str(one["steps"])]
        lines.append("| " + " | ".join([*cells, f"{one['seconds']:.0f}"]) + " |")
    means = [f"{statistics.mean(one[system]['nDCG@10'] for one in sets.values()):.3f}" for system in SYSTEMS]
    lines.append("| mean | | " + " | ".join(means) + " |" + " |" * 5)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of NAME.jsonl.gz")
    parser.add_argument("--beir", type=Path, required=True, help="folder with a BEIR folder scifact")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; sets that it has already are kept")
    parser.add_argument("--sets", nargs="*", default=["scifact-train", *DEVELOPMENT_PAIRS], help="only these")
    parser.add_argument("--queries", type=int, default=300, help="queries of each set")
    parser.add_argument("--passages", type=int, default=6_000, help="passages of each set of pairs, about")
    parser.add_argument("--seconds", type=float, default=150.0, help="time limit of each adaptation")
    parser.add_argument("--steps", type=int, default=None, help="fixed number of steps")
    parser.add_argument("--model", default="starter-static", help="a bundled model, or a folder of this project")
    parser.add_argument("--transformer", help="folder of a sentence transformer to compare with")
    arguments = parser.parse_args()
    table = StaticTable.open(find_model(arguments.model))
    settings = AdaptSettings(seconds=arguments.seconds, steps=arguments.steps)
    done = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    for name in arguments.sets:
        if name in done and (arguments.transformer is None or "transformer" in done[name]):
            continue
        if name == "scifact-train":
            development = read_collection(arguments.beir / "scifact", "train", arguments.queries)
        else:
            development = read_pairs(arguments.pairs / f"{name}.jsonl.gz", arguments.queries, arguments.passages)
        if name not in done:
            done[name] = examine(development, table, settings)
        if arguments.transformer is not None:
            done[name] |= examine_transformer(development, arguments.transformer)
        arguments.out.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(table_of({name: done[name]}).splitlines()[2], flush=True)
        if arguments.transformer is not None:
            print(name, done[name]["transformer"], done[name]["transformer hybrid"], flush=True)
    print(table_of(done))


if __name__ == "__main__":
    main()
