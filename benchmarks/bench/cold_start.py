"""How long from the shell to an answer, beside what only importing the usual library takes?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.bench.figures import Findings, Missing, Row, Taken, interleaved, ratio_figure
from benchmarks.bench.machine import own_seconds
from benchmarks.bench.setup import Setting
from benchmarks.bench.worker import ROOT, SystemFailedError, environment_of_all

QUESTION = "cold_start"
WHAT = "a whole process"
SEARCH, FIRST_STAGE = "retrieval search", "retrieval search --no-rerank"
IMPORTS = {
    "sentence-transformers": "import sentence_transformers",
    "model2vec": "import model2vec",
    "fastembed": "import fastembed",
    "qdrant-client": "import qdrant_client",
    "bm25s": "import bm25s",
}


def measure(setting: Setting, findings: Findings) -> None:
    """Whole processes one after the other, each search with another query; one round before does not count."""
    index = str(setting.index())
    queries = iter(setting.corpus.queries * (2 * (setting.repeats + 1)))

    def search(*options: str) -> Callable[[], Taken]:
        command = [sys.executable, "-m", "pipelines", "search"]
        return lambda: _taken([*command, "--index", index, "--json", *options, "--", next(queries)])

    systems: dict[str, Callable[[], Taken]] = {SEARCH: search(), FIRST_STAGE: search("--no-rerank")}
    systems["python -c pass"] = lambda: _taken([sys.executable, "-c", "pass"])
    for package, statement in IMPORTS.items():
        if setting.peers.has(package):
            systems[statement] = _importing(setting, statement)
        else:
            findings.missing.append(Missing(QUESTION, WHAT, statement, "not installed"))
    if setting.repeats > 1:
        interleaved(1, systems)
    for name, taken in interleaved(setting.repeats, systems).items():
        findings.rows.append(Row.of(QUESTION, WHAT, name, "s", taken))
    slower, faster = findings.row(WHAT, IMPORTS["sentence-transformers"]), findings.row(WHAT, SEARCH)
    findings.figures.append(ratio_figure("a cold search against import sentence_transformers", slower, faster, 8, 15))


def _importing(setting: Setting, statement: str) -> Callable[[], Taken]:
    return lambda: _taken([str(setting.peers.python), "-c", statement])


def _taken(command: Sequence[str]) -> Taken:
    started, cpu = time.perf_counter(), own_seconds()
    run = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, env=environment_of_all())
    taken = Taken(time.perf_counter() - started, own_seconds() - cpu)
    if run.returncode:
        words = run.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SystemFailedError(f"{' '.join(command[1:4])}: {words[-1] if words else f'exit code {run.returncode}'}")
    return taken
