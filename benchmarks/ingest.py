"""How fast documents become a durable index, stage by stage, and in how much memory.

Every ingest runs in a process of its own. What is measured is written after every case, and a run that was stopped goes
on with the next one.

python -m benchmarks.ingest --scifact path/to/beir/scifact --pairs path/to/pairs --out benchmarks/ingest.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bench.machine import Watch, describe
from benchmarks.ingest_report import page
from benchmarks.ingest_run import Run, ingest_once, summary
from benchmarks.scale_corpus import write_corpus
from retrieval.encoders.compiled import prepare_compiled

SIZES = (6_000, 30_000, 171_000)
LARGE = 100_000
"""Documents from which an ingest is repeated less often."""

FLOOR_PASSAGES = 20_000
BATCHES = ((64, 512), (128, 512), (256, 64), (256, 128), (256, 512), (512, 512), (1024, 1024), (2048, 2048))
"""Documents looked up together, and passages encoded and written together."""

_WATCH_S, _WATCH_LARGE_S = 0.05, 0.25


@dataclass(frozen=True, slots=True)
class Case:
    """One row of a table.

    Args:
        table: Which table.
        name: Of the row.
        source: What is ingested.
        repeats: How often.
        watch: Whether one more ingest is watched for its memory; the only one where there are no repeats.
        second: Whether there is a second process.
        variant: See `benchmarks.ingest_run.ingest_once`.
        every: Seconds between two looks at the memory.
    """

    table: str
    name: str
    source: Path
    repeats: int
    watch: bool = True
    second: bool = False
    variant: dict[str, Any] = field(default_factory=dict)
    every: float = _WATCH_S

    @property
    def key(self) -> str:
        """Its place in the file."""
        return f"{self.table}: {self.name}: {'two processes' if self.second else 'one process'}"

    def measure(self, work: Path) -> dict[str, Any]:
        """All runs and their medians."""
        runs = [self._run(work, watch=False) for _ in range(self.repeats)]
        watched = [self._run(work, watch=True)] if self.watch else []
        # Watching slows a little, so a watched run is timed only where there is no other.
        median = summary(runs or watched)
        if watched:
            median |= {name: value for name, value in asdict(watched[0]).items() if name.startswith("peak")}
        return {"median": median, "runs": [asdict(run) for run in runs + watched]}

    def _run(self, work: Path, *, watch: bool) -> Run:
        settings = {"documents": {"second_process": self.second}}
        with tempfile.TemporaryDirectory(dir=work) as kernels:
            variant = dict(self.variant)
            if variant.pop("first", False):
                variant["kernels"] = kernels
            index = work / "index"
            return ingest_once(self.source, index, settings=settings, variant=variant, watch=watch, every=self.every)


def cases(scifact: Path, corpora: dict[int, Path], repeats: int) -> list[Case]:
    """All rows of all tables."""
    rows = [Case("sizes", "SciFact", scifact, repeats, second=second) for second in (False, True)]
    for size, corpus in corpora.items():
        large = size >= LARGE
        for second in (False, True):
            # In one process, a large corpus says nothing new and takes longest.
            times = repeats if not large else 2 * second
            every = _WATCH_LARGE_S if large else _WATCH_S
            rows.append(Case("sizes", f"{size:,}", corpus, times, second=second, every=every))
    rows.append(Case("kernels", "ready", scifact, repeats, watch=False))
    rows.append(Case("kernels", "first ingest of a machine", scifact, 2, watch=False, variant={"first": True}))
    smallest = corpora[min(corpora)]
    for documents, passages in BATCHES:
        variant = {"documents": documents, "passages": passages}
        rows.append(Case("batches", f"{documents} / {passages}", smallest, 3, watch=False, variant=variant))
    return rows


def engine_floor(corpus: Path, work: Path) -> dict[str, Any]:
    """See `benchmarks.ingest_floor`."""
    command = [sys.executable, "-m", "benchmarks.ingest_floor", str(corpus), str(work / "floor"), str(FLOOR_PASSAGES)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure what the file does not have yet, and write it and the page beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scifact", type=Path, required=True, help="BEIR folder")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of pair files, for the larger corpora")
    parser.add_argument("--work", type=Path, default=Path("build/ingest"), help="folder for corpora and indexes")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; the page stands beside it")
    arguments = parser.parse_args()
    record: dict[str, Any] = {}
    if arguments.out.exists() and not arguments.fresh:
        record = json.loads(arguments.out.read_text(encoding="utf-8"))
    record = {"date": datetime.now(UTC).date().isoformat(), "machine": describe(), "cases": {}} | record

    def put(key: str, measure: Callable[[], dict[str, Any]]) -> None:
        if key in record["cases"]:
            return
        watch = Watch()
        found = measure()
        record["cases"][key] = found | {"measured": watch.seen()}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        arguments.out.with_suffix(".md").write_text(page(record), encoding="utf-8")
        print(f"{key}  {record['cases'][key]['measured']['seconds']:.0f} s", flush=True)

    arguments.work.mkdir(parents=True, exist_ok=True)
    corpora = {
        size: write_corpus(arguments.pairs, arguments.work / f"corpus-{size}.jsonl", size)
        for size in sorted(arguments.sizes)
    }
    prepare_compiled()
    largest = corpora[max(corpora)]
    put("floor", lambda: engine_floor(largest, arguments.work))
    for case in cases(arguments.scifact, corpora, arguments.repeats):
        put(case.key, lambda case=case: case.measure(arguments.work))


if __name__ == "__main__":
    main()
