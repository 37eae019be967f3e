"""Hours of mixed load on the embedded engine and on the service: is anything lost, does anything grow.

Both are loaded by `benchmarks.soak_workload` over an index of a BEIR collection, one after the other or, with
``--together``, at the same time. Every interval notes memory, open files, threads and disk of the process under load,
and the latencies of everything that was due. At the end every acknowledged document is read back, the process is
killed, and they are read back again.

python -m benchmarks.soak --collection SCIFACT --minutes 60 --out benchmarks/soak.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench.machine import Watch, describe
from benchmarks.service_process import ROOT, serve
from benchmarks.soak_report import write_report
from benchmarks.soak_workload import EngineTarget, Seen, ServiceTarget, Target, Workload
from pipelines import TwoStagePipeline

SUBJECTS = ("engine", "service")


def main() -> None:
    """Load, or be the process that does; write figures, page and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=Path, required=True, help="BEIR folder: the index and the queries")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two notes")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--together", action="store_true", help="both at once")
    parser.add_argument("--out", type=Path, help="JSON file; page and plot stand beside it")
    parser.add_argument("--child", nargs=2, metavar=("SUBJECT", "PLACE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        _load(*arguments.child, arguments)
        return
    if arguments.out is None:
        parser.error("--out is needed")
    record = {"machine": describe(), "subjects": {}, "together": arguments.together}
    watch = Watch()
    record["date"] = datetime.now(UTC).isoformat(timespec="minutes")
    with ThreadPoolExecutor(len(SUBJECTS) if arguments.together else 1) as pool:
        runs = {subject: pool.submit(_soak, subject, arguments) for subject in arguments.subjects}
        failed = {subject: error for subject, run in runs.items() if (error := run.exception()) is not None}
        record["subjects"] = {subject: run.result() for subject, run in runs.items() if subject not in failed}
    record["watch"] = watch.seen()
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if record["subjects"]:
        print(write_report(record, arguments.out))
    for error in failed.values():
        raise error


def _soak(subject: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        with TwoStagePipeline.open(index) as pipeline:
            pipeline.ingest(arguments.collection)
        if subject == "engine":
            with _child(subject, str(index), arguments) as child:
                found = _follow(child, child.pid, index)
                child.kill()
            oracle = found.pop("oracle")
            with TwoStagePipeline.open(index) as pipeline:
                found["lost_after_kill"] = _read_back(EngineTarget(pipeline), oracle)
            return found
        with serve(index) as server:
            with _child(subject, server.url, arguments) as child:
                found = _follow(child, server.pid, index)
                child.wait()
            server.end(signal.SIGKILL)
            server.start()
            found["lost_after_kill"] = _read_back(ServiceTarget(server.url), found.pop("oracle"))
        return found


@contextmanager
def _child(subject: str, place: str, arguments: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.soak", "--child", subject, place]
    command += ["--collection", str(arguments.collection), "--minutes", str(arguments.minutes)]
    command += ["--every", str(arguments.every)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _follow(child: subprocess.Popen[str], process: int, index: Path) -> dict[str, Any]:
    """Note the state of a process whenever the load says what it saw, until it says what it left."""
    notes: list[dict[str, Any]] = []
    assert child.stdout is not None
    for line in child.stdout:
        said: dict[str, Any] = json.loads(line)
        if "oracle" in said:
            return {"notes": notes, **said}
        notes.append({**said, **_state(process, index)})
        print(json.dumps(notes[-1]), file=sys.stderr, flush=True)
    raise RuntimeError(f"the load ended by itself after {len(notes)} notes")


def _load(subject: str, place: str, arguments: argparse.Namespace) -> None:
    """Be the load, and for the engine also what is loaded."""
    lines = (arguments.collection / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [str(json.loads(line)["text"]) for line in lines]
    pipeline = TwoStagePipeline.open(place) if subject == "engine" else None
    target: Target = ServiceTarget(place) if pipeline is None else EngineTarget(pipeline)
    began = time.monotonic()
    with Workload(target, queries).running() as workload:
        while time.monotonic() - began < arguments.minutes * 60:
            time.sleep(arguments.every)
            _say({"at_s": round(time.monotonic() - began, 1), **_summary(workload.take(), len(workload.stored))})
    _say({"oracle": {"stored": workload.stored, "deleted": list(workload.deleted)}, "lost": workload.lost()})
    if pipeline is not None:
        time.sleep(60)  # the parent kills it before


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _read_back(target: Target, oracle: dict[str, Any]) -> list[str]:
    workload = Workload(target, ["none"])
    workload.stored.update(oracle["stored"])
    workload.deleted.extend(oracle["deleted"])
    return workload.lost()


def _summary(seen: Seen, stored: int) -> dict[str, Any]:
    return {
        "stored": stored,
        "done": {name: len(ms) for name, ms in sorted(seen.ms.items())},
        "p50_ms": {name: round(statistics.median(ms), 2) for name, ms in sorted(seen.ms.items())},
        "p95_ms": {name: round(float(np.percentile(ms, 95)), 2) for name, ms in sorted(seen.ms.items())},
        "errors": seen.errors,
        "wrong": seen.wrong,
    }


def _state(process: int, index: Path) -> dict[str, Any]:
    """Memory, handles and threads of a process, and the disk of its index."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    kilobytes = {name: int(status[name].split()[0]) for name in ("VmRSS", "RssAnon")}
    # Not Path.rglob, which ends in an error where a folder goes meanwhile.
    files = [os.path.join(place, name) for place, _, names in os.walk(index) for name in names]
    return {
        "resident_mb": round(kilobytes["VmRSS"] / 1024, 1),
        "anonymous_mb": round(kilobytes["RssAnon"] / 1024, 1),
        "handles": len(os.listdir(f"/proc/{process}/fd")),
        "threads": int(status["Threads"]),
        "disk_mb": round(sum(_blocks(path) for path in files) / 1e6, 1),
    }


def _blocks(path: str) -> int:
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:  # the engine has removed it meanwhile
        return 0


if __name__ == "__main__":
    main()
