"""What runs in the process that is killed.

It carries out one operation and says through a pipe how far it is. What it does to the files of the index (renaming,
removing, forcing to disk, starting processes) it says too, before and after; at the one that the order names it kills
itself, with SIGKILL, and what it has started with it where the order says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil  # noqa: F401 (keeps in mind what os can do, before that is watched)
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.reliability.processes import descendants_of, strike

_WATCHED = ("replace", "rename", "unlink", "rmdir", "mkdir", "link", "fsync")
_DEPTH = 3
STARTED = "after starting a process"
"""The step that a new process counts as."""


class Steps:
    """Tells of each step before and after it, and dies at one of them.

    Args:
        room: Only what happens to files below it counts.
        tell: Says it.
        at: Label and number of the step to die at; ``None`` for none.
        victim: ``tree`` or ``parent``.
    """

    def __init__(self, room: Path, tell: Callable[..., None], at: tuple[str, int] | None, victim: str) -> None:
        self._room = str(room)
        self._tell = tell
        self._at = at
        self._victim = victim
        self._seen: Counter[str] = Counter()

    def install(self) -> None:
        """Watch from now on."""
        for name in _WATCHED:
            setattr(os, name, self._watched(name, getattr(os, name)))
        started = subprocess.Popen.__init__

        def start(process: Any, *arguments: Any, **keywords: Any) -> None:
            started(process, *arguments, **keywords)
            self._step(STARTED)

        subprocess.Popen.__init__ = start  # type: ignore[method-assign]

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **keywords: Any) -> Any:
            path = _path(arguments[-1] if name in {"replace", "rename", "link"} else arguments[0], keywords)
            if not path.startswith(f"{self._room}{os.sep}"):
                return call(*arguments, **keywords)
            label = f"{name} {_kind(path, self._room)}"
            self._step(f"before {label}")
            result = call(*arguments, **keywords)
            self._step(f"after {label}")
            return result

        return watched

    def _step(self, label: str) -> None:
        self._seen[label] += 1
        if self._at == (label, self._seen[label]):
            family = descendants_of(os.getpid())
            self._tell(struck=True, family=family)
            if self._victim == "tree":
                strike(family)
            os.kill(os.getpid(), signal.SIGKILL)
        self._tell(step=label)


def _path(argument: Any, keywords: dict[str, Any]) -> str:
    folder = keywords.get("dir_fd")
    if isinstance(argument, int):
        return os.readlink(f"/proc/self/fd/{argument}")
    path = os.fsdecode(argument)
    return path if folder is None else f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"


def _kind(path: str, room: str) -> str:
    """A path in the index, cut short and without what differs from run to run."""
    parts = Path(path).relative_to(room).parts
    if len(parts) > _DEPTH:
        parts = (*parts[:_DEPTH], "...")
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f-]{32,36}", "UUID", "/".join(parts)))


def carry_out(order: dict[str, Any], outgoing: Connection, errors: str) -> None:
    """Carry out an order, all of the process.

    Args:
        order: Which operation on which index, and where to die.
        outgoing: Takes a line of JSON for each thing that is said.
        errors: File for the error output.
    """
    with open(errors, "wb") as file:
        os.dup2(file.fileno(), 2)
    write, pipe = os.write, outgoing.fileno()

    def tell(**said: Any) -> None:
        # One write, so that nothing of it is lost in a buffer.
        write(pipe, f"{json.dumps(said)}\n".encode())

    at = order.get("at")
    Steps(Path(order["index"]), tell, None if at is None else (at[0], at[1]), order["victim"]).install()
    if order["server"]:
        from benchmarks.reliability.push import push

        push(Path(order["index"]), order["server"]["url"], order["server"]["collection"], tell)
        return
    from benchmarks.reliability.operations import OPERATIONS

    OPERATIONS[order["operation"]].run(Path(order["index"]), Path(order["room"]), tell)
