"""The folder of an embedded index: its lock, its manifest and its generations (`retrieval.stores.index_layout`).

One rename of ``manifest.json`` switches from one generation to another. Whatever happens before it, the old one is
live; folders that the manifest does not name are left over from a process that died and are erased, except a copy that
is still growing: it can be continued.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import StoreCorruptError, StoreError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.generation_folder import GenerationFolder, erase_folder, origin_of
from retrieval.stores.index_layout import DAMAGED, ENGINE, GENERATIONS, GROWING, MANIFEST_COPY, ORIGIN
from retrieval.stores.json_files import REMEDY, check_schema, read_json, sync_folder, write_json
from retrieval.stores.lock import IndexLock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Live:
    """Which generations an index has.

    Args:
        number: The live one.
        previous: The one that a rollback returns to, ``None`` where there is none.
        copied: Whether only the second copy of the manifest says so, because the first cannot be read.
    """

    number: int
    previous: int | None
    copied: bool = False


def find_live(root: Path) -> Live | None:
    """Which generation is live, as far as it can be known of a folder in any state; ``None`` where it cannot."""
    manifest = _mapping(root / MANIFEST_FILE)
    copied = manifest is None
    if manifest is None:
        copies = (_mapping(path) for path in (root / GENERATIONS).glob(f"*/{MANIFEST_COPY}"))
        # Two only where a switch was cut short: the later one has taken place.
        named = [copy for copy in copies if copy is not None]
        manifest = max(named, key=lambda copy: str(copy.get("updated", "")), default=None)
    if manifest is None:
        return None
    try:
        return Live(*_numbers(manifest, root), copied)
    except StoreCorruptError:
        return None


class IndexFolder:
    """Holds a folder, made when absent, until it was released as often as it was shared, and once more.

    Args:
        path: The folder.
        fresh: Whether to erase the index that is there.

    Raises:
        StoreError: The folder cannot be made.
        StoreBusyError: Another process or handle holds it.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the index folder {path}: {error.strerror or error}") from error
        self.root = path.resolve()
        self._lock = IndexLock(self.root)
        self._holders = 1
        if fresh:
            (self.root / MANIFEST_FILE).unlink(missing_ok=True)
            erase_folder(self.root / GENERATIONS)

    def live(self) -> int:
        """Number of the live generation, 1 where there is none yet.

        Raises:
            StoreCorruptError: The manifest cannot be read, or has gone and left an index.
            IndexMismatchError: A newer version has written it.
        """
        manifest = self.read_manifest()
        if manifest is not None:
            return _numbers(manifest, self.root)[0]
        if any(self._is_complete(number) for number in self._present() if number != 1):
            raise StoreCorruptError(f"index {self.root} has passages and no {MANIFEST_FILE}; {REMEDY}")
        return 1

    def generation(self, number: int) -> Path:
        """Folder of a generation."""
        return self.root / GENERATIONS / str(number)

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest of the index, ``None`` when none was written.

        Raises:
            StoreCorruptError: It cannot be read.
            IndexMismatchError: A newer version has written it.
        """
        manifest = read_json(self.root / MANIFEST_FILE)
        if manifest is not None:
            check_schema(manifest, str(self.root))
        return manifest

    def start(self, origin: str = "") -> GenerationFolder:
        """The folder of a new generation, under a number that no folder has.

        Args:
            origin: What it will be a copy of: the folder of a copy of the same that was left growing is continued,
                those of others are erased.
        """
        for number in self._growing_copies():
            if origin and origin_of(self.root, number) == origin:
                return GenerationFolder(self, number, growing=True)
            erase_folder(self.generation(number))
        # Without a manifest generation 1 is the live one; a copy must not be taken for it.
        number = max(self._present(), default=1 if origin else 0) + 1
        folder = self.generation(number)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror or error}") from error
        write_json(folder / GROWING, {})
        if origin:
            write_json(folder / ORIGIN, {"origin": origin})
        return GenerationFolder(self, number, growing=True)

    def switch(self, generation: GenerationFolder, manifest: Mapping[str, Any]) -> None:
        """Make a generation live, in one rename.

        Raises:
            StoreInputError: The manifest is not JSON.
            StoreError: It cannot be written; the old generation is live.
        """
        check_schema(manifest, str(self.root))
        _sync_files(generation.encoder)
        before = self._readable_manifest()
        if before is not None and (old := self.generation(_numbers(before, self.root)[0])).is_dir():
            write_json(old / MANIFEST_FILE, before)
        self.write_live(generation.number, {**manifest, "generation": generation.number})
        generation.growing = False

    def write_live(self, number: int, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest of the index, and its copy in the folder of the live generation.

        Raises:
            StoreInputError: It is not JSON.
            StoreError: It cannot be written.
        """
        write_json(self.root / MANIFEST_FILE, manifest)
        try:
            for copy in (self.root / GENERATIONS).glob(f"*/{MANIFEST_COPY}"):
                if copy.parent.name != str(number):
                    copy.unlink(missing_ok=True)
            # A copy that a power loss takes is not missed: the manifest itself has reached the disk.
            write_json(self.generation(number) / MANIFEST_COPY, manifest, durable=False)
        except (StoreError, OSError) as error:
            _log.warning("the manifest of %s has no second copy now: %s", self.root, error)

    def tidy(self) -> None:
        """Erase the generations that the manifest does not name; without a manifest, those that were being made.

        A copy that is growing stays, and so does what a repair has kept.

        Raises:
            StoreCorruptError: The manifest cannot be read.
        """
        manifest = self.read_manifest()
        copies = self._growing_copies()
        for number in self._present():
            folder = self.generation(number)
            if number in copies or (folder / DAMAGED).exists():
                continue
            if manifest is None:
                if (folder / GROWING).exists():
                    erase_folder(folder)
            elif number in _numbers(manifest, self.root):
                (folder / GROWING).unlink(missing_ok=True)
            else:
                erase_folder(folder)

    def keep_damaged(self, number: int, what: Mapping[str, Any]) -> None:
        """Keep a generation that is going to be replaced, with a note of what it was kept for.

        Raises:
            StoreError: The note cannot be written.
        """
        write_json(self.generation(number) / DAMAGED, what)

    def damaged(self) -> dict[int, dict[str, Any]]:
        """Generations that a repair has kept, and its notes."""
        kept = ((number, self.generation(number) / DAMAGED) for number in self._present())
        return {number: _mapping(path) or {} for number, path in kept if path.exists()}

    def discard_damaged(self) -> list[int]:
        """Erase the generations that a repair has kept, and give their numbers."""
        numbers = list(self.damaged())
        for number in numbers:
            erase_folder(self.generation(number))
        return numbers

    def share(self) -> None:
        """Have the folder held until one more release."""
        self._holders += 1

    def release(self) -> None:
        """Give the folder back, once everybody has."""
        self._holders -= 1
        if self._holders <= 0:
            self._lock.release()

    def _present(self) -> list[int]:
        folder = self.root / GENERATIONS
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal() and name.isascii())

    def _is_complete(self, number: int) -> bool:
        folder = self.generation(number)
        marked = (folder / GROWING).exists() or (folder / DAMAGED).exists()
        return not marked and (folder / ENGINE).is_dir()

    def _growing_copies(self) -> list[int]:
        manifest = self._readable_manifest()
        named = () if manifest is None else _numbers(manifest, self.root)
        growing = [number for number in self._present() if (self.generation(number) / GROWING).exists()]
        return [number for number in growing if number not in named and origin_of(self.root, number)]

    def _readable_manifest(self) -> dict[str, Any] | None:
        try:
            manifest = self.read_manifest()
            if manifest is not None:
                _numbers(manifest, self.root)
        except StoreCorruptError:
            return None
        return manifest


def _numbers(manifest: Mapping[str, Any], root: Path) -> tuple[int, int | None]:
    """The live and the previous generation that a manifest names."""
    live, previous = manifest.get("generation", 1), manifest.get("previous")
    if type(live) is not int or live < 1 or (previous is not None and type(previous) is not int):
        raise StoreCorruptError(f"the manifest of {root} has generation {live!r} and previous {previous!r}; {REMEDY}")
    return live, previous


def _mapping(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except StoreCorruptError:
        return None


def _sync_files(folder: Path) -> None:
    """Make the files of a folder survive a power loss; whoever wrote them did not."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    if folder.is_dir():
        sync_folder(folder)
        sync_folder(folder.parent)
