"""Everything that this project claims about speed, measured beside other libraries in the same run.

    python -m benchmarks.bench --data FOLDER [--out FOLDER] [--only encode two_stage …]

Without a folder the documentation of Python is the corpus: it has no judgements, and no more text than it has, so the
figures that need either are left out. After every question bench.json is written, at the end bench.md and bench.svg;
with --only the other questions keep what they have there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import cold_start, encode, first_stage, growth, ingest, machine, quality, two_stage
from benchmarks.bench.corpora import Corpus, open_corpus
from benchmarks.bench.figures import Findings
from benchmarks.bench.plot import draw
from benchmarks.bench.report import page, summary
from benchmarks.bench.results import Results, ResultsError
from benchmarks.bench.setup import PEERS, SCALE, Peers, Setting, model_digests
from benchmarks.bench.worker import ROOT, SystemFailedError
from retrieval.errors import RetrievalError

QUESTIONS: dict[str, Callable[[Setting, Findings], None]] = {
    "encode": encode.measure,
    "ingest": ingest.measure,
    "first_stage": first_stage.measure,
    "two_stage": two_stage.measure,
    "quality": quality.measure,
    "cold_start": cold_start.measure,
}
RESULTS = ROOT / "build" / "bench" / "results"
_QUICK_DOCUMENTS = 300
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; 0 when every question was answered, 1 when not, 2 when it cannot begin, 130 when stopped."""
    options = parser().parse_args(arguments)
    if options.render:
        return _render(options.out)
    try:
        corpus = open_corpus(options.data, _QUICK_DOCUMENTS if options.quick else None)
        peers = Peers.open(options.peers)
        for folder in (options.out, options.work):
            folder.mkdir(parents=True, exist_ok=True)
        scale = 0 if options.quick or corpus.pairs is None else options.scale
        described = {
            "machine": machine.describe(),
            "peers": peers.packages,
            "corpus": {"name": corpus.name, "documents": len(corpus.documents), "characters": corpus.characters},
            "models": model_digests(),
            "scale": scale,
            "quick": options.quick,
        }
        results = Results.open(options.out / "bench.json", described, keep=bool(options.only or options.resume))
    except (ValueError, RetrievalError, ResultsError) as error:
        _say(str(error))
        return 2
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}; name another folder")
        return 2
    if options.data is None:
        _say("corpus: the documentation of this Python; for judged and larger ones name a folder: --data FOLDER")
    if not peers.installed:
        _say(f"no environment of the peers in {options.peers}: only this project is measured; make it with: make peers")
    chosen = [name for name in options.only or [*QUESTIONS, "growth"] if not (options.resume and results.has(name))]
    with tempfile.TemporaryDirectory(dir=options.work) as scratch:
        setting = _setting(options, corpus, peers, Path(scratch), scale)
        try:
            finished = all([_measure(setting, options, results, name) for name in chosen])
        except KeyboardInterrupt:
            _write(results.record, options.out)
            _say(f"stopped; what was finished is in {options.out}; the same command with --resume goes on")
            return _INTERRUPTED
    _write(results.record, options.out)
    print(summary(results.record))
    _say(f"\nall of it: {options.out / 'bench.md'}")
    return 0 if finished else 1


def _setting(options: argparse.Namespace, corpus: Corpus, peers: Peers, work: Path, scale: int) -> Setting:
    return Setting(
        corpus=corpus,
        peers=peers,
        work=work,
        repeats=options.repeats or (1 if options.quick else 5),
        slow_queries=1 if options.quick else 12,
        queries=5 if options.quick else 100,
        scale=scale,
    )


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, help="a BEIR folder, or a folder with beir/NAME/ and pairs/*.jsonl.gz")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the results, build/bench/results")
    made.add_argument("--peers", type=Path, default=PEERS, help="environment in which the peers are installed")
    made.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="folder for indexes, removed after")
    made.add_argument("--only", nargs="+", choices=[*QUESTIONS, "growth"], help="some of the questions")
    made.add_argument("--resume", action="store_true", help="leave out the questions that --out has answers to")
    made.add_argument("--repeats", type=_positive, help="how often each thing is timed, 5 unless --quick")
    made.add_argument("--scale", type=int, default=SCALE, help="documents of the large corpus; 0: none")
    made.add_argument("--quick", action="store_true", help="few texts, once each: whether it runs, not how fast")
    made.add_argument("--growth", action="store_true", help="measure up to a million documents too, tens of minutes")
    made.add_argument("--render", action="store_true", help="only write bench.md and bench.svg anew from bench.json")
    return made


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {number}")
    return number


def _measure(setting: Setting, options: argparse.Namespace, results: Results, name: str) -> bool:
    """Answer one question; whether it could be."""
    _say(f"{name} …")
    findings, watch, failed = Findings(), machine.Watch(), False
    try:
        if name != "growth":
            QUESTIONS[name](setting, findings)
        elif options.growth:
            growth.run(setting, options.out / "growth.json")
    except (SystemFailedError, RuntimeError) as error:
        failed = True
        findings.notes.append(f"{name} was not finished: {error}")
        _say(f"{name}: {error}")
    if name == "growth":
        growth.add(findings, options.out / "growth.json")
    seen = watch.seen()
    results.put(name, findings, {"date": _today(), "repeats": setting.repeats, **seen})
    _say(f"{name}: {seen['seconds']:,.0f} s")
    return not failed


def _render(out: Path) -> int:
    try:
        record: dict[str, Any] = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _say(f"no results to write anew: {error}")
        return 2
    _write(record, out)
    return 0


def _write(record: dict[str, Any], out: Path) -> None:
    (out / "bench.md").write_text(page(record), encoding="utf-8")
    draw(record, out / "bench.svg")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # see `worker.environment_of_all`; for those that others start
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being ended leaves no process and no files either
    sys.exit(main())
