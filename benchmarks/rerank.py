"""What the second stage costs, and what reading less would cost in quality: on development sets only.

    python -m benchmarks.rerank --data DIR --work DIR --store retrieval/models/starter-reranker --out benchmarks

``--data`` holds ``beir/scifact`` and ``pairs/NAME.jsonl.gz``. What the cross-encoder reads is kept in ``--work``, one
file a set; sets that have one are not read again. ``--store`` fits the forecast of early stop on all sets and puts it
into ``calibration.json`` of a model; ``--out`` measures everything and writes ``rerank.json`` and ``rerank.md``.

Quality and errors of early stop are those of sets that the forecast was not fitted on: each set is replayed, by the
loop that searches use, with a forecast of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rerank_reading import (
    TOP_K,
    WINDOWS,
    Asked,
    collect,
    collected,
    documents,
    fit_forecast,
    ndcg,
    replay,
    tokens,
)
from benchmarks.rerank_report import report
from benchmarks.rerank_speed import pair_times, search_times
from retrieval.config import Config
from retrieval.rerankers import EarlyStop, LikelySettled, read_calibration, write_calibration

ERRORS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
DEPTHS = {"48": (10, 15, 20, 30), "64": (10, 15, 20, 24), "90": (5, 10, 15, 20)}
DRAWS = 2000
Sets = Mapping[str, Sequence[Asked]]


def reading_table(sets: Sets) -> list[dict[str, Any]]:
    """nDCG@10 and tokens for each window and depth, every set weighing the same, beside the defaults."""
    words, depth = str(Config().rerank.window_words), Config().rerank.depth
    base = _by_set(sets, words, depth, dict.fromkeys(sets))
    rows = [_row({"words": 0, "depth": 0}, _by_set(sets, words, 0, dict.fromkeys(sets)), base)]
    for window in WINDOWS:
        for some in DEPTHS[window]:
            measured = _by_set(sets, window, some, dict.fromkeys(sets))
            rows.append(_row({"words": int(window), "depth": some}, measured, base))
    return rows


def stop_table(sets: Sets) -> list[dict[str, Any]]:
    """The same for each setting of early stop, with the default window and depth, and how often the top differs."""
    words, depth, batch = str(Config().rerank.window_words), Config().rerank.depth, Config().rerank.batch_size
    base = _by_set(sets, words, depth, dict.fromkeys(sets))
    others = {
        name: fit_forecast({other: rows for other, rows in sets.items() if other != name}, "the others", words)
        for name in sets
    }
    rules: dict[str | float, dict[str, EarlyStop]] = {"exact": dict.fromkeys(sets, "exact")}
    rules |= {error: {name: LikelySettled(others[name], error) for name in sets} for error in ERRORS}
    rows = []
    for batch_size in sorted({4, batch}):
        for setting, rule in rules.items():
            measured = _by_set(sets, words, depth, rule, batch_size)
            differ = [np.mean([one != other for one, other in zip(m["top"], base[n]["top"], strict=True)])
                      for n, m in measured.items()]  # fmt: skip
            asked = {"early_stop": setting, "batch_size": batch_size}
            rows.append(_row(asked, measured, base) | {"differ": float(np.mean(differ))})
    return rows


def _by_set(
    sets: Sets, words: str, depth: int, rule: Mapping[str, EarlyStop], batch: int = 8
) -> dict[str, dict[str, Any]]:
    measured = {}
    for name, asked in sets.items():
        readings = [replay(one, words, depth, rule[name], batch=batch) for one in asked]
        runs = [documents(one, reading) for one, reading in zip(asked, readings, strict=True)]
        measured[name] = {
            "ndcg": ndcg(asked, runs),
            "tokens": [tokens(one, words, reading) for one, reading in zip(asked, readings, strict=True)],
            "read": [reading.reranked for reading in readings],
            "top": [[document for document, _ in run[:TOP_K]] for run in runs],
        }
    return measured


def _row(asked: dict[str, Any], measured: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    change = {name: measured[name]["ndcg"] - base[name]["ndcg"] for name in measured}
    generator = np.random.default_rng(0)
    means = np.mean(
        [some[generator.integers(0, len(some), (DRAWS, len(some)))].mean(axis=1) for some in change.values()], axis=0
    )
    return asked | {
        "ndcg": float(np.mean([np.mean(one["ndcg"]) for one in measured.values()])),
        "change": float(np.mean([some.mean() for some in change.values()])),
        "interval": [float(np.percentile(means, part)) for part in (2.5, 97.5)],
        "tokens": float(np.mean([np.mean(one["tokens"]) for one in measured.values()])),
        "read": float(np.mean([np.mean(one["read"]) for one in measured.values()])),
        "scifact": {
            "ndcg": float(np.mean(measured["scifact-train"]["ndcg"])),
            "tokens": float(np.mean(measured["scifact-train"]["tokens"])),
        },
    }


def store_forecast(sets: Sets, model: Path) -> None:
    """Fit on all sets and put the forecast beside what else the model says about its logits."""
    calibration = read_calibration(model)
    if calibration is None:
        raise SystemExit(f"{model} has no calibration.json: make one with benchmarks/calibration.py first")
    words = str(Config().rerank.window_words)
    told = (
        f"{len(sets)} development sets, {sum(map(len, sets.values()))} queries, windows of {words} words, the first "
        f"{WINDOWS[words]} read, looked at after every 4; benchmarks/rerank.md"
    )
    forecast = fit_forecast(sets, told, words)
    write_calibration(model, replace(calibration, forecast=forecast))
    print(json.dumps(forecast.to_json(), indent=1))


def _machine() -> dict[str, Any]:
    import onnxruntime

    name = next((line.partition(":")[2].strip() for line in _lines() if line.startswith("model name")), "unknown")
    return {
        "processor": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with beir/scifact and pairs/NAME.jsonl.gz")
    parser.add_argument("--work", type=Path, required=True, help="folder for what was read, one file a set")
    parser.add_argument("--queries", type=int, default=50, help="queries of each set")
    parser.add_argument("--out", type=Path, help="folder for rerank.json and rerank.md")
    parser.add_argument("--store", type=Path, help="folder of the model that gets the forecast")
    arguments = parser.parse_args()
    if arguments.out is None and arguments.store is None:
        parser.error("give --out, --store or both")
    collect(arguments.data, arguments.work, arguments.queries)
    sets = collected(arguments.work)
    if arguments.store is not None:
        store_forecast(sets, arguments.store)
    if arguments.out is None:
        return
    content = {
        "machine": _machine(),
        "sets": {name: len(rows) for name, rows in sets.items()},
        "pairs": pair_times(),
        "searches": search_times(arguments.data, arguments.queries),
        "reading": reading_table(sets),
        "stops": stop_table(sets),
    }
    (arguments.out / "rerank.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "rerank.md").write_text(report(content), encoding="utf-8")


if __name__ == "__main__":
    main()
