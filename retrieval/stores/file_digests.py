"""What a file says, in 32 hex digits; and whether a file system tells that a file was written to."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BLOCK = 1 << 16
_ZEROS = bytes(BLOCK)
_BLOCK_DIGEST = struct.Struct("<QII")
_THREADS_FROM = 1 << 24
_PROBE = "seal.probe"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file says.

    Args:
        digest: 32 hex digits over its blocks that are not zero, and where they are.
        blocks: CRC-32 of each block of 64 KiB by its number, without those that are zero.
    """

    digest: str
    blocks: Mapping[int, int]


def digest_file(path: str | Path, *, sync: bool = False) -> FileDigest:
    """Digest a file; holes are not read.

    A block counts by its CRC-32: it notices every flipped bit, and of larger damage all but one in 4 billion.

    Args:
        path: The file.
        sync: Whether to make it survive a power loss as well.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    blocks: dict[int, int] = {}
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        if sync:
            os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
        for start, end in _data(descriptor, size):
            for at in range(start - start % BLOCK, end, BLOCK):
                block = os.pread(descriptor, BLOCK, at)
                if block != _ZEROS[: len(block)]:
                    blocks[at // BLOCK] = zlib.crc32(block)
                    digest.update(_BLOCK_DIGEST.pack(at, len(block), blocks[at // BLOCK]))
    finally:
        os.close(descriptor)
    return FileDigest(digest.hexdigest()[:32], blocks)


def digest_files(paths: Sequence[Path], *, sync: bool = False) -> list[FileDigest | None]:
    """Digests of files, ``None`` for one that cannot be read; in several threads where there is much to read."""

    def digest(path: Path) -> FileDigest | None:
        try:
            return digest_file(path, sync=sync)
        except OSError:
            return None

    if sum(map(_allocated, paths)) < _THREADS_FROM:
        return [digest(path) for path in paths]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        return list(threads.map(digest, paths))


def notes_writes(folder: Path) -> bool:
    """Whether the file system changes the time of a file that is written through a memory map; one in memory does not.

    The engine writes in this way, so without that a file that it has changed would look as it did.
    """
    probe = folder / _PROBE
    try:
        with probe.open("w+b") as file:
            file.write(b"\0")
            file.flush()
            os.utime(probe, ns=(0, 0))
            with mmap.mmap(file.fileno(), 1) as mapped:
                # In memory only the first access to a page counts, and the engine reads before it writes.
                mapped[0] = mapped[0] + 1
                mapped.flush()
            return os.stat(probe).st_mtime_ns != 0
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file is not a hole, in whole blocks without repetition."""
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    end = 0
    while end < size:
        try:
            data = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # no data behind this place
            return
        start = max(end, data - data % BLOCK)
        # From the data itself: its block may begin with a hole.
        stop = os.lseek(descriptor, data, os.SEEK_HOLE)
        end = min(size, -(-stop // BLOCK) * BLOCK)
        yield start, end


def _allocated(path: Path) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return int(getattr(status, "st_blocks", status.st_size // 512)) * 512
