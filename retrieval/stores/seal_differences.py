"""What of the files of a generation is not as it was sealed."""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.errors import StoreCorruptError
from retrieval.stores.file_digests import digest_file, digest_files
from retrieval.stores.json_files import REMEDY, read_json
from retrieval.stores.seal import ENGINE_CONFIG, Seal, SealedFile, lasting_config, sealable_files

_MISSING = "it is missing"
_SEGMENTS = "engine/segments"


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is not as it was.

    Args:
        name: Its path in the folder of the generation.
        problem: What is different.
    """

    name: str
    problem: str


def compare_sizes(generation: Path, seal: Seal) -> Iterator[Difference]:
    """Files that are missing or of another size, and segments that nobody has sealed; reads no file."""
    base = f"{generation}/"
    for name, sealed in seal.files.items():
        try:
            size = os.stat(base + name).st_size
        except OSError:
            yield Difference(name, _MISSING)
            continue
        if size != sealed.size:
            yield Difference(name, f"it has {size:,} bytes, and had {sealed.size:,}")
    start = len(_SEGMENTS) + 1
    segments = {name[start:].partition("/")[0] for name in seal.files if name.startswith(f"{_SEGMENTS}/")}
    try:
        present = {entry.name for entry in os.scandir(base + _SEGMENTS)}
    except OSError:
        return
    for name in sorted(present - segments):
        yield Difference(f"{_SEGMENTS}/{name}", "it was not there")


def require_same_sizes(generation: Path, seal: Seal) -> None:
    """Refuse files that are missing or of another size.

    Raises:
        StoreCorruptError: One is; it is named.
    """
    wrong = next(compare_sizes(generation, seal), None)
    if wrong is None:
        return
    path = generation / wrong.name
    if wrong.problem == _MISSING:
        while not path.parent.exists():
            path = path.parent
        raise StoreCorruptError(f"{path.parent} has no {path.name}, which was there when it was last closed; {REMEDY}")
    raise StoreCorruptError(f"{path} is damaged ({wrong.problem} when the index was last closed); {REMEDY}")


def compare_digests(generation: Path, seal: Seal, *, names: Collection[str] | None = None) -> list[Difference]:
    """Files that are not what was sealed, by reading them.

    Args:
        generation: Folder of the generation.
        seal: Its seal.
        names: Which files; ``None`` for all, and then also what was not there.
    """
    different = {item.name: item for item in compare_sizes(generation, seal)} if names is None else {}
    wanted = seal.files if names is None else names
    chosen = [name for name in wanted if name not in different and seal.files[name].digest]
    for name, digest in zip(chosen, digest_files([generation / name for name in chosen]), strict=True):
        if digest is None:
            different[name] = Difference(name, "it cannot be read")
        elif digest.digest != seal.files[name].digest:
            different[name] = Difference(name, "its content is not what was sealed")
    if names is None:
        path = generation / ENGINE_CONFIG
        try:
            same = lasting_config(read_json(path) or {}) == seal.config
        except StoreCorruptError:
            same = False
        if not same:
            different[ENGINE_CONFIG] = Difference(ENGINE_CONFIG, "its settings are not what was sealed")
        for name in sealable_files(generation):
            if name not in seal.files and not _is_under(name, different):
                different[name] = Difference(name, "it was not there")
    return [different[name] for name in sorted(different)]


def touched_files(generation: Path, seal: Seal) -> set[str]:
    """Files whose size or time is not that of the seal; opening an index touches some."""
    base = f"{generation}/"
    touched = set()
    for name, sealed in seal.files.items():
        try:
            status = os.stat(base + name)
        except OSError:
            touched.add(name)
            continue
        if (status.st_size, status.st_mtime_ns) != (sealed.size, sealed.time):
            touched.add(name)
    return touched


def whole_blocks(path: Path, sealed: SealedFile) -> set[int]:
    """Numbers of the blocks of a file that are what was sealed; of files whose blocks are not known, none."""
    if not sealed.blocks:
        return set()
    was = np.frombuffer(base64.b64decode(sealed.blocks), np.uint32).tolist()
    try:
        now = digest_file(path).blocks
    except OSError:
        return set()
    return {number for number, crc in now.items() if number < len(was) and was[number] == crc}


def _is_under(name: str, different: Mapping[str, Difference]) -> bool:
    parts = name.split("/")
    return any("/".join(parts[:end]) in different for end in range(1, len(parts)))
