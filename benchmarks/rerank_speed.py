"""How long the cross-encoder takes on this machine: a pair, a search, a search again, and many searches."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rerank_reading import development_set
from pipelines import TwoStagePipeline
from retrieval.config import Config
from retrieval.models import find_model
from retrieval.telemetry import refuse_telemetry

LENGTHS = (64, 90, 128, 192, 256)
WORKERS = (1, 2)
RUNS = 5
PAIRS = 8
_QUERY = 20

SESSIONS: dict[str, dict[str, Any]] = {
    "as searches open it": {},
    "with SkipLayerNorm fused": {"fused": True},
    "with an arena": {"arena": True},
    "fused, with an arena": {"fused": True, "arena": True},
    "one pair by all workers": {"inside": True},
    "eight pairs in one batch": {"batch": True},
}


def pair_times() -> list[dict[str, Any]]:
    """Milliseconds a pair by tokens and workers, every way to run the graph in turn, medians of `RUNS`."""
    rows = []
    for workers in WORKERS:
        sessions = {name: _session(workers if one.get("inside") else 1, one) for name, one in SESSIONS.items()}
        with ThreadPoolExecutor(workers) as pool:
            times: dict[tuple[int, str], list[float]] = {(tokens, name): [] for tokens in LENGTHS for name in SESSIONS}
            # Lengths in turn, as searches have them: one length over and over favours an arena.
            for _ in range(RUNS + 1):
                for tokens, name in times:
                    feeds = [_feed(tokens, number) for number in range(PAIRS)]
                    started = time.perf_counter()
                    _run(sessions[name], feeds, pool, SESSIONS[name])
                    times[tokens, name].append(1000 * (time.perf_counter() - started) / PAIRS)
            rows += [
                {"workers": workers, "tokens": tokens, "session": name, "ms": statistics.median(some[1:])}
                for (tokens, name), some in times.items()
            ]
    return rows


def _session(threads: int, settings: Mapping[str, Any]) -> Any:
    refuse_telemetry()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = bool(settings.get("arena"))
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    graph = find_model(Config().rerank.model) / "model.onnx"
    disabled = None if settings.get("fused") else ["SkipLayerNormFusion"]
    return onnxruntime.InferenceSession(
        str(graph), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )


def _feed(tokens: int, seed: int) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(1000, 20_000, (1, tokens))
    kinds = np.zeros_like(ids)
    kinds[:, _QUERY:] = 1
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds}


def _run(session: Any, feeds: Sequence[dict[str, Any]], pool: ThreadPoolExecutor, settings: Mapping[str, Any]) -> None:
    if settings.get("batch"):
        session.run(None, {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    elif settings.get("inside"):
        for feed in feeds:
            session.run(None, feed)
    else:
        list(pool.map(lambda feed: session.run(None, feed), feeds))


def search_times(data: Path, queries: int) -> dict[str, Any]:
    """Milliseconds of whole searches over SciFact with its train queries, for each setting of early stop."""
    development = development_set(data, "scifact-train", queries)
    texts = list(development.queries.values())
    with tempfile.TemporaryDirectory() as folder:
        with TwoStagePipeline.open(folder, Config()) as pipeline:
            pipeline.ingest(development.documents)
        stops = [_searched(folder, texts, stop) for stop in ("never", "exact", Config().rerank.early_stop)]
        with TwoStagePipeline.open(folder, Config()) as pipeline:
            pipeline.search("warm")
            first = _each(texts, pipeline.search)
            again = _each(texts, pipeline.search)
        with TwoStagePipeline.open(folder, _config(Config().rerank.early_stop)) as pipeline:
            pipeline.search("warm")
            alone = sum(_each(texts, pipeline.search))
            started = time.perf_counter()
            pipeline.search_many(texts)
            together = 1000 * (time.perf_counter() - started)
    return {
        "queries": len(texts),
        "documents": len(development.documents),
        "stops": stops,
        "cache": {"first_ms": statistics.median(first), "again_ms": statistics.median(again)},
        "many": {"alone_ms": alone / len(texts), "together_ms": together / len(texts)},
    }


def _searched(folder: str, texts: Sequence[str], stop: str | float) -> dict[str, Any]:
    reranked = []

    def search(text: str) -> None:
        reranked.append(pipeline.search(text).reranked)

    with TwoStagePipeline.open(folder, _config(stop)) as pipeline:
        pipeline.search("warm")
        times = _each(texts, search)
    return {
        "early_stop": stop,
        "p50_ms": statistics.median(times),
        "p95_ms": float(np.percentile(times, 95)),
        "read": statistics.mean(reranked),
    }


def _config(stop: str | float) -> Config:
    return Config.model_validate({"rerank": {"early_stop": stop, "cache_mb": 0}})


def _each(texts: Iterable[str], search: Callable[[str], object]) -> list[float]:
    times = []
    for text in texts:
        started = time.perf_counter()
        search(text)
        times.append(1000 * (time.perf_counter() - started))
    return times
