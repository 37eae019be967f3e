"""One process of `encoding`, with a fixed number of threads; prints its numbers as JSON."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.config import Bm25Config
from retrieval.encoders import Bm25Encoder, StaticEncoder, compiled_status, encode_passages, prepare_compiled
from retrieval.encoders.words import WordTokenizer
from retrieval.token_tables.formats import StaticModel, open_static_model

Encode = Callable[[list[str]], Any]
Seconds = dict[str, list[float]]

SWITCH = "RETRIEVAL_COMPILED"
KNOWN, NEW, FIRST = "this, words known", "this, no word known", "this, first call of a process"
FRESH = """
import json, sys, time
from pathlib import Path
from retrieval.encoders import StaticEncoder, compiled_status
texts = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
encoder = StaticEncoder.open(Path(sys.argv[1]))
start = time.perf_counter()
encoder.encode_documents(texts)
print(time.perf_counter() - start, compiled_status().state)
"""


def plainly(encode: Encode) -> Encode:
    """The same without compiled kernels."""

    def encode_plain(texts: list[str]) -> Any:
        os.environ[SWITCH] = "0"
        try:
            return encode(texts)
        finally:
            del os.environ[SWITCH]

    return encode_plain


def interleaved(prepared: dict[str, Callable[[], Encode]], texts: list[str], repeats: int) -> Seconds:
    """Seconds of each, in turns, so that all meet the same disturbances; what prepares is not timed."""
    seconds: Seconds = {name: [] for name in prepared}
    for _ in range(repeats):
        for name, prepare in prepared.items():
            encode = prepare()
            gc.collect()
            start = time.perf_counter()
            encode(texts)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def fastest(candidates: dict[str, Encode], texts: list[str]) -> tuple[str, Encode]:
    """The candidate that takes the least time for a quarter of the texts, the better of two turns each."""
    prepared = {name: (lambda encode=encode: encode) for name, encode in candidates.items()}
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    seconds = interleaved(prepared, texts[: len(texts) // 4], 2)
    best = min(seconds, key=lambda name: min(seconds[name]))
    return best, candidates[best]


def peers(folder: Path, threads: int) -> dict[str, dict[str, Encode]]:
    """Both libraries with the settings that may be their best."""
    import torch
    from model2vec import StaticModel as Model2Vec
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model2vec = Model2Vec.from_pretrained(folder / "model2vec")
    transformer = SentenceTransformer(str(folder / "st"), device="cpu")

    def by_transformer(size: int) -> Encode:
        return lambda texts: transformer.encode(texts, batch_size=size, show_progress_bar=False)

    def by_model2vec(processes: bool) -> Encode:
        return lambda texts: model2vec.encode(texts, use_multiprocessing=processes, multiprocessing_threshold=1)

    ways = {"one process": by_model2vec(False)}
    if threads > 1:
        ways["its default, several processes"] = by_model2vec(True)
    return {
        "sentence-transformers": {f"batch_size={size}": by_transformer(size) for size in (32, 256, 1024)},
        "model2vec": ways,
    }


def fidelity(folder: Path, model: StaticModel, chosen: dict[str, Encode], texts: list[str]) -> dict[str, Any]:
    """How far vectors and token ids are from those of the libraries, every different text."""
    texts = texts[: len(texts) // 2]
    cosines = {}
    for name, place in (("model2vec", "model2vec"), ("sentence-transformers", "st")):
        theirs = np.asarray(chosen[name](texts), np.float64)
        ours = StaticEncoder.open(folder / place).encode_documents(texts).astype(np.float64)
        norms = np.linalg.norm(theirs, axis=1) * np.linalg.norm(ours, axis=1)
        cosines[name] = float(((theirs * ours).sum(axis=1) / norms).min())
    encoder = StaticEncoder(model)
    fast, plain = encoder.encode_documents(texts), plainly(encoder.encode_documents)(texts)
    expected = model.tokenizer.encode_batch(texts, add_special_tokens=False)
    return {
        "texts": len(texts),
        "smallest_cosine": cosines,
        "different_without_kernels": int((fast.view(np.uint32) != plain.view(np.uint32)).any(axis=1).sum()),
        "different_token_ids": _different_ids(model, texts, [encoding.ids for encoding in expected]),
        "different_token_counts": int(
            (encoder.count_tokens_many(texts) != [len(encoding.ids) for encoding in expected]).sum()
        ),
    }


def _different_ids(model: StaticModel, texts: list[str], expected: list[list[int]]) -> int:
    ids: NDArray[np.int32]
    ids, offsets = WordTokenizer(model.tokenizer).tokenize(texts)
    parts = np.split(ids, offsets[1:-1])
    return sum(part.tolist() != each for part, each in zip(parts, expected, strict=True))


def dense(model: StaticModel, chosen: dict[str, Encode], without: bool) -> dict[str, Callable[[], Encode]]:
    """What makes vectors; ``without`` kernels as well."""
    systems = _states(StaticEncoder(model).encode_documents, lambda: StaticEncoder(model).encode_documents, without)
    return systems | {name: (lambda encode=encode: encode) for name, encode in chosen.items()}


def both_arms(model: StaticModel, without: bool) -> dict[str, Callable[[], Encode]]:
    """What makes vectors and BM25 weights; ``without`` kernels as well."""

    def new() -> Encode:
        encoder, sparse = StaticEncoder(model), Bm25Encoder(Bm25Config())
        return lambda texts: encode_passages(encoder, sparse, texts, 0.0)

    return _states(new(), new, without)


def _states(warm: Encode, new: Callable[[], Encode], without: bool) -> dict[str, Callable[[], Encode]]:
    states = {KNOWN: lambda: warm, NEW: new}
    if without:
        states |= {
            f"{KNOWN}, without kernels": lambda: plainly(warm),
            f"{NEW}, without kernels": lambda: plainly(new()),
        }
    return states


def fresh_processes(model: Path, texts: Path, repeats: int) -> list[float]:
    """Seconds of the first call of a process: no word known, kernels not loaded."""
    seconds = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", FRESH, str(model), str(texts)], capture_output=True, text=True, check=True
        )
        taken, state = done.stdout.split()
        assert state == "ready", state
        seconds.append(float(taken))
    return seconds


def main() -> int:
    """Model folder, folder of the copies, threads and repeats are the arguments."""
    folder, place, threads, repeats = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    texts = json.loads((place / "texts.json").read_text(encoding="utf-8"))
    prepare_compiled()
    assert compiled_status().state == "ready", compiled_status().reason
    model = open_static_model(folder)
    chosen = {name: fastest(candidates, texts) for name, candidates in peers(place, threads).items()}
    encodes = {name: encode for name, (_, encode) in chosen.items()}
    result: dict[str, Any] = {"settings": {name: best for name, (best, _) in chosen.items()}}
    result["fidelity"] = fidelity(place, model, encodes, texts)
    without = threads == 1  # numpy takes one thread in any case
    for name, prepared in (("dense", dense(model, encodes, without)), ("both", both_arms(model, without))):
        some = texts if name == "dense" else texts[: len(texts) // 2]
        for system, prepare in prepared.items():
            if system.startswith(KNOWN):
                prepare()(some)
        result[name] = interleaved(prepared, some, repeats)
    result["dense"][FIRST] = fresh_processes(folder, place / "texts.json", repeats)
    warm = StaticEncoder(model)
    warm.encode_documents(texts)
    result["cache"] = {"words": warm.cache.words, "bytes": warm.cache.bytes}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
