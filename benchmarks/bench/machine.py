"""What ran the measurements, said so that it names no machine, and what else ran on it."""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_OWN = ("numpy", "numba", "tokenizers", "onnxruntime", "qdrant-edge-py", "safetensors")
_BUSY = 0.2
"""Cores that others kept busy above which times are not to be trusted."""


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system and our versions."""
    return {
        "processor": processor(_read(Path("/proc/cpuinfo"))),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory(),
        "system": f"{platform.system()}, {platform.machine().replace('_', '-')}",
        "python": platform.python_version(),
        "packages": {name: found for name in _OWN if (found := _version(name))},
    }


def processor(cpuinfo: str) -> str:
    """Maker and family, without the model that would tell where it stands: ``AMD EPYC``."""
    names = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("model name")]
    words = names[0] if names else platform.processor().split()
    return " ".join(words[:2]).replace("(R)", "") or "unknown processor"


class Watch:
    """Looks how busy the machine is from when it is made to `seen`, and how much of it this run is."""

    def __init__(self) -> None:
        self.load = load()
        self._began, self._busy, self.own = time.perf_counter(), busy_seconds(_stat()), own_seconds()

    def seen(self) -> dict[str, Any]:
        """Load before, seconds since then, and how many cores other programs kept busy meanwhile, on average.

        The last one is ``None`` where the system does not tell. Processes of this run must have ended: only then
        their time is known to be its own.
        """
        seconds = time.perf_counter() - self._began
        others = None
        if self._busy is not None and (busy := busy_seconds(_stat())) is not None:
            others = round(max(0.0, busy - self._busy - (own_seconds() - self.own)) / seconds, 2)
        return {"load_before": self.load, "seconds": round(seconds, 1), "cores_of_others": others}


def was_busy(measured: dict[str, Any]) -> bool:
    """Whether other programs took a part of the processor that matters; by the load where nothing better is known."""
    others = measured["cores_of_others"]
    return bool(others > _BUSY) if others is not None else (measured["load_before"] or 0.0) > 1.0


def load() -> float | None:
    """Processes that wanted to run during the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def busy_seconds(stat: str) -> float | None:
    """Time that all cores worked since the machine started, from the first line of ``/proc/stat``; stolen time too."""
    line = stat.partition("\n")[0].split()
    if not line or line[0] != "cpu":
        return None
    user, nice, system, _, _, interrupts, soft, stolen = (int(ticks) for ticks in line[1:9])
    return sum((user, nice, system, interrupts, soft, stolen)) / float(os.sysconf("SC_CLK_TCK"))


def own_seconds() -> float:
    """Processor time of this process and of all below it that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _stat() -> str:
    return _read(Path("/proc/stat"))


def _memory() -> int | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
