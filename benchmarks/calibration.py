"""How the bundled cross-encoder was calibrated: on development sets that no bundled model was trained on.

    python benchmarks/calibration.py collect --pairs DIR --beir DIR --raw DIR
    python benchmarks/calibration.py fit --raw DIR --model DIR --out benchmarks/calibration.json

``collect`` searches with the defaults, five passages a result, and writes one file a set (sets that have one are
skipped). Each query is looked at twice: with everything, and with all of its judged passages taken out of the
candidates, so that the corpus does not hold the answer any more. Queries of other sets are asked too.

``fit`` fits two maps, every set weighing the same: logit of a passage to the probability that it is judged relevant,
and best logit of a result to the probability that the result holds a judged passage. What they are worth is measured
with the set in question left out of the fit.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defaults import DEVELOPMENT_PAIRS, DevelopmentSet, read_collection, read_pairs
from pipelines import TwoStagePipeline
from retrieval.config import Config, RerankConfig
from retrieval.rerankers import (
    RerankerCalibration,
    Threshold,
    fit_isotonic,
    fit_platt,
    model_digest,
    threshold_for_precision,
    write_calibration,
)

TARGETS = (0.5, 0.55, 0.6, 0.7, 0.8, 0.9)
TOP_K = 5
DEPTH = 20
EVERYTHING = Config(rerank=RerankConfig(early_stop="never"))
Read = list[tuple[float, bool]]
"""Logit and label of each passage that was read, in the order of the result."""


def development_sets(pairs: Path, beir: Path, queries: int, passages: int) -> dict[str, DevelopmentSet]:
    sets = {"scifact-train": read_collection(beir / "scifact", "train", queries)}
    return sets | {name: read_pairs(pairs / f"{name}.jsonl.gz", queries, passages) for name in DEVELOPMENT_PAIRS}


def read_set(development: DevelopmentSet, foreign: Sequence[str]) -> dict[str, Any]:
    """What the cross-encoder made of the best twenty of each query, and of queries that belong to other sets."""
    with tempfile.TemporaryDirectory() as folder, TwoStagePipeline.open(folder, EVERYTHING) as pipeline:
        pipeline.ingest(development.documents)
        own = [read_query(pipeline, query, development.qrels[name]) for name, query in development.queries.items()]
        strange = [read_query(pipeline, query, {}) for query in foreign]
    return {"queries": own, "foreign": strange}


def read_query(pipeline: TwoStagePipeline, query: str, judged: Mapping[str, int]) -> Read:
    hits = pipeline.search(query, top_k=DEPTH, depth=DEPTH, group_by="passage")
    return [
        (round(hit.rerank_score, 4), judged.get(hit.document_id, 0) > 0) for hit in hits if hit.rerank_score is not None
    ]


def collect(arguments: argparse.Namespace) -> None:
    arguments.raw.mkdir(parents=True, exist_ok=True)
    sets = development_sets(arguments.pairs, arguments.beir, arguments.queries, arguments.passages)
    for name in arguments.sets or sets:
        development = sets[name]
        path = arguments.raw / f"{name}.json"
        if path.is_file():
            continue
        others = sorted({query for other, one in sets.items() if other != name for query in one.queries.values()})
        foreign = random.Random(name).sample(others, arguments.queries // 2)
        path.write_text(json.dumps(read_set(development, foreign)), encoding="utf-8")
        print(name, len(development.documents), len(development.queries), flush=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """One row for a passage or a result: logit, label, weight, and what kind of query it came from."""

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[tuple[float, bool, float, str]]) -> Rows:
        logits, labels, weights, kinds = zip(*rows, strict=True)
        share = np.asarray(weights, dtype=np.float64)
        return cls(np.asarray(logits), np.asarray(labels, dtype=bool), share / share.mean(), np.asarray(kinds))

    @classmethod
    def together(cls, parts: Sequence[Rows]) -> Rows:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def results(content: Mapping[str, Any]) -> Rows:
    """Best logit of the first five: half of the weight on queries with their judged passages, half without."""
    own, foreign = content["queries"], content["foreign"]
    rows = [(best(read), any(label for _, label in read[:TOP_K]), 1 / len(own), "own") for read in own if read]
    removed = [[pair for pair in read if not pair[1]] for read in own]
    rows += [(best(read), False, 0.5 / len(own), "removed") for read in removed if read]
    rows += [(best(read), False, 0.5 / len(foreign), "foreign") for read in foreign if read]
    return Rows.of(rows)


def best(read: Read) -> float:
    return max(logit for logit, _ in read[:TOP_K])


def passages(content: Mapping[str, Any]) -> Rows:
    """Every passage that was read, for queries of this set and of others."""
    return Rows.of(
        (logit, label, 1.0, kind)
        for kind, queries in (("own", content["queries"]), ("foreign", content["foreign"]))
        for read in queries
        for logit, label in read
    )


FITS = {"platt": fit_platt, "isotonic": fit_isotonic}


def left_out(sets: Mapping[str, Rows], kind: str) -> dict[str, dict[str, float]]:
    """For each set what a fit on the others is worth there, and the mean."""
    table = {}
    for name, rows in sets.items():
        others = Rows.together([other for key, other in sets.items() if key != name])
        fitted = FITS[kind](others.logits, others.labels, others.weights)
        table[name] = worth(fitted.probability(rows.logits), rows) | refusals(fitted, others, rows)
    table["mean"] = {key: statistics.mean(row[key] for row in table.values()) for key in next(iter(table.values()))}
    return table


def worth(probability: np.ndarray, rows: Rows) -> dict[str, float]:
    y, w = rows.labels, rows.weights / rows.weights.sum()
    sure = np.clip(probability, 1e-3, 1 - 1e-3)
    pairs = w[y][:, None] * w[~y][None, :]
    ahead = (probability[y][:, None] > probability[~y]) + 0.5 * (probability[y][:, None] == probability[~y])
    bins = np.minimum((probability * 10).astype(int), 9)
    gaps = [abs(np.sum(w[bins == one] * (probability - y)[bins == one])) for one in np.unique(bins)]
    return {
        "share_true": float(np.sum(w * y)),
        "mean_probability": float(np.sum(w * probability)),
        "log_loss": float(-np.sum(w * np.where(y, np.log(sure), np.log(1 - sure)))),
        "calibration_error": float(sum(gaps)),
        "auc": float(np.sum(pairs * ahead) / np.sum(pairs)),
    }


def refusals(fitted: Any, others: Rows, rows: Rows) -> dict[str, float]:
    """At the threshold that the other sets give: precision, recall, and the share that is refused of each kind."""
    told: dict[str, float] = {}
    probability = fitted.probability(rows.logits)
    if "removed" not in rows.kinds:
        return told
    for target in TARGETS:
        limit = threshold_for_precision(fitted.probability(others.logits), others.labels, target, others.weights)
        kept = probability >= limit.probability
        w, y = rows.weights, rows.labels
        told[f"precision_{target}"] = float(np.sum(w[kept & y]) / max(np.sum(w[kept]), 1e-12))
        told[f"recall_{target}"] = float(np.sum(w[kept & y]) / np.sum(w[y]))
        for kind in ("removed", "foreign"):
            told[f"refused_{kind}_{target}"] = float(np.mean(~kept[rows.kinds == kind]))
    return told


def fit(arguments: argparse.Namespace) -> None:
    contents = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(arguments.raw.glob("*.json"))
    }
    report: dict[str, Any] = {"sets": sorted(contents), "left_out": {}}
    chosen: dict[str, Any] = {}
    thresholds: tuple[Threshold, ...] = ()
    for level, read in (("passages", passages), ("results", results)):
        sets = {name: read(content) for name, content in contents.items()}
        tables = {kind: left_out(sets, kind) for kind in FITS}
        kind = min(tables, key=lambda one: tables[one]["mean"]["log_loss"])
        everything = Rows.together(list(sets.values()))
        chosen[level] = fitted = FITS[kind](everything.logits, everything.labels, everything.weights)
        report["left_out"][level] = tables
        print(level, {one: round(table["mean"]["log_loss"], 4) for one, table in tables.items()}, "chosen:", fitted)
        if level == "results":
            probability = fitted.probability(everything.logits)
            thresholds = tuple(
                threshold_for_precision(probability, everything.labels, target, everything.weights)
                for target in TARGETS
            )
    calibration = RerankerCalibration(
        chosen["passages"],
        chosen["results"],
        thresholds,
        f"{len(contents)} development sets, {sum(len(one['queries']) for one in contents.values())} queries with and "
        "without their judged passages and as many foreign ones as half of that; windows of 90 words, results of five "
        "passages; benchmarks/calibration.md",
        model_digest(arguments.model),
    )
    write_calibration(arguments.model, calibration)
    report["calibration"] = calibration.to_json()
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["left_out"]["results"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    collecting = commands.add_parser("collect")
    collecting.add_argument("--pairs", type=Path, required=True, help="folder of NAME.jsonl.gz")
    collecting.add_argument("--beir", type=Path, required=True, help="folder with a BEIR folder scifact")
    collecting.add_argument("--raw", type=Path, required=True, help="folder for what was read, one file a set")
    collecting.add_argument("--sets", nargs="*", help="names of sets; all when left out")
    collecting.add_argument("--queries", type=int, default=50, help="queries of each set")
    collecting.add_argument("--passages", type=int, default=6000, help="passages of each set of pairs, about")
    collecting.set_defaults(run=collect)
    fitting = commands.add_parser("fit")
    fitting.add_argument("--raw", type=Path, required=True, help="folder that collect has filled")
    fitting.add_argument("--model", type=Path, required=True, help="folder that gets calibration.json")
    fitting.add_argument("--out", type=Path, required=True, help="JSON file to write")
    fitting.set_defaults(run=fit)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
