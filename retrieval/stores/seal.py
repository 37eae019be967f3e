"""A seal on the files of a generation: what they were when the index was last closed.

The engine has no checksums: of a file that is cut short or missing it may say nothing and answer with less. So a store
that has written leaves ``seal.json`` beside the engine's folder when it is closed: size and digest of every file. The
seal is lifted, durably, before the next write, and made again at the next clean close; a store that only reads leaves
it alone. At open the sizes are compared, which takes no reading; `compare_digests` reads everything.

Contents of these files do not change while they are only read, once the engine has opened and closed them after a
write (`Engine.settle`); their times do. A file whose size and time are those of the seal keeps its digest, so that a
bit that falls over on the disk is not sealed with the rest.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.errors import StoreCorruptError, StoreError
from retrieval.stores.file_digests import digest_file, digest_files, notes_writes
from retrieval.stores.json_files import REMEDY, read_json, sync_folder, write_json

SEAL = "seal.json"
SEALED_FOLDERS = ("engine", "encoder")
_PAYLOADS = "/payload_storage/page_"
_MISSING = "it is missing"
_SEGMENTS = "engine/segments"
ENGINE_CONFIG = "engine/edge_config.json"
ENCODER_CONFIG = "encoder/config.json"
_LONGEST_TEXT = 10_000
_TICK_NS = 50_000_000
# The engine writes the rest of its configuration anew at every open, as it is asked for then.
_LASTING = ("vectors", "sparse_vectors", "quantization_config", "wal_enabled")


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file as it was.

    Args:
        size: Bytes.
        time: Time of the last change, nanoseconds; 0 where that says nothing.
        digest: 32 hex digits over all blocks that are not zero; empty where only the size is known.
        blocks: CRC-32 of each block of 64 KiB, base64 of u32 in order, for files of which a part is worth keeping.
    """

    size: int
    time: int
    digest: str
    blocks: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is not as it was.

    Args:
        name: Its path in the folder of the generation.
        problem: What is different.
    """

    name: str
    problem: str


@dataclass(frozen=True, slots=True)
class Seal:
    """What was sealed.

    Args:
        files: Files by their path in the folder of the generation.
        config: What lasts of the configuration of the engine.
        settings: `retrieval.stores.generation_settings.Settings` as they were, as JSON values.
        engine: Which build of the engine has written the files.
        encoder: Text of the configuration of an adapted encoder: a few words, without which its weights say nothing.
    """

    files: Mapping[str, SealedFile]
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    engine: int = 0
    encoder: str = ""


def read_seal(generation: Path) -> Seal | None:
    """The seal of a generation, ``None`` where its last writer made none.

    Raises:
        StoreCorruptError: It cannot be read.
    """
    path = generation / SEAL
    saved = read_json(path)
    if saved is None:
        return None
    try:
        files = {
            f"{folder}/{name}": SealedFile(int(size), int(changed), str(digest), *map(str, blocks))
            for folder, names in saved["files"].items()
            for name, (size, changed, digest, *blocks) in names.items()
        }
        settings, encoder = dict(saved["settings"]), str(saved.get("encoder", ""))
        return Seal(files, dict(saved["config"]), settings, int(saved["engine"]), encoder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreCorruptError(f"{path} is damaged ({error!r}); {REMEDY}") from error


def write_seal(generation: Path, seal: Seal) -> None:
    """Keep a seal.

    Raises:
        StoreError: It cannot be written.
    """
    files: dict[str, dict[str, list[Any]]] = {}
    for path, sealed in seal.files.items():
        folder, _, name = path.rpartition("/")
        parts = [sealed.blocks] if sealed.blocks else []
        files.setdefault(folder, {})[name] = [sealed.size, sealed.time, sealed.digest, *parts]
    kept = {"files": files, "config": seal.config, "settings": seal.settings, "engine": seal.engine}
    write_json(generation / SEAL, {**kept, "encoder": seal.encoder} if seal.encoder else kept)


def remove_seal(generation: Path) -> None:
    """Take a seal away, so that no power loss brings it back."""
    (generation / SEAL).unlink(missing_ok=True)
    sync_folder(generation)


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


def make_seal(generation: Path, known: Mapping[str, SealedFile], settings: Mapping[str, Any], engine: int) -> Seal:
    """The seal of the files as they are, which are made to survive a power loss first.

    Args:
        generation: Folder of a generation that nobody has open.
        known: Digests of an earlier seal, for files whose size and time have not changed since.
        settings: Settings of the store.
        engine: Which build of the engine has written the files.

    Raises:
        StoreError: A file cannot be read.
    """
    base = f"{generation}/"
    trusted = known if notes_writes(generation) else {}
    settled = time.time_ns() - _TICK_NS
    files: dict[str, SealedFile] = {}
    changed: dict[str, os.stat_result] = {}
    for name in sealable_files(generation):
        status = os.stat(base + name)
        before = trusted.get(name)
        if before is not None and (before.size, before.time) == (status.st_size, status.st_mtime_ns):
            files[name] = before
        else:
            changed[name] = status
    paths = [generation / name for name in changed]
    for name, digest in zip(changed, digest_files(paths, sync=True), strict=True):
        if digest is None:
            raise StoreError(f"{generation / name} cannot be read")
        changed_at = changed[name].st_mtime_ns
        # The next write may come in the same tick of the clock of the file system, and would not show.
        trusted_at = changed_at if changed_at < settled else 0
        parts = _packed(digest.blocks) if _PAYLOADS in name else ""
        files[name] = SealedFile(changed[name].st_size, trusted_at, digest.digest, parts)
    config = lasting_config(read_json(generation / ENGINE_CONFIG) or {})
    encoder = _short_text(generation / ENCODER_CONFIG) if ENCODER_CONFIG in files else ""
    return Seal({name: files[name] for name in sorted(files)}, config, dict(settings), engine, encoder)


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


def lasting_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of the configuration of the engine stays the same from one open to the next."""
    return {name: config[name] for name in _LASTING if config.get(name) is not None}


def sealable_files(generation: Path) -> Iterator[str]:
    """Paths in the folder of a generation of the files that a seal is about."""
    for folder in SEALED_FOLDERS:
        for name in _files_under(generation, folder):
            if name != ENGINE_CONFIG:
                yield name


def _short_text(path: Path) -> str:
    try:
        text = path.read_bytes()[: _LONGEST_TEXT + 1].decode()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if len(text) <= _LONGEST_TEXT else ""


def _packed(blocks: Mapping[int, int]) -> str:
    values = np.zeros(max(blocks, default=-1) + 1, np.uint32)
    for number, crc in blocks.items():
        values[number] = crc
    return base64.b64encode(values.tobytes()).decode("ascii")


def _files_under(generation: Path, folder: str) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(generation / folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        name = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _files_under(generation, name)
        elif entry.is_file():
            yield name


def _is_under(name: str, different: Mapping[str, Difference]) -> bool:
    parts = name.split("/")
    return any("/".join(parts[:end]) in different for end in range(1, len(parts)))
