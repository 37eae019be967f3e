"""Which files an index has, and how they are damaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_PAGE = 4096

KINDS = {
    "copy for readers": ("published/*",),
    "dense vectors": ("*/vector_storage-dense/matrix.dat", "*/vector_storage-dense/vectors/chunk_*"),
    "their state": (
        "*/vector_storage-dense/deleted*",
        "*/vector_storage-dense/deleted/*",
        "*/vector_storage-dense/vectors/*.*",
    ),
    "codes": ("*/vector_storage-dense/quantized*",),
    "graph": ("*/vector_index-dense/*",),
    "BM25 rows": ("*/vector_storage-bm25/*",),
    "BM25 index": ("*/vector_index-bm25/*",),
    "payload pages": ("*/payload_storage/page_*",),
    "payload tracker": ("*/payload_storage/tracker.dat",),
    "payload state": ("*/payload_storage/*",),
    "id tracker": ("*/id_tracker.*", "*/mutable_id_tracker.*"),
    "payload index": ("*/payload_index/*",),
    "log": ("*/engine/wal/*",),
    "engine's JSON": ("*/edge_config.json", "*/segment.json", "*/version.info"),
    "encoder": ("*/encoder/*",),
    "manifest": ("manifest.json", "*/manifest.copy.json"),
    "settings and seal": ("*/store.json", "*/seal.json"),
}
"""Kinds of files by patterns of their paths; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class Case:
    """One damage to one file.

    Args:
        kind: Kind of the file.
        file: Its path in the index folder.
        damage: What is done to it.
    """

    kind: str
    file: str
    damage: str

    @property
    def name(self) -> str:
        """Tells it from all others of an index."""
        return f"{self.damage} {self.file}"


def kind_of(file: str) -> str | None:
    """The kind of a file, ``None`` for one that is not part of an index."""
    return next((kind for kind, patterns in KINDS.items() if any(fnmatch(file, each) for each in patterns)), None)


def cases(folder: Path, *, damages: tuple[str, ...] | None = None, per_name: int = 1) -> Iterator[Case]:
    """Damages to the files of an index.

    Args:
        folder: Folder of the index.
        damages: Which; ``None`` for all that apply.
        per_name: How many files of one kind and name: an index has many alike, such as those of three payload fields.
            Pages of payloads are all damaged: what is in them is nowhere else.
    """
    seen: dict[tuple[str, str], int] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        file = path.relative_to(folder).as_posix()
        kind = kind_of(file)
        most = 1_000 if kind == "payload pages" else per_name
        if kind is None or seen.get((kind, path.name), 0) >= most:
            continue
        seen[kind, path.name] = seen.get((kind, path.name), 0) + 1
        for damage in damages or DAMAGES:
            if damage == "delete" or has_data(path):
                yield Case(kind, file, damage)


def has_data(path: Path) -> bool:
    """Whether a file says anything but zeros."""
    return _data(path) is not None


def _data(path: Path) -> tuple[int, int] | None:
    """First and last byte that is not zero."""
    data = path.read_bytes()
    inner = data.strip(b"\0")
    if not inner:
        return None
    first = data.index(inner[0:1]) if data[:1] == b"\0" else 0
    return first, first + len(inner) - 1


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    first, last = _data(path) or (0, 0)
    os.truncate(path, (first + last + 1) // 2)


def _flip(place: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        first, last = _data(path) or (0, 0)
        at = first + round((last - first) * place)
        with path.open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 0x08]))

    return flip


def _zero_page(path: Path) -> None:
    first, last = _data(path) or (0, 0)
    start = (first + last) // 2 // _PAGE * _PAGE
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(min(_PAGE, last + 1 - start)))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "delete": _delete,
    "cut in half": _truncate,
    "flip at the start": _flip(0.0),
    "flip in the middle": _flip(0.5),
    "flip near the end": _flip(0.97),
    "zero a page": _zero_page,
}
"""What is done to a file; bits are flipped in the part of it that is not zero."""
