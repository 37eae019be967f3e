"""How fast do texts become vectors, with known words and with new ones, and are they the same vectors?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.figures import Figure, Findings, Missing, Row, Taken, interleaved, ratio_figure
from benchmarks.bench.setup import Setting
from benchmarks.bench.worker import Worker

QUESTION = "encode"
OURS = "benchmarks.bench.ours.static_models"
PEER = "benchmarks.bench.peers.static_models"
TRANSFORMERS = ("sentence-transformers, batch_size=32", "sentence-transformers, batch_size=1024")
MODEL2VEC = ("model2vec", "model2vec, one process")
# name, kind, options of each call
PEERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (TRANSFORMERS[0], "sentence-transformers", {"batch_size": 32}),
    (TRANSFORMERS[1], "sentence-transformers", {"batch_size": 1024}),
    (MODEL2VEC[0], "model2vec", {}),
    (MODEL2VEC[1], "model2vec", {"use_multiprocessing": False}),
)
TWICE = "encode the corpus twice over"
COLD = "the same, no word known at the start"
PROCESS = "a whole process: import, open, encode the corpus once"
TOKENS = "texts whose token ids differ from the library's"
MEMORY = "peak memory of encoding"
COSINE = "smallest cosine with our vectors, every text"


def measure(setting: Setting, findings: Findings) -> None:
    """Rows of all systems over the corpus twice over, ours with known words and with new ones."""
    texts = str(setting.texts_file(2))
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(OURS, {"texts": texts}))
        peers: dict[str, tuple[Worker, dict[str, Any]]] = {}
        for name, kind, options in PEERS:
            if setting.peers.has(kind):
                settings = {"kind": kind, "folder": str(setting.static()), "texts": texts}
                worker = stack.enter_context(Worker(PEER, settings, python=setting.peers.python))
                peers[name] = worker, options
            else:
                findings.missing.append(Missing(QUESTION, TWICE, name, "not installed"))
        _fidelity(setting.work, ours, peers, findings)  # also the run that warms everything up

        def cold() -> Taken:
            ours.ask("forget")
            return ours.ask("encode").taken

        systems = {name: _encoding(worker, options) for name, (worker, options) in peers.items()}
        times = interleaved(setting.repeats, {"this": _encoding(ours, {}), "this, cold": cold, **systems})
        new = times.pop("this, cold")
        for name, taken in times.items():
            findings.rows.append(Row.of(QUESTION, TWICE, name, "s", taken))
        note = "an encoder opened anew before each repeat"
        findings.rows.append(Row.of(QUESTION, COLD, "this", "s", new, note))
        for name, worker in {"this": ours, **{name: worker for name, (worker, _) in peers.items()}}.items():
            findings.rows.append(Row(QUESTION, MEMORY, name, "MB", (worker.last.peak_mb,)))
    _whole_processes(setting, findings)
    findings.figures += figures(findings)


def _encoding(worker: Worker, options: dict[str, Any]) -> Callable[[], Taken]:
    return lambda: worker.ask("encode", **options).taken


def _fidelity(work: Path, ours: Worker, peers: dict[str, tuple[Worker, dict[str, Any]]], findings: Findings) -> None:
    ours.ask("save", path=str(work / "ours.npy"))
    own = np.load(work / "ours.npy")
    for name, (worker, _) in peers.items():
        worker.ask("save", path=str(work / "theirs.npy"))
        value = smallest_cosine(own, np.load(work / "theirs.npy"))
        findings.rows.append(Row(QUESTION, COSINE, name, "cosine", (value,)))
    unequal = ours.ask("unequal_tokens").value
    findings.rows.append(Row(QUESTION, TOKENS, "this", "", (unequal,)))


def smallest_cosine(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> float:
    """Over all rows; two rows of zeros agree, one of them does not agree with anything else."""
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    both_empty = ~one.any(axis=1) & ~other.any(axis=1)
    cosines = np.where(both_empty, 1.0, products / np.where(norms > 0, norms, 1.0))
    return float(cosines.min())


def _whole_processes(setting: Setting, findings: Findings) -> None:
    """From the start of the interpreter to the last vector."""
    texts = str(setting.texts_file(1))

    def run(module: str, settings: dict[str, Any], python: Path | None) -> Taken:
        started = time.perf_counter()
        chosen = {} if python is None else {"python": python}
        with Worker(module, settings, **chosen) as worker:
            worker.ask("encode")
            return Taken(time.perf_counter() - started)

    systems: dict[str, Callable[[], Taken]] = {"this": lambda: run(OURS, {"texts": texts}, None)}
    for kind in ("model2vec", "sentence-transformers"):
        if setting.peers.has(kind):
            settings = {"kind": kind, "folder": str(setting.static()), "texts": texts}
            systems[kind] = lambda settings=settings: run(PEER, settings, setting.peers.python)  # type: ignore[misc]
    for name, taken in interleaved(setting.repeats, systems).items():
        findings.rows.append(Row.of(QUESTION, PROCESS, name, "s", taken))


def figures(findings: Findings) -> list[Figure]:
    """Against the quicker setting of each library."""
    warm, cold = findings.row(TWICE, "this"), findings.row(COLD, "this")
    transformer = findings.quickest(TWICE, TRANSFORMERS)
    model2vec = findings.quickest(TWICE, MODEL2VEC)
    cosines = [row.median for row in findings.rows if row.what == COSINE]
    lowest = min(cosines, default=None)
    others = findings.row(TOKENS, "this")
    return [
        ratio_figure("encoding, words known, against sentence-transformers", transformer, warm, 20, 50),
        ratio_figure("encoding, words known, against model2vec", model2vec, warm, 12, 30),
        ratio_figure("encoding, words new, against sentence-transformers", transformer, cold, 3, 8),
        ratio_figure("encoding, words new, against model2vec", model2vec, cold, 2, 5),
        Figure("smallest cosine with the vectors of the libraries", lowest, "cosine", 0.99999, 0.99999),
        Figure(TOKENS, others.median if others else None, "", 0, 0, "lower"),
    ]
