"""Read payloads from the files of the engine without the engine, as far as they can be read.

What the files of version 0.9 look like, found by looking at them::

    payload_storage/page_N.dat   values on blocks of 128 bytes: length as u32, then one LZ4 block of JSON
    payload_storage/tracker.dat  u32, then for each point 16 bytes: 1 or 0 (none), page, block, length, all u32
    mutable_id_tracker.mappings  one record a change: 2, 16 bytes of the UUID, u32 offset; or 4 and the UUID to remove
    id_tracker.mappings          u64, then one record a point: 1, the UUID, u32 offset; id_tracker.deleted has bits
    vector_storage-dense/        rows of float32: matrix.dat behind 4 bytes, or vectors/chunk_N.mmap

Nothing here trusts a length or a place that it reads, and nothing is written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.stores.lz4_block import decompress_block

PAYLOAD_BLOCK = 128
_POINTER = struct.Struct("<4I")
_LARGEST = 1 << 28
_ROWS_PER_CHUNK = 32_768


@dataclass(frozen=True, slots=True, eq=False)
class SalvagedPayload:
    """A payload that could be read.

    Args:
        payload: JSON values.
        dense: The vector that is stored for the same point, ``None`` where that is not known.
        page: Path of the page file below the folder of the engine.
        start: First byte in it.
        end: One past the last byte.
    """

    payload: Mapping[str, Any]
    dense: FloatArray | None
    page: str
    start: int
    end: int


def salvage_payloads(engine: Path, dim: int, *, everywhere: bool = False) -> Iterator[SalvagedPayload]:
    """All payloads of an engine that can be read.

    Args:
        engine: Folder of the engine, which nobody has open.
        dim: Dimensions of dense vectors.
        everywhere: Look at every block instead of where the trackers point to: that also finds payloads of points that
            were removed or replaced, and needs no tracker.
    """
    for segment in _segments(engine):
        pages = _Pages(engine, segment / "payload_storage")
        if everywhere:
            yield from pages.walk()
            continue
        rows = _Rows(segment / "vector_storage-dense", dim)
        for offset, (page, block, length) in _pointers(segment / "payload_storage" / "tracker.dat"):
            found = pages.read(page, block * PAYLOAD_BLOCK, length)
            if found is not None:
                payload, end = found
                start = block * PAYLOAD_BLOCK
                yield SalvagedPayload(payload, rows.row(offset), pages.name(page), start, end)


def salvage_ids(engine: Path) -> set[str]:
    """Ids of the points that the trackers of an engine know, without those that were removed."""
    return {found for segment in _segments(engine) for found in (*_growing_ids(segment), *_fixed_ids(segment))}


def _segments(engine: Path) -> list[Path]:
    folder = engine / "segments"
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _pointers(tracker: Path) -> Iterator[tuple[int, tuple[int, int, int]]]:
    data = _bytes(tracker)
    for offset, at in enumerate(range(4, len(data) - _POINTER.size + 1, _POINTER.size)):
        there, page, block, length = _POINTER.unpack_from(data, at)
        if there == 1:
            yield offset, (page, block, length)


class _Pages:
    """The page files of one payload storage, of which one is kept in memory."""

    def __init__(self, engine: Path, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._number = -1
        self._data = b""

    def name(self, number: int) -> str:
        return (self._folder / f"page_{number}.dat").relative_to(self._engine).as_posix()

    def read(self, number: int, start: int, length: int) -> tuple[dict[str, Any], int] | None:
        """The payload at a place, and where it ends."""
        data = self._page(number)
        if length > _LARGEST or start + length > len(data):
            return None
        payload = _payload(data, start, start + length) or _payload(data, start, start + length, sized=False)
        return None if payload is None else (payload, start + length)

    def walk(self) -> Iterator[SalvagedPayload]:
        """Every block at which a payload begins."""
        for path in sorted(self._folder.glob("page_*.dat")):
            name = path.relative_to(self._engine).as_posix()
            data = _bytes(path)
            for start in _beginnings(data):
                payload = _payload(data, start, len(data))
                if payload is not None:
                    yield SalvagedPayload(payload, None, name, start, start + PAYLOAD_BLOCK)

    def _page(self, number: int) -> bytes:
        if number != self._number:
            self._data = _bytes(self._folder / f"page_{number}.dat")
            self._number = number
        return self._data


def _beginnings(data: bytes) -> list[int]:
    """Blocks that may begin with a length and a compressed JSON object."""
    whole = len(data) // PAYLOAD_BLOCK * PAYLOAD_BLOCK
    blocks = np.frombuffer(data, np.uint8, whole).reshape(-1, PAYLOAD_BLOCK)
    # The first literal comes behind the length, a token and up to two bytes of its own length.
    opens = (blocks[:, 5] == 0x7B) | (blocks[:, 6] == 0x7B) | (blocks[:, 7] == 0x7B)
    return [int(number) * PAYLOAD_BLOCK for number in np.flatnonzero(opens)]


def _payload(data: bytes, start: int, end: int, *, sized: bool = True) -> dict[str, Any] | None:
    """The payload that begins at a place, by the size that stands before it, or else by where it ends."""
    size = int.from_bytes(data[start : start + 4], "little") if sized else None
    if size is not None and not 2 <= size <= _LARGEST:
        return None
    try:
        value = json.loads(decompress_block(data, start + 4, end, size))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _Rows:
    """Dense rows by the offset of their point."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self._matrix = _bytes(folder / "matrix.dat")[4:]
        self._chunk, self._number = b"", -1

    def row(self, offset: int) -> FloatArray | None:
        size = self._dim * 4
        data, place = self._matrix, offset
        if not data:
            number, place = divmod(offset, _ROWS_PER_CHUNK)
            if number != self._number:
                self._chunk, self._number = _bytes(self._folder / "vectors" / f"chunk_{number}.mmap"), number
            data = self._chunk
        row = data[place * size : (place + 1) * size]
        return np.frombuffer(row, np.float32) if len(row) == size else None


def _growing_ids(segment: Path) -> set[str]:
    data = _bytes(segment / "mutable_id_tracker.mappings")
    ids: set[str] = set()
    at = 0
    while at + 17 <= len(data):
        kind, name = data[at], data[at + 1 : at + 17]
        if kind == 2:
            ids.add(str(UUID(bytes=name)))
            at += 21
        elif kind == 4:
            ids.discard(str(UUID(bytes=name)))
            at += 17
        else:
            break
    return ids


def _fixed_ids(segment: Path) -> Iterator[str]:
    data = _bytes(segment / "id_tracker.mappings")[8:]
    removed = np.unpackbits(np.frombuffer(_bytes(segment / "id_tracker.deleted"), np.uint8), bitorder="little")
    for at in range(0, len(data) - 20, 21):
        offset = int.from_bytes(data[at + 17 : at + 21], "little")
        if data[at] == 1 and not (offset < len(removed) and removed[offset]):
            yield str(UUID(bytes=data[at + 1 : at + 17]))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
