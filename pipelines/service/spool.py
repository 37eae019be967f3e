"""What was uploaded, on disk until it is in the index: a folder for each ingest job.

::

    uploads/.lock            the process that uses the folder
    uploads/<job>/job.json   the record of the job, written last: a folder without one is an upload that never ended
    uploads/<job>/0/a.pdf    the files, each in a folder of its own and under its own name
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import portalocker

from retrieval.errors import StoreBusyError, StoreError

_RECORD = "job.json"
_NAME_BYTES = 200


class Spool:
    """The folder of all uploads; one process has it at a time.

    Args:
        root: The folder; made when absent.

    Raises:
        StoreBusyError: Another process uses it.
        StoreError: It cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (root / ".lock").open("a+", encoding="ascii")
        except OSError as error:
            raise StoreError(f"cannot make the folder of uploads {root}: {error.strerror or error}") from error
        try:
            portalocker.lock(self._lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as error:
            self._lock.close()
            raise StoreBusyError(
                f"the folder of uploads {root} is in use by another process; give each its own service.jobs.spool"
            ) from error

    def new(self, job: str) -> Upload:
        """The folder of a new job, still without a record."""
        folder = self.root / job
        folder.mkdir()
        return Upload(folder)

    def upload(self, job: str) -> Upload:
        """The folder of a job that is there."""
        return Upload(self.root / job)

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of all jobs; uploads that never ended and records that cannot be read are erased."""
        for folder in sorted(path for path in self.root.iterdir() if path.is_dir()):
            try:
                record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
                yield {**record, "id": folder.name}
            except (OSError, ValueError, TypeError, RecursionError):
                shutil.rmtree(folder, ignore_errors=True)

    def free_bytes(self) -> int:
        """Free space on the disk."""
        return shutil.disk_usage(self.root).free

    def close(self) -> None:
        """Let another process have the folder."""
        with contextlib.suppress(OSError, portalocker.LockException):
            portalocker.unlock(self._lock)
        self._lock.close()


class Upload:
    """The folder of one job.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, name: str) -> IO[bytes]:
        """A new file to write; the name that it gets is safe and keeps its extension.

        Args:
            name: Name that the client gave, whatever it is.
        """
        place = self.folder / str(sum(1 for _ in self.folder.iterdir()))
        place.mkdir()
        return (place / safe_name(name)).open("xb")

    def files(self) -> list[Path]:
        """The files in the order of their creation."""
        places = sorted((path for path in self.folder.iterdir() if path.is_dir()), key=lambda path: int(path.name))
        return [file for place in places for file in place.iterdir()]

    def save(self, record: Mapping[str, Any]) -> None:
        """Write the record so that it survives a power loss, with the files before it."""
        partial = self.folder / (_RECORD + ".new")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(record, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / _RECORD)
        _sync(self.folder)
        _sync(self.folder.parent)

    def drop_files(self) -> None:
        """Erase the files; the record stays."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def erase(self) -> None:
        """Erase everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


def close_durably(file: IO[bytes]) -> None:
    """Close a file when the disk has it, and its name."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    _sync(Path(file.name).parent)


def safe_name(name: str) -> str:
    """The last part of a file name without anything that a file system or a terminal would obey.

    Args:
        name: As a client gave it: it may hold folders, dots, controls, anything.

    Returns:
        A name that is no path, at most 200 bytes long, with the extension of the original.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character if character.isprintable() else "_" for character in last).strip().lstrip(".")
    stem, dot, extension = shown.rpartition(".")
    tail = (dot + extension).encode("utf-8", "replace") if stem else b""
    head = (stem or shown or "file").encode("utf-8", "replace")
    tail = tail[:50]
    return (head[: _NAME_BYTES - len(tail)] + tail).decode("utf-8", "ignore")


def _sync(folder: Path) -> None:
    # Windows cannot open folders, and does not need it.
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
