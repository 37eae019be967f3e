"""A seal on the files of a generation: what they were when the index was last closed.

The engine has no checksums: of a file that is cut short or missing it may say nothing and answer with less. So a store
that has written leaves ``seal.json`` beside the engine's folder when it is closed: size and digest of every file. The
seal is lifted, durably, before the next write, and made again at the next clean close; a store that only reads leaves
it alone. At open the sizes are compared, which takes no reading (`retrieval.stores.seal_differences`).

Contents of these files do not change while they are only read, once the engine has opened and closed them after a
write (`Engine.settle`); their times do. A file whose size and time are those of the seal keeps its digest, so that a
bit that falls over on the disk is not sealed with the rest.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.errors import StoreCorruptError, StoreError
from retrieval.stores.file_digests import digest_files, notes_writes
from retrieval.stores.json_files import REMEDY, read_json, sync_folder, write_json

SEAL = "seal.json"
SEALED_FOLDERS = ("engine", "encoder")
_PAYLOADS = "/payload_storage/page_"
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
