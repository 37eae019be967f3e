"""Copies of an index that share with it what the engine never writes to again.

An optimized segment is written once; afterwards the engine changes only its small files (which points are dead, which
version they have). Its large files are shared through hard links, everything else is copied, without the holes of
which these files mostly consist.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
_OPTIMIZED = "id_tracker.mappings"
_WRITTEN_ONCE = re.compile(
    r"page_\d+\.dat|matrix\.dat|quantized\.data|graph\.bin|links(_compressed)?\.bin|inverted_index\.dat"
    r"|point_to_values\.bin|values_to_points\.bin|id_tracker\.mappings"
)
_APPENDED = re.compile(r"chunk_\d+\.mmap")

Shares = Callable[[Path], bool]
"""Whether a file of a segment may be a link: takes the path below the folder of the segments."""


def shared_with_writer(segments: Path) -> Shares:
    """What a copy may share with an engine that goes on writing: the large files of optimized segments."""
    optimized = {path.parent.name for path in segments.glob(f"*/{_OPTIMIZED}")}
    return lambda path: path.parts[0] in optimized and _WRITTEN_ONCE.fullmatch(path.name) is not None


def shared_among_readers(path: Path) -> bool:
    """What copies that nobody writes points to may share: all large files."""
    return bool(_WRITTEN_ONCE.fullmatch(path.name) or _APPENDED.fullmatch(path.name))


def copy_folder(source: Path, target: Path, shares: Shares) -> None:
    """Copy a folder to one that does not exist yet.

    Args:
        source: The folder.
        target: Where the copy will be.
        shares: Says of a path below ``source`` whether it may be a hard link; it is copied where links are not to be
            had.

    Raises:
        OSError: A file has gone, is a link, cannot be read, or the copy cannot be written.
    """
    target.mkdir(parents=True)
    for path in _files(source):
        place = path.relative_to(source)
        copy = target / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not (shares(place) and _linked(path, copy)):
            copy_file(path, copy)


def copy_file(source: Path, target: Path) -> None:
    """Copy the contents of a file; stretches of zeros become holes.

    Raises:
        OSError: One of them cannot be read or written.
    """
    with source.open("rb", buffering=0) as old, target.open("xb", buffering=0) as new:
        size = os.fstat(old.fileno()).st_size
        for start, stop in _stretches(old, size):
            old.seek(start)
            while start < stop:
                block = old.read(min(_BLOCK, stop - start))
                if not block:
                    break
                if block != _ZEROS[: len(block)]:
                    new.seek(start)
                    _write(new, block)
                start += len(block)
        new.truncate(size)


def disk_of(folder: Path, shares: Shares = lambda path: False) -> int:
    """Bytes of disk that a copy of a folder takes; ``shares`` as for `copy_folder`."""
    copied = (path for path in _files(folder) if not shares(path.relative_to(folder)))
    return sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in copied)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link", str(path))
        elif path.is_file():
            yield path


def _linked(path: Path, copy: Path) -> bool:
    # The engine opens files for writing, also those that it only reads.
    if not os.access(path, os.W_OK):
        return False
    try:
        os.link(path, copy)
    except FileNotFoundError:
        raise
    except OSError:
        return False  # another disk, a system without links, or too many of them
    return True


def _stretches(file: FileIO, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, as far as the system tells."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    stop = 0
    while stop < size:
        try:
            start = os.lseek(file.fileno(), stop, os.SEEK_DATA)
            stop = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        except OSError:
            return  # holes to the end
        yield start, stop


def _write(file: FileIO, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]
