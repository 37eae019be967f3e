"""Time and memory of `retrieval mine` at scale: 100,000 queries over a million passages.

    python benchmarks/mining.py --pairs DIR --work DIR [--passages 1000000] [--queries 100000] --out mining.json

Makes a corpus of every passage of the pair files and of windows of one to three of its sentences, in random order, and
mines it. Stop it when it has mined for some minutes (SIGINT); the same command goes on. Every process adds its peak of
memory and its pace to ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.mine import MineProgress, mine_lists
from pipelines.pair_files import PairFiles
from retrieval.training.pairs import Pair, split_sentences

WINDOWS = (2, 1, 3)
FEWEST_WORDS = 8
SAMPLE_SECONDS = 0.5


class EvenSample:
    """So many of the pairs, evenly spread over all files."""

    def __init__(self, pairs: PairFiles, limit: int) -> None:
        self._pairs = pairs
        self._limit = limit
        self._step = max(1, sum(1 for _ in pairs) // limit)

    def __iter__(self) -> Iterator[Pair]:
        return islice(self._pairs, 0, self._step * self._limit, self._step)


def write_corpus(pairs: PairFiles, path: Path, limit: int) -> None:
    texts = dict.fromkeys(text for pair in pairs for text in (pair.positive, *pair.negatives) if text.strip())
    whole = list(texts)
    for size in WINDOWS:
        for text in whole:
            sentences = split_sentences(text)
            for start in range(max(0, len(sentences) - size)):
                window = " ".join(sentences[start : start + size])
                if len(window.split()) >= FEWEST_WORDS:
                    texts[window] = None
            if len(texts) >= limit:
                break
    chosen = list(texts)[:limit]
    random.Random(0).shuffle(chosen)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        for number, text in enumerate(chosen):
            file.write(json.dumps({"_id": str(number), "text": text}) + "\n")
    part.replace(path)


class Peak:
    """The most memory of this process, as the kernel counts it (MiB): VmHWM, and of what kind it was."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def sample(self) -> None:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name in {"VmHWM", "RssAnon", "RssFile"}:
                self.seen[name] = max(self.seen.get(name, 0), int(value.split()[0]) // 1024)

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(SAMPLE_SECONDS):
                self.sample()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.sample()


def run(arguments: argparse.Namespace, corpus: Path) -> dict[str, Any]:
    """Mine until the end or until somebody stops it; what this process did and needed."""
    peak, started, last = Peak(), time.perf_counter(), MineProgress("starting", 0)
    stages: dict[str, dict[str, Any]] = {}

    def watch(progress: MineProgress) -> None:
        nonlocal last
        last = progress
        now = stages.setdefault(progress.stage, {"from": progress.done, "at_s": time.perf_counter() - started})
        now.update(to=progress.done, until_s=time.perf_counter() - started, peak_mib=dict(peak.seen))

    ended = "all done"
    with peak.watched():
        try:
            pairs = EvenSample(PairFiles([arguments.pairs]), arguments.queries)
            mine_lists(pairs, arguments.work / "lists.jsonl.gz", corpus=corpus, on_progress=watch)
        except KeyboardInterrupt:
            ended = f"stopped while {last.stage}"
    return {
        "ended": ended,
        "seconds": time.perf_counter() - started,
        "peak_mib": peak.seen,
        "stages": stages,
        "last": asdict(last),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with pair files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the corpus and the unfinished run")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--only-corpus", action="store_true", help="write the corpus and stop")
    parser.add_argument("--out", type=Path, required=True, help="JSON file that every process adds itself to")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    corpus = arguments.work / f"corpus-{arguments.passages}.jsonl"
    if not corpus.exists():
        write_corpus(PairFiles([arguments.pairs]), corpus, arguments.passages)
    if arguments.only_corpus:
        return
    record = run(arguments, corpus)
    before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
    arguments.out.write_text(json.dumps([*before, record], indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
