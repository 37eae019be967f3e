"""One measured system in a process of its own: ``python -m benchmarks.bench.serve MODULE SETTINGS``.

The module's ``open_system(**settings)`` gives an object; each line of standard input names one of its methods, and the
answer is one line of JSON with the seconds that the call took. It runs in the environment of the system, so it needs
nothing but Python.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    # Libraries print; the answers go where only this program writes.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module, settings = sys.argv[1], json.loads(sys.argv[2])
    answer(answers, lambda: opened.append(importlib.import_module(module).open_system(**settings)))
    for line in sys.stdin:
        request = json.loads(line)
        answer(answers, lambda request=request: getattr(opened[0], request["call"])(**request["arguments"]))


opened: list[Any] = []


def answer(answers: TextIO, call: Any) -> None:
    """Time one call and write what it gave, or why it failed."""
    started, cpu = time.perf_counter(), processor_seconds()
    try:
        value, error = call(), None
    except Exception as problem:  # whatever a library raises is the answer
        value, error = None, f"{type(problem).__name__}: {problem}"
    record = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": processor_seconds() - cpu,
        "peak_mb": peak_megabytes(),
        "value": value,
        "error": error,
    }
    answers.write(json.dumps(record) + "\n")
    answers.flush()


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def peak_megabytes() -> float:
    """Most memory that this process has held; 0 where the system does not tell.

    Not of `resource`: there a new process inherits the peak of the one that started it.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main()
