"""Processes and those that they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_ORPHANS_S = 20.0


def descendants_of(parent: int) -> list[int]:
    """Processes that a process has started, and those that they have started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, above = (folder / "stat").read_text().rpartition(") ")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(above), []).append(int(folder.name))
    found: list[int] = []
    waiting = [parent]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def strike(processes: Iterable[int]) -> None:
    """SIGKILL for each."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def outliving(family: set[int]) -> list[int]:
    """Those of some processes that do not end by themselves; they are killed."""
    deadline = time.monotonic() + _ORPHANS_S
    alive = [process for process in family if _is_alive(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = [process for process in alive if _is_alive(process)]
    strike(alive)
    return alive


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
