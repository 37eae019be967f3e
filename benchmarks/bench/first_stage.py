"""How long does fetching 100 candidates take, with both arms and with each alone?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.figures import Figure, Findings, Missing, Row, Taken
from benchmarks.bench.setup import SCALE, Setting, write_records
from benchmarks.bench.worker import Worker

QUESTION = "first_stage"
OURS = "benchmarks.bench.ours.search"
BM25 = "benchmarks.bench.peers.bm25"
VECTORS = "benchmarks.bench.peers.vectors"
ARMS = {"hybrid": "both arms, 100 candidates", "dense": "dense alone, 100", "bm25": "BM25 alone, 100"}
QDRANT, NUMPY = "qdrant-client :memory:", "numpy product, Model2Vec encodes"
BACKENDS = {"bm25s": "numpy", "bm25s with numba": "numba"}
LARGE = "large corpus: "

Times = Callable[[], "list[Taken]"]


def measure(setting: Setting, findings: Findings) -> None:
    """The corpus, and the large one where it was ingested."""
    _searched(setting, findings, setting.index(), setting.corpus_file(), "", points=True)
    if setting.has_large:
        corpus = setting.work / "large" / "script.jsonl"
        write_records(setting.large_source(), corpus)
        # Putting 171,000 points into a list of Python takes the peer minutes; its search time grows as that of numpy.
        _searched(setting, findings, setting.large_index(), corpus, LARGE, points=False)
    row = findings.row(f"{LARGE}{ARMS['hybrid']}, p50", "this")
    title = f"hybrid top 100 over {SCALE:,} documents, p50"
    findings.figures.append(Figure(title, setting.at_scale(row), "ms", 5, 2, "lower"))


def _searched(setting: Setting, findings: Findings, index: Path, corpus: Path, prefix: str, *, points: bool) -> None:
    queries = list(setting.corpus.queries[: setting.queries])
    vectors = setting.work / f"vectors-{'large' if prefix else 'small'}.npz"
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(OURS, {"index": str(index)}))
        ours.ask("export", path=str(vectors), queries=queries)
        systems: dict[tuple[str, str], Times] = {}
        for arm, what in ARMS.items():
            options = {"rerank": False, "first_stage": arm, "candidates": 100, "top_k": 10}
            ours.ask("open_again", warm_up=queries[:3], options=options)
            systems[what, "this"] = _asked(ours, queries=queries, options=options)
        _bm25(setting, findings, stack, corpus, prefix, queries, systems)
        _peers(setting, findings, stack, vectors, prefix, queries, systems, points=points)
        for run in systems.values():  # warm up
            run()
        found: dict[tuple[str, str], list[list[Taken]]] = {key: [] for key in systems}
        for _ in range(setting.repeats):  # one system after the other, then all of them again
            for key, run in systems.items():
                found[key].append(run())
    for (what, name), repeats in found.items():
        _add(findings, f"{prefix}{what}", name, repeats)


def _add(findings: Findings, what: str, name: str, repeats: list[list[Taken]]) -> None:
    """A row for the p50 and one for the p95 of the queries of each repeat."""
    cpu = [float(np.mean([one.cpu for one in taken if one.cpu is not None])) for taken in repeats]
    for part in (50, 95):
        values = [float(np.percentile([one.value for one in taken], part)) for taken in repeats]
        taken = [Taken(value, spent if part == 50 else None) for value, spent in zip(values, cpu, strict=True)]
        findings.rows.append(Row.of(QUESTION, f"{what}, p{part}", name, "ms", taken))


def _asked(worker: Worker, call: str = "many", **arguments: Any) -> Times:
    """The milliseconds of all queries; the processor time is that of the call, in equal parts."""

    def run() -> list[Taken]:
        answer = worker.ask(call, **arguments)
        each = 1000 * answer.cpu_seconds / max(1, len(answer.value))
        return [Taken(milliseconds, each) for milliseconds in answer.value]

    return run


def _bm25(
    setting: Setting,
    findings: Findings,
    stack: ExitStack,
    corpus: Path,
    prefix: str,
    queries: list[str],
    systems: dict[tuple[str, str], Times],
) -> None:
    """Its index lies in memory and is timed on the way."""
    for name, backend in BACKENDS.items():
        if not setting.peers.has("bm25s", *(["numba"] if backend == "numba" else [])):
            findings.missing.append(Missing(QUESTION, f"{prefix}{ARMS['bm25']}", name, "not installed"))
            continue
        settings = {"corpus": str(corpus), "backend": backend}
        worker = stack.enter_context(Worker(BM25, settings, python=setting.peers.python))
        repeats = 1 if prefix else setting.repeats
        taken = [worker.ask("index").taken for _ in range(repeats)]
        note = "tokenize and index, in memory; ours writes both arms, see ingest"
        findings.rows.append(Row.of(QUESTION, f"{prefix}BM25 index", name, "s", taken, note))
        systems[ARMS["bm25"], name] = _asked(worker, queries=queries)


def _peers(
    setting: Setting,
    findings: Findings,
    stack: ExitStack,
    vectors: Path,
    prefix: str,
    queries: list[str],
    systems: dict[tuple[str, str], Times],
    *,
    points: bool,
) -> None:
    if setting.peers.has("model2vec"):
        settings = {
            "kind": "numpy",
            "vectors": str(vectors),
            "static": str(setting.static()),
            "queries": queries,
        }
        systems[ARMS["dense"], NUMPY] = _asked(
            stack.enter_context(Worker(VECTORS, settings, python=setting.peers.python))
        )
    else:
        findings.missing.append(Missing(QUESTION, f"{prefix}{ARMS['dense']}", NUMPY, "not installed"))
    if not points:
        return
    if not setting.peers.has("qdrant-client"):
        findings.missing.append(Missing(QUESTION, f"{prefix}{ARMS['hybrid']}", QDRANT, "not installed"))
        return
    settings = {"kind": "qdrant", "vectors": str(vectors)}
    worker = stack.enter_context(Worker(VECTORS, settings, python=setting.peers.python))
    taken = worker.ask("upsert").taken
    findings.rows.append(Row.of(QUESTION, f"{prefix}putting the points in", QDRANT, "s", [taken]))
    systems[ARMS["hybrid"], QDRANT] = _asked(worker, hybrid=True)
    systems[ARMS["dense"], QDRANT] = _asked(worker, hybrid=False)
