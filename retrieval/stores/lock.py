"""One process and one handle per index folder."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path
from typing import IO

import portalocker

from retrieval.errors import StoreBusyError, StoreError

LOCK_FILE = ".lock"

_held: weakref.WeakSet[IndexLock] = weakref.WeakSet()
_fork_hook: list[bool] = []


class IndexLock:
    """An exclusive lock on ``folder/.lock``, held until `release` or the death of the process.

    The lock belongs to the open file, so a second handle in the same process is refused as well. The file itself
    stays: removing it would let two processes lock two files of one name.

    Args:
        folder: Existing folder of the index.

    Raises:
        StoreBusyError: Another process or handle holds it.
        StoreError: The lock file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_FILE
        self._file: IO[str] | None = None
        try:
            file = path.open("a+", encoding="ascii")
        except OSError as error:
            raise StoreError(
                f"cannot lock index {folder}: {error.strerror or error}; to search a copy of it, open it read-only"
            ) from error
        try:
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as error:
            holder = owner(file)
            file.close()
            raise StoreBusyError(
                f"index {folder} is in use by {holder}; close it there, or search it read-only"
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        self._file = file
        if not _fork_hook and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_drop_in_child)
            _fork_hook.append(True)
        _held.add(self)

    def release(self) -> None:
        """Give the lock back; releasing twice is fine."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                portalocker.unlock(self._file)
            self.drop()

    def drop(self) -> None:
        """Close this process's copy of the file without unlocking, for a child after fork."""
        if self._file is not None:
            file, self._file = self._file, None
            _held.discard(self)
            file.close()


def _drop_in_child() -> None:
    # An inherited descriptor would keep the lock alive after the death of the process that owns the index.
    for lock in list(_held):
        lock.drop()


def is_writable(folder: Path) -> bool:
    """Whether this process may lock an index, as far as permissions tell; also where the folder is not there."""
    path = folder / LOCK_FILE
    return not folder.exists() or (os.access(folder, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)))


def owner(file: IO[str]) -> str:
    """Who has locked a file, in words, as far as it says."""
    try:
        file.seek(0)
        pid = int(file.read(20))
    except (OSError, ValueError):
        return "another process"
    return "this process, through another handle" if pid == os.getpid() else f"process {pid}"
