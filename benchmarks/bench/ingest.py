"""How fast does a corpus become searchable, and in how much memory?"""

from __future__ import annotations

import shutil
from collections.abc import Callable

from benchmarks.bench.figures import Figure, Findings, Missing, Row, Taken, interleaved, shown
from benchmarks.bench.setup import SCALE, Setting
from benchmarks.bench.worker import Worker

QUESTION = "ingest"
PEER = "benchmarks.bench.peers.ingest_script"
SCRIPT = "script: sentence-transformers, qdrant-client :memory:, bm25s"
NEEDS = ("sentence-transformers", "qdrant-client", "bm25s")
TIME = "from the file to the closed index"
RATE = "passages a second"
PEAK = "peak memory, all processes"
LARGE = "large corpus: from the file to searchable"
LARGE_WHOLE = "large corpus: to the closed index, with its graph where it gets one"
LARGE_PEAK = "large corpus: peak memory, all processes, without pages of files"


def measure(setting: Setting, findings: Findings) -> None:
    """Each repeat in a new process, from opening to closing; the imports before and the interpreter do not count.

    The index of the last repeat stays for the questions about searching.
    """
    from benchmarks.ingest_run import ingest_once

    rates: dict[str, list[float]] = {}
    peaks: list[float] = []
    index = setting.work / "index"

    def ours() -> Taken:
        run = ingest_once(setting.source(), index)
        rates.setdefault("this", []).append(run.passages_per_second)
        return Taken(run.seconds, run.cpu_writer_s + run.cpu_others_s)

    def script() -> Taken:
        settings = {"static": str(setting.static()), "corpus": str(setting.corpus_file())}
        with Worker(PEER, settings, python=setting.peers.python) as worker:
            answer = worker.ask("ingest")
        rates.setdefault(SCRIPT, []).append(answer.value["passages"] / answer.seconds)
        peaks.append(answer.peak_mb)
        return answer.taken

    if setting.repeats > 1:
        ingest_once(setting.source(), index)  # what a machine does once, compiling for instance, does not count
    systems: dict[str, Callable[[], Taken]] = {"this": ours}
    if setting.peers.has(*NEEDS):
        systems[SCRIPT] = script
    else:
        findings.missing.append(Missing(QUESTION, TIME, SCRIPT, "not installed"))
    for name, taken in interleaved(setting.repeats, systems).items():
        note = "on disk, durable" if name == "this" else "in memory only"
        findings.rows.append(Row.of(QUESTION, TIME, name, "s", taken, note))
        findings.rows.append(Row(QUESTION, RATE, name, "passages/s", tuple(rates[name])))
    watched = ingest_once(setting.source(), index, watch=True)
    findings.rows.append(Row(QUESTION, PEAK, "this", "MB", (watched.peak_anonymous_mb,), "without pages of files"))
    if peaks:
        note = "its one process, with the libraries that it imports"
        findings.rows.append(Row(QUESTION, PEAK, SCRIPT, "MB", tuple(peaks), note))
    if setting.has_large:
        _large(setting, findings)
    else:
        findings.missing.append(Missing(QUESTION, LARGE, "this", "needs pair files, and a run that is not --quick"))
    findings.figures += figures(setting, findings)


def _large(setting: Setting, findings: Findings) -> None:
    """The index of the last repeat stays for the questions about searching."""
    from benchmarks.growth import ingest

    source, index, runs = setting.large_source(), setting.work / "large" / "index", []
    for _ in range(setting.repeats):
        shutil.rmtree(index, ignore_errors=True)
        runs.append(ingest(source, index))
    note = f"{setting.scale:,} documents, {runs[0]['passages']:,} passages"
    columns = {
        LARGE: ("searchable_s", "s"),
        LARGE_WHOLE: ("total_s", "s"),
        LARGE_PEAK: ("peak_anonymous_mb", "MB"),
        "large corpus: the same with pages of files": ("peak_mb", "MB"),
    }
    for what, (name, unit) in columns.items():
        findings.rows.append(Row(QUESTION, what, "this", unit, tuple(run[name] for run in runs), note))


def figures(setting: Setting, findings: Findings) -> list[Figure]:
    """Absolute ones, which have targets, and how the usual script compares."""
    rate, time, script = (findings.row(*key) for key in ((RATE, "this"), (TIME, "this"), (TIME, SCRIPT)))
    large, peak = findings.row(LARGE, "this"), findings.row(LARGE_PEAK, "this")
    beside = ""
    if script is not None and time is not None:
        beside = f"{shown(time.median, 's')} here; the script, in memory, {shown(script.median, 's')}"
    return [
        Figure("from file to durable index", rate and rate.median, "passages/s", 6000, 15000, out_of=beside),
        Figure(f"{SCALE:,} documents, from the file to searchable", setting.at_scale(large), "s", 60, 20, "lower"),
        Figure("peak memory of that ingest", setting.at_scale(peak), "MB", 1500, 600, "lower"),
    ]
