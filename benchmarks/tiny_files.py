"""Ingest a folder of very many tiny files and watch memory and open files: ``python -m benchmarks.tiny_files``."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from pipelines import TwoStagePipeline


def main() -> None:
    """Write the files, ingest them twice, and print what it took as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder without")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="tiny-files-", dir=arguments.folder))
    try:
        print(json.dumps(measure(place, arguments.files), indent=1))
    finally:
        shutil.rmtree(place)


def measure(place: Path, files: int) -> dict[str, float]:
    """Seconds, mebibytes and handles of an ingest, and of the next one that finds nothing new."""
    folder = place / "documents"
    for number in range(files):
        below = folder / f"{number % 1000:03}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number}.txt").write_text(f"Note {number} of harbour {number % 1009}.", encoding="utf-8")
    watch = Watch()
    with TwoStagePipeline.open(place / "index") as pipeline:
        before, started = _memory(), time.perf_counter()
        first = pipeline.ingest(folder)
        between = time.perf_counter()
        again = pipeline.ingest(folder, sync=True)
        ended = time.perf_counter()
        hit = pipeline.search(f"note {files - 1}", top_k=1, rerank=False)[0]
    if (first.added, again.unchanged, hit.document_id) != (files, files, f"{(files - 1) % 1000:03}/{files - 1}.txt"):
        sys.exit(f"not all files are in the index: {first}, {again}, {hit.document_id}")
    return {
        "files": files,
        "ingest_s": round(between - started, 1),
        "again_s": round(ended - between, 1),
        "memory_before_mib": round(before / 1024),
        "memory_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "most_handles": watch.end(),
    }


class Watch:
    """Counts the files that this process has open, twenty times a second."""

    def __init__(self) -> None:
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """The most that there were."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self._most = max(self._most, len(os.listdir("/proc/self/fd")))


def _memory() -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
