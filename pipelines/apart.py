"""Work in a process of its own, because damaged files can make the engine end the process that reads them."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pipelines
from retrieval.errors import StoreError

_DEATH_SIGNAL = 1


class ApartError(StoreError):
    """The process did not come to its end."""


def run_apart(start: str, order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Let a process do something, and take what it says.

    Args:
        start: Python that the process runs; it calls `take_order` at first and `say` for each answer.
        order: What it is to do, JSON values.

    Raises:
        ApartError: It cannot be started, was killed, or failed.
    """
    package = Path(pipelines.__file__).parent.parent
    paths = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", start],
                env={**os.environ, "PYTHONPATH": paths},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise ApartError(f"cannot start {sys.executable}: {error}") from error
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                child.stdin.write(json.dumps({**order, "parent": os.getpid()}).encode())
                child.stdin.close()
                for line in child.stdout:
                    yield json.loads(line)
            except (BrokenPipeError, ValueError):  # it has died, in the middle of a line perhaps
                pass
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            errors.seek(0)
            raise ApartError(_ended(child.returncode, errors.read()))


def take_order() -> dict[str, Any]:
    """What the process is to do, from the one that has started it; from now on it ends with that one."""
    order: dict[str, Any] = json.load(sys.stdin)
    if sys.platform == "linux":
        # As an orphan it would go on holding the lock of the index.
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != order["parent"]:
        sys.exit("nobody waits for it any more")
    return order


def say(record: Mapping[str, Any]) -> None:
    """Answer something."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _ended(code: int, errors: bytes) -> str:
    if code < 0:
        name = {known.value: known.name for known in signal.Signals}.get(-code, str(-code))
        return f"the engine ended the process that read the index ({name}): a file is shorter than it should be"
    last = (errors.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    return f"reading the index failed: {last}"
