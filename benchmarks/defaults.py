"""How the defaults of fusion and reranking were chosen: on development sets that no bundled model was trained on.

    python benchmarks/defaults.py --pairs DIR --beir DIR --out benchmarks/defaults.json

Development sets are pair files left out of training for their licence (`DEVELOPMENT_PAIRS`) and the train queries of
SciFact. For each, both arms fetch 100 passages and the cross-encoder reads the best 20 of every fusion weight; all
settings are then scored from these numbers. Scores are nDCG@10; a setting is judged by its mean over the sets.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import TwoStagePipeline
from pipelines.points import readable_text
from retrieval.config import Config, FirstStageConfig, RerankConfig
from retrieval.datatypes import Arm, Document, ScoredPoint, SearchRequest
from retrieval.evaluation import BeirCollection, evaluate_run
from retrieval.models import find_model
from retrieval.ordering import fuse, order, scale_to_unit
from retrieval.rerankers import choose_windows, open_reranker

DEVELOPMENT_PAIRS = (
    "wikiqa_train",
    "trecqa_wang_train",
    "healthver_claims",
    "covidfact",
    "covid_faq",
    "confusebench",
    "wice_claims",
    "paper_titles",
    "foldoc",
)
DENSE_WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)
FIRST_STAGE_WEIGHTS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
DEPTHS = (5, 10, 20)
Run = dict[str, list[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class DevelopmentSet:
    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_pairs(path: Path, most_queries: int, most_passages: int) -> DevelopmentSet:
    """Passages are all positives and negatives of the first rows; queries are a seeded sample of these rows."""
    ids: dict[str, str] = {}
    judged: dict[str, set[str]] = defaultdict(set)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            for text in (row["positive"], *row.get("negatives", ())):
                ids.setdefault(text, f"p{len(ids)}")
            judged[row["query"]].add(ids[row["positive"]])
            if len(ids) >= most_passages:
                break
    chosen = random.Random(0).sample(sorted(judged), min(most_queries, len(judged)))
    return DevelopmentSet(
        documents=[Document(name, text) for text, name in ids.items()],
        queries={f"q{number}": query for number, query in enumerate(chosen)},
        qrels={f"q{number}": dict.fromkeys(judged[query], 1) for number, query in enumerate(chosen)},
    )


def read_collection(folder: Path, split: str, most_queries: int) -> DevelopmentSet:
    collection = BeirCollection.open(folder, split)
    chosen = random.Random(0).sample(sorted(collection.queries), min(most_queries, len(collection.queries)))
    return DevelopmentSet(
        documents=list(collection.documents()),
        queries={query: collection.queries[query] for query in chosen},
        qrels={query: dict(collection.qrels[query]) for query in chosen},
    )


@dataclass(slots=True)
class Fetched:
    """Both arms of one query, and of every passage read its document and logit."""

    arms: dict[Arm, list[ScoredPoint]]
    documents: dict[str, str]
    logits: dict[str, float]


def fetch(development: DevelopmentSet, config: Config, *, read: bool) -> dict[str, Fetched]:
    reranker = open_reranker(config.rerank, find_model(config.rerank.model)) if read else None
    fetched: dict[str, Fetched] = {}
    with tempfile.TemporaryDirectory() as folder, TwoStagePipeline.open(folder, config) as pipeline:
        pipeline.ingest(development.documents)
        for name, query in development.queries.items():
            dense, sparse = pipeline.encoder.encode_queries([query]), pipeline.sparse.encode_queries([query])
            answers = pipeline.store.search([SearchRequest(dense[0], 100), SearchRequest(sparse[0], 100)])
            arms: dict[Arm, list[ScoredPoint]] = {"dense": answers[0], "bm25": answers[1]}
            everything = sorted({point.id for points in answers for point in points})
            payloads = {point.id: point.payload for point in pipeline.store.get(everything)}
            logits: dict[str, float] = {}
            if reranker is not None:
                readable = [candidate.id for weight in (0.2, 0.3, 0.4, 0.5) for candidate in fused(arms, weight)[:20]]
                readable = sorted(set(readable))
                texts = [str(payloads[one]["text"]) for one in readable]
                spans = choose_windows(dense[0], texts, pipeline.encoder, config.rerank.window_words)
                windows = [
                    readable_text(payloads[one], text[start:end])
                    for one, text, (start, end) in zip(readable, texts, spans, strict=True)
                ]
                logits = dict(zip(readable, reranker.score(query, windows).tolist(), strict=True))
            documents = {one: str(payload["document_id"]) for one, payload in payloads.items()}
            fetched[name] = Fetched(arms, documents, logits)
    return fetched


def fused(arms: Mapping[Arm, list[ScoredPoint]], weight: float, fusion: str = "minmax") -> list[Any]:
    return fuse(arms, FirstStageConfig.model_validate({"dense_weight": weight, "fusion": fusion}))


def ranked(documents: Iterable[str], scores: Iterable[float]) -> list[tuple[str, float]]:
    best: dict[str, float] = {}
    for document, score in zip(documents, scores, strict=True):
        best.setdefault(document, score)
    return list(best.items())


def first_stage_run(fetched: Mapping[str, Fetched], weight: float, fusion: str) -> Run:
    run: Run = {}
    for name, one in fetched.items():
        candidates = fused(one.arms, weight, fusion)
        run[name] = ranked([one.documents[c.id] for c in candidates], [c.score for c in candidates])
    return run


def two_stage_run(fetched: Mapping[str, Fetched], dense_weight: float, weight: float, depth: int) -> Run:
    run: Run = {}
    for name, one in fetched.items():
        candidates = fused(one.arms, dense_weight)
        scores = [weight * score for score in scale_to_unit([c.score for c in candidates])]
        for position, candidate in enumerate(candidates[:depth]):
            scores[position] += (1 - weight) / (1 + np.exp(-one.logits[candidate.id]))
        positions = order(scores, [c.rank for c in candidates], [c.id for c in candidates])
        run[name] = ranked([one.documents[candidates[at].id] for at in positions], [scores[at] for at in positions])
    return run


def score(development: DevelopmentSet, run: Run) -> float:
    return float(evaluate_run(development.qrels, run, ("nDCG@10",)).means["nDCG@10"])


def tabulate(development: DevelopmentSet, fetched: Mapping[str, Fetched], *, read: bool) -> dict[str, float]:
    numbers = {
        f"{fusion} dense={weight}": score(development, first_stage_run(fetched, weight, fusion))
        for fusion in ("minmax", "rrf")
        for weight in DENSE_WEIGHTS
    }
    if read:
        numbers |= {
            f"dense={dense} first={weight} depth={depth}": score(
                development, two_stage_run(fetched, dense, weight, depth)
            )
            for dense in (0.2, 0.3, 0.4, 0.5)
            for weight in FIRST_STAGE_WEIGHTS
            for depth in DEPTHS
        }
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of NAME.jsonl.gz")
    parser.add_argument("--beir", type=Path, required=True, help="folder with a BEIR folder scifact")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--queries", type=int, default=150, help="queries of each set")
    parser.add_argument("--passages", type=int, default=10_000, help="passages of each set of pairs, about")
    parser.add_argument("--no-rerank", action="store_true", help="only the first stage")
    arguments = parser.parse_args()
    sets = {"scifact-train": read_collection(arguments.beir / "scifact", "train", arguments.queries)}
    for name in DEVELOPMENT_PAIRS:
        path = arguments.pairs / f"{name}.jsonl.gz"
        sets[name] = read_pairs(path, arguments.queries, arguments.passages)
    config = Config(rerank=RerankConfig(depth=20))
    tables: dict[str, dict[str, float]] = {}
    for name, development in sets.items():
        fetched = fetch(development, config, read=not arguments.no_rerank)
        tables[name] = tabulate(development, fetched, read=not arguments.no_rerank)
        print(name, len(development.documents), len(development.queries), flush=True)
    mean = {
        setting: statistics.mean(table[setting] for table in tables.values()) for setting in tables["scifact-train"]
    }
    arguments.out.write_text(json.dumps({"mean": mean, "sets": tables}, indent=1) + "\n", encoding="utf-8")
    for setting, value in sorted(mean.items(), key=lambda item: -item[1])[:25]:
        print(f"{value:.4f}  {setting}")


if __name__ == "__main__":
    main()
