"""How long does a query take from text to the reranked top ten, beside the script that people write?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.bench.figures import TIMES, Figure, Findings, Missing, Row, Taken, ratio, ratio_figure, shown
from benchmarks.bench.setup import Setting
from benchmarks.bench.worker import SystemFailedError, Worker

QUESTION = "two_stage"
OURS = "benchmarks.bench.ours.search"
PEER = "benchmarks.bench.peers.script"
WHAT = "query to top ten, p50"
AGREEMENT = "correlation of its logits with ours, 90 words each"
SCRIPT = "script, torch, 100 read"
PLAIN = "script, torch, a plain BERT of this size, 100 read"
HALF = "script, torch bfloat16, 100 read"
QUICKER = {"in bfloat16": HALF, "a plain BERT instead": PLAIN}
OWN: Mapping[str, dict[str, Any]] = {
    "this": {},
    "this, budget_ms=240": {"budget_ms": 240},
    "this, budget_ms=100": {"budget_ms": 100},
}
# name, kind of the ranker, how many it reads, the package that it needs besides sentence-transformers
VARIANTS: tuple[tuple[str, str, int, str], ...] = (
    ("script, torch, 20 read", "torch", 20, "torch"),
    (HALF, "torch bfloat16", 100, "torch"),
    (PLAIN, "plain", 100, "torch"),
    ("script, fastembed (ONNX, int8), 100 read", "fastembed", 100, "fastembed"),
    ("script, fastembed (ONNX, int8), 20 read", "fastembed", 20, "fastembed"),
    ("script, rerankers with FlashRank (ONNX, int8), 100 read", "flashrank", 100, "FlashRank"),
)
_WORDS, _FEW = 90, 20
_LEAST_AGREEMENT, _LEAST_TEXTS = 0.98, 5
_VARIANT_QUERIES = 4


def measure(setting: Setting, findings: Findings) -> None:
    """Rounds: in each the script answers its share of a sample of the queries once, and ours all of the sample."""
    queries = list(setting.corpus.queries[: setting.slow_queries])
    others = list(setting.corpus.queries[setting.slow_queries :]) or queries
    with ExitStack() as stack:
        ours = stack.enter_context(Worker(OURS, {"index": str(setting.index())}))
        script = None
        if setting.peers.has("sentence-transformers"):
            script = stack.enter_context(_script(setting, "torch"))
            script.ask("search", query=others[0], depth=_FEW)
            _agreement(setting, findings, ours, script, queries[0], SCRIPT)
        else:
            findings.missing.append(Missing(QUESTION, WHAT, SCRIPT, "not installed"))
        own: dict[str, list[Taken]] = {name: [] for name in OWN}
        theirs: list[Taken] = []
        for number in range(setting.repeats):
            if script is not None:
                theirs += [_asked(script, query, 100) for query in queries[number :: setting.repeats]]
            for name in OWN:
                own[name].append(_median(_own(ours, name, queries, others[:3])))
        for name, taken in own.items():
            findings.rows.append(Row.of(QUESTION, WHAT, name, "ms", taken, f"{len(queries)} queries in each repeat"))
        if theirs:
            note = f"these {len(queries)} queries, each once"
            findings.rows.append(Row.of(QUESTION, WHAT, SCRIPT, "ms", theirs, note))
        for variant in VARIANTS:
            _variant(setting, findings, variant, queries[:_VARIANT_QUERIES], others[0], ours)
    findings.figures += figures(findings)


def figures(findings: Findings) -> list[Figure]:
    """Against the script as people write it, and in words against the quicker ways of torch to run such a network."""
    found = []
    for name in OWN:
        row = findings.row(WHAT, name)
        title = f"two-stage search against the script{name.removeprefix('this')}"
        figure = ratio_figure(title, findings.row(WHAT, SCRIPT), row, 15, 40)
        others = {label: ratio(findings.row(WHAT, system), row) for label, system in QUICKER.items()}
        words = [f"{label} {shown(times, TIMES)}" for label, times in others.items() if times is not None]
        found.append(replace(figure, out_of="; ".join(filter(None, [figure.out_of, *words]))))
    return found


def _own(ours: Worker, name: str, queries: list[str], warm_up: list[str]) -> list[Taken]:
    """Every query once, by a pipeline that is opened anew and knows no score."""
    options = {"top_k": 10, **OWN[name]}
    ours.ask("open_again", warm_up=warm_up, options=options)
    answer = ours.ask("many", queries=queries, options=options)
    each = 1000 * answer.cpu_seconds / max(1, len(queries))
    return [Taken(milliseconds, each) for milliseconds in answer.value]


def _median(taken: list[Taken]) -> Taken:
    return Taken(statistics.median(one.value for one in taken), taken[0].cpu)


def _script(setting: Setting, kind: str) -> Worker:
    settings = {
        "static": str(setting.static()),
        "reranker": str(setting.reranker()),
        "corpus": str(setting.corpus_file()),
        "kind": kind,
    }
    return Worker(PEER, settings, python=setting.peers.python)


def _asked(script: Worker, query: str, depth: int) -> Taken:
    answer = script.ask("search", query=query, depth=depth)
    return Taken(answer.seconds * 1000, answer.cpu_seconds * 1000)


def _variant(
    setting: Setting,
    findings: Findings,
    variant: tuple[str, str, int, str],
    queries: list[str],
    warm_up: str,
    ours: Worker,
) -> None:
    name, kind, depth, package = variant
    if not setting.peers.has("sentence-transformers", package):
        findings.missing.append(Missing(QUESTION, WHAT, name, "not installed"))
        return
    try:
        with _script(setting, kind) as script:
            script.ask("search", query=warm_up, depth=_FEW)
            taken = [_asked(script, query, depth) for query in queries]
            if kind != "plain" and depth > _FEW:
                _agreement(setting, findings, ours, script, queries[0], name)
    except SystemFailedError as error:
        findings.missing.append(Missing(QUESTION, WHAT, name, f"failed: {str(error)[:200]}"))
        return
    findings.rows.append(Row.of(QUESTION, WHAT, name, "ms", taken, f"the first {len(queries)} of them, each once"))


def _agreement(setting: Setting, findings: Findings, ours: Worker, script: Worker, query: str, name: str) -> None:
    """Whether it is the same network that both run: over texts that neither cuts."""
    ids = set(script.ask("search", query=query, depth=_FEW, keep=_FEW).value["ids"])
    texts = [" ".join(document.text.split()[:_WORDS]) for document in setting.corpus.documents if document.id in ids]
    own, theirs = (np.array(worker.ask("score", query=query, texts=texts).value) for worker in (ours, script))
    if len(texts) < _LEAST_TEXTS:
        return
    if ((theirs >= 0) & (theirs <= 1)).all():  # FlashRank gives probabilities
        theirs = np.clip(theirs, 1e-7, 1 - 1e-7)
        theirs = np.log(theirs / (1 - theirs))
    value = float(np.corrcoef(own, theirs)[0, 1])
    findings.rows.append(Row(QUESTION, AGREEMENT, name, "", (value,)))
    if value < _LEAST_AGREEMENT:
        findings.notes.append(
            f"{name}: its logits agree with ours only to {value:.3f}; it may not run the same network"
        )
