"""Private copies of a published index, one for each reader.

A view is an index folder that shares its large files with the publication, or with nothing where links are not to be
had. It is there as long as its lock file is locked; the next reader removes those of readers that have died.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import portalocker

from retrieval.errors import StoreBusyError, StoreError, StoreFullError
from retrieval.manifest import MANIFEST_FILE, peek_manifest
from retrieval.stores.index_layout import GENERATIONS
from retrieval.stores.lock import LOCK_FILE, owner
from retrieval.stores.published import (
    PUBLISHED,
    VIEW_LOCK,
    VIEW_PREFIX,
    VIEWS,
    current_publication,
    pointer_file,
)
from retrieval.stores.published_files import copy_file, copy_folder, disk_of, shared_among_readers

_TRIES, _PAUSE_S = 20, 0.05
_RESERVE = 64 * 2**20
_SHARED = portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING
_ALONE = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING

Stamp = tuple[int, int, int]


@dataclass(slots=True)
class View:
    """A private copy of an index.

    Args:
        folder: An index folder.
        root: The index that it is a copy of.
        stamp: `stamp_of` the index when the copy was begun.
        pid: The process that has made it.
        lock_file: Locked as long as the view is in use.
        lock: That file, open; ``None`` after `release`.
    """

    folder: Path
    root: Path
    stamp: Stamp | None
    pid: int
    lock_file: Path
    lock: IO[str] | None

    def release(self) -> None:
        """Remove the copy; releasing twice is fine, and a fork leaves the copy to its parent."""
        if self.lock is not None and os.getpid() == self.pid:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.lock_file.unlink(missing_ok=True)
            self.lock.close()
        self.lock = None


def stamp_of(root: Path) -> Stamp | None:
    """Changes when there is another state to be read; ``None`` where there is no index."""
    for path in (pointer_file(root), root / MANIFEST_FILE):
        with contextlib.suppress(OSError):
            state = path.stat()
            return state.st_mtime_ns, state.st_ino, state.st_size
    return None


def view_of_publication(root: Path) -> View | None:
    """A view of the state that is published now, ``None`` where none is.

    Raises:
        StoreFullError: There is no room for the copy.
        StoreError: The copy cannot be made.
    """
    for _ in range(_TRIES):
        stamp, publication = stamp_of(root), current_publication(root)
        if publication is None:
            return None
        view = _begun(_place(root / PUBLISHED, publication.folder), root, stamp)
        if _filled(view, partial(_copied, publication.folder, view.folder)):
            return view
        view.release()
        time.sleep(_PAUSE_S)
    raise StoreError(f"index {root} is published faster than it can be read; try again")


def view_of_live(root: Path) -> View:
    """A view of an index that nobody writes to, in the folder of temporary files: the files, and the log, as they are.

    Raises:
        StoreBusyError: Somebody has it open.
        StoreFullError: There is no room for the copy.
        StoreError: There is no index, it was left in the middle of a change, or the copy cannot be made.
    """
    with _untouched(root):
        manifest = peek_manifest(root)
        if manifest is None:
            raise StoreError(f"no index in {root}: there is no {MANIFEST_FILE}")
        if manifest.state != "ready":
            raise StoreError(
                f"index {root} was left in the middle of a change; finish it with 'retrieval ingest', or search it as "
                "it is without read_only"
            )
        source = root / GENERATIONS / str(manifest.generation)
        view = _begun(_place(None, source), root, stamp_of(root))

        def fill() -> bool:
            copy_folder(source, view.folder / GENERATIONS / source.name, lambda path: False)
            copy_file(root / MANIFEST_FILE, view.folder / MANIFEST_FILE)
            return True

        _filled(view, fill)
        return view


def _filled(view: View, fill: Callable[[], bool]) -> bool:
    try:
        return fill()
    except OSError as error:
        view.release()
        raise StoreError(f"cannot copy index {view.root} to {view.folder}: {error.strerror or error}") from error
    except BaseException:
        view.release()
        raise


def _copied(source: Path, target: Path) -> bool:
    """Whether a publication was there from the first file to the last."""
    try:
        before = source.stat().st_ino
        copy_folder(source, target, shared_among_readers)
        return source.stat().st_ino == before
    except FileNotFoundError:
        if source.exists():
            raise
        return False


def _place(published: Path | None, source: Path) -> Path:
    """Where the view goes: beside the publication, where links save the copy, or else to the temporary files."""
    if published is not None:
        place = published / VIEWS
        with contextlib.suppress(OSError):
            place.mkdir(exist_ok=True)
            if os.access(place, os.W_OK) and shutil.disk_usage(place).free >= _RESERVE:
                return place
    place = Path(tempfile.gettempdir())
    needed, free = disk_of(source) + _RESERVE, shutil.disk_usage(place).free
    if free < needed:
        raise StoreFullError(
            f"a copy of {source} to read from needs {needed // 2**20} MiB in {place}, where {free // 2**20} MiB are "
            "free; name another folder with TMPDIR"
        )
    return place


def _begun(place: Path, root: Path, stamp: Stamp | None) -> View:
    """A view without contents, and its lock; those that nobody has any more are removed."""
    _tidy(place)
    while True:
        path = place / f"{VIEW_PREFIX}{uuid.uuid4().hex}{VIEW_LOCK}"
        try:
            file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600), "r+", encoding="ascii")
        except OSError as error:
            raise StoreError(f"cannot make {path}: {error.strerror or error}") from error
        with contextlib.suppress(portalocker.LockException, OSError):
            portalocker.lock(file, _ALONE)
            # Whoever tidies may have found the file before it was locked.
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return View(path.with_suffix(""), root, stamp, os.getpid(), path, file)
        file.close()


def _tidy(place: Path) -> None:
    for path in place.glob(f"{VIEW_PREFIX}*{VIEW_LOCK}"):
        with contextlib.suppress(portalocker.LockException, OSError), path.open("r+", encoding="ascii") as file:
            portalocker.lock(file, _ALONE)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _untouched(root: Path) -> Iterator[None]:
    """Keep writers out of an index, where it was ever locked by one.

    Raises:
        StoreBusyError: One is in.
    """
    path = root / LOCK_FILE
    try:
        file = path.open("r", encoding="ascii")
    except FileNotFoundError:
        yield  # a copy of an index, which nobody has opened
        return
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        try:
            portalocker.lock(file, _SHARED)
        except portalocker.LockException as error:
            raise StoreBusyError(f"index {root} is in use by {owner(file)}") from error
        yield
