"""One ingest in a process of its own: its seconds stage by stage, and the most memory of all its processes.

Nothing is warm but the file system and, after the first run on a machine, the compiled code.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_ONE = """
import json, resource, sys, time
from pathlib import Path
from pipelines import TwoStagePipeline, document_writer, preparation
from retrieval.config import parse_config
from retrieval.encoders.compiled import start
from retrieval.stores import edge
source, index, settings, variant = sys.argv[1:5]
variant = json.loads(variant)
def replace(module, name, value):
    assert hasattr(module, name), name
    setattr(module, name, value)
if "passages" in variant:
    replace(document_writer, "PASSAGES_PER_BATCH", variant["passages"])
    replace(edge, "_BATCH", variant["passages"])
if "documents" in variant:
    replace(preparation, "DOCUMENTS_PER_LOOKUP", variant["documents"])
if "kernels" in variant:
    replace(start, "_start", start.Start([Path(variant["kernels"])]))
marks = []
def note(progress):
    if progress.stage == "indexing" and not marks:
        marks.append(time.perf_counter())
began, worked = time.perf_counter(), time.process_time()
with TwoStagePipeline.open(index, parse_config(json.loads(settings))) as pipeline:
    opened = time.perf_counter()
    report = pipeline.ingest(source, on_progress=note)
    ingested, here = time.perf_counter(), time.process_time()
ended = time.perf_counter()
searchable = marks[0] if marks else ingested
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "documents": report.added, "rejected": report.rejected_count, "passages": report.passages,
    "seconds": ended - began, "open_s": opened - began, "searchable_s": searchable - began,
    "order_s": ingested - searchable, "close_s": ended - ingested,
    "read_s": report.read_seconds, "encode_s": report.encode_seconds, "write_s": report.write_seconds,
    "cpu_writer_s": here - worked, "cpu_others_s": children.ru_utime + children.ru_stime,
    "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
}))
if start._start._builder is not None:
    start._start._builder.join()  # so that compiling does not slow whatever is measured next
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One ingest, from opening a new index to closing it; the start of the interpreter and imports are left out.

    Args:
        documents: Documents added.
        rejected: Documents that could not be used.
        passages: Passages written.
        seconds: Opening, ingesting and closing; what is written then survives a power loss.
        open_s: Opening alone, with the encoder.
        searchable_s: From opening until every passage is found by search and survives a power loss.
        order_s: Putting the index in order afterwards; 0 where that is not due.
        close_s: Closing alone.
        read_s: Work of reading and hashing; the work of two processes overlaps.
        encode_s: Work of cutting and encoding.
        write_s: Work of making points and writing them.
        cpu_writer_s: Processor time of the process that writes.
        cpu_others_s: That of all processes that it started.
        resident_mb: Most resident memory of the process that writes, MB (10^6 bytes), pages of files with it.
        disk_mb: Blocks that the index takes on disk, MB.
        peak_mb: Most memory of all processes together (sum of PSS), MB, mapped files of the index with it; 0 where it
            was not watched.
        peak_anonymous_mb: The same without pages of files.
    """

    documents: int
    rejected: int
    passages: int
    seconds: float
    open_s: float
    searchable_s: float
    order_s: float
    close_s: float
    read_s: float
    encode_s: float
    write_s: float
    cpu_writer_s: float
    cpu_others_s: float
    resident_mb: float
    disk_mb: float
    peak_mb: float = 0.0
    peak_anonymous_mb: float = 0.0

    @property
    def passages_per_second(self) -> float:
        """Passages in each second from opening until all are searchable and durable."""
        return self.passages / self.searchable_s


def ingest_once(
    source: Path,
    index: Path,
    *,
    settings: dict[str, Any] | None = None,
    variant: dict[str, Any] | None = None,
    watch: bool = False,
    every: float = 0.05,
) -> Run:
    """One ingest in a process of its own, into a new index.

    Args:
        source: What to ingest.
        index: Folder of the index; what is there is erased.
        settings: Configuration; ``None`` for the defaults.
        variant: Constants to change: ``passages`` of a batch, ``documents`` looked up together, both only without the
            second process, and the folder of the compiled ``kernels``.
        watch: Whether to look at the memory of all processes while they run, which makes them a little slower.
        every: Seconds between two looks.

    Raises:
        RuntimeError: It failed; the message has its last line.
    """
    shutil.rmtree(index, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        _ONE,
        str(source),
        str(index),
        json.dumps(settings or {}),
        json.dumps(variant or {}),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watched = Memory(process.pid, every)
        if watch:
            with watched:
                printed, errors = process.communicate()
        else:
            printed, errors = process.communicate()
    if process.returncode:
        raise RuntimeError((errors.strip().splitlines() or [f"status {process.returncode}"])[-1])
    return Run(
        **json.loads(printed.splitlines()[-1]),
        disk_mb=disk_bytes(index) / 1e6,
        peak_mb=watched.total / 1e6,
        peak_anonymous_mb=watched.anonymous / 1e6,
    )


def summary(runs: Sequence[Run]) -> dict[str, float]:
    """Medians over runs, the peaks of those that were watched, and the rates of the slowest and the fastest."""
    names = [name for name in asdict(runs[0]) if not name.startswith("peak")]
    rates = [run.passages_per_second for run in runs]
    return {
        **{name: statistics.median(getattr(run, name) for run in runs) for name in names},
        **{name: max(getattr(run, name) for run in runs) for name in ("peak_mb", "peak_anonymous_mb")},
        "passages_per_s": statistics.median(rates),
        "slowest_per_s": min(rates),
        "fastest_per_s": max(rates),
        "runs": len(runs),
    }


def disk_bytes(folder: Path) -> int:
    """Bytes of the blocks that files take; the engine makes large files with holes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class Memory:
    """Adds up the memory of a process and all below it while a block runs, Linux only; keeps the most, in bytes.

    Pages that several processes share count in parts (PSS), so that the sum is what the machine has to hold.
    """

    def __init__(self, process: int, every: float) -> None:
        self.total = self.anonymous = 0
        self._process, self._every = process, every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            sizes = [_memory(process) for process in _tree(self._process)]
            self.total = max(self.total, sum(total for total, _ in sizes))
            self.anonymous = max(self.anonymous, sum(anonymous for _, anonymous in sizes))


def _memory(process: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return sizes.get("Pss", 0), sizes.get("Pss_Anon", 0)


def _tree(process: int) -> list[int]:
    found = [process]
    for each in found:
        try:
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        except OSError:
            continue
    return found
