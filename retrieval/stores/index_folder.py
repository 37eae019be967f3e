"""The folder of an embedded index: its lock, its manifest and its generations.

::

    manifest.json        what the index holds; its ``generation`` says which of the folders below is live
    .lock                who has the index open
    generations/3/       one generation: all vectors in it come from one encoder
        engine/          the files of the engine
        store.json       `Settings`
        seal.json        what all files of the engine were when it was last closed (`retrieval.stores.seal`)
        encoder/         the encoder, where it was adapted to these documents
        growing.json     while it is made: its manifest so far
        origin.json      what it is a copy of, where it is one
        manifest.json    after it was replaced: its manifest at that moment
        damaged.json     it was repaired and is kept, because something of it is missing in the live one
        manifest.copy.json   while it is live: the manifest of the index once more, for `retrieval repair`

One rename of ``manifest.json`` switches from one generation to another. Whatever happens before it, the old one is
live; folders that the manifest does not name are left over from a process that died and are erased, except a copy that
is still growing: it can be continued.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval.datatypes import Quantization
from retrieval.errors import StoreCorruptError, StoreError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.json_files import REMEDY, check_schema, read_json, sync_folder, write_json
from retrieval.stores.lock import IndexLock
from retrieval.stores.points import checked_quantization
from retrieval.stores.seal import SEAL, read_seal

GENERATIONS = "generations"
MANIFEST_COPY = "manifest.copy.json"
DAMAGED = "damaged.json"
ENCODER = "encoder"
SETTINGS = "store.json"
_GROWING = "growing.json"
_ORIGIN = "origin.json"
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


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store has to remember besides the engine.

    Args:
        quantization: How dense vectors are compressed and rescored.
        has_deletes: Whether points were deleted or replaced since the last optimization.
        switching: Whether a change of ``quantization``, which is none meanwhile, was begun and has not ended.
        automatic: Whether ``quantization`` is left to the store; nobody has said what it should be.
        graph: Whether the last optimization built the graph.
        written: Points that were written since.
    """

    quantization: Quantization
    has_deletes: bool = False
    switching: bool = False
    automatic: bool = False
    graph: bool = False
    written: int = 0


def encoder_folder(root: Path, generation: int) -> Path:
    """Folder of the adapted encoder of a generation, if it has one."""
    return root / GENERATIONS / str(generation) / ENCODER


def origin_of(root: Path, generation: int) -> str:
    """What a generation is a copy of; empty where it is none."""
    try:
        return str((read_json(root / GENERATIONS / str(generation) / _ORIGIN) or {}).get("origin", ""))
    except StoreCorruptError:
        return ""


def settings_of(root: Path, generation: int) -> Settings | None:
    """The settings of a generation, read without opening it; ``None`` where it has none yet.

    Raises:
        StoreCorruptError: The file cannot be read.
    """
    path = root / GENERATIONS / str(generation) / SETTINGS
    saved = read_json(path)
    return None if saved is None else _settings(saved, path)


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
            _erase(self.root / GENERATIONS)

    def live(self) -> int:
        """Number of the live generation, 1 where there is none yet.

        Raises:
            StoreCorruptError: The manifest cannot be read.
            IndexMismatchError: A newer version has written it.
        """
        manifest = self.read_manifest()
        return 1 if manifest is None else _numbers(manifest, self.root)[0]

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
            _erase(self.generation(number))
        # Without a manifest generation 1 is the live one; a copy must not be taken for it.
        number = max(self._present(), default=1 if origin else 0) + 1
        folder = self.generation(number)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot make {folder}: {error.strerror or error}") from error
        write_json(folder / _GROWING, {})
        if origin:
            write_json(folder / _ORIGIN, {"origin": origin})
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
                if (folder / _GROWING).exists():
                    _erase(folder)
            elif number in _numbers(manifest, self.root):
                (folder / _GROWING).unlink(missing_ok=True)
            else:
                _erase(folder)

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
            _erase(self.generation(number))
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

    def _growing_copies(self) -> list[int]:
        manifest = self._readable_manifest()
        named = () if manifest is None else _numbers(manifest, self.root)
        growing = [number for number in self._present() if (self.generation(number) / _GROWING).exists()]
        return [number for number in growing if number not in named and origin_of(self.root, number)]

    def _readable_manifest(self) -> dict[str, Any] | None:
        try:
            manifest = self.read_manifest()
            if manifest is not None:
                _numbers(manifest, self.root)
        except StoreCorruptError:
            return None
        return manifest


class GenerationFolder:
    """One generation of an index folder that is open.

    Args:
        index: The folder; this takes a share of it until `release`.
        number: Number of the generation.
        growing: Whether it has never been live.
    """

    def __init__(self, index: IndexFolder, number: int, *, growing: bool = False) -> None:
        self.index = index
        self.number = number
        self.growing = growing
        self.path = index.generation(number)
        self.engine = self.path / "engine"
        self.encoder = self.path / ENCODER
        self.origin = origin_of(index.root, number)
        self._released = False
        index.share()

    def read_manifest(self) -> dict[str, Any] | None:
        """Its manifest, ``None`` when none was written.

        Raises:
            StoreCorruptError: It cannot be read.
            IndexMismatchError: A newer version has written it.
        """
        if self.growing:
            return read_json(self.path / _GROWING) or None
        if self.index.live() == self.number:
            return self.index.read_manifest()
        return read_json(self.path / MANIFEST_FILE)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace its manifest atomically; that of the live generation is the manifest of the index.

        Raises:
            StoreInputError: It is not JSON.
            IndexMismatchError: Its schema is not ours.
            StoreError: Another generation has taken its place, or the file cannot be written.
        """
        check_schema(manifest, str(self.index.root))
        if self.growing:
            write_json(self.path / _GROWING, manifest)
        elif self.index.live() == self.number:
            self.index.write_live(self.number, manifest)
        else:
            raise StoreError(f"generation {self.number} of index {self.index.root} was replaced and takes no changes")

    def open_settings(self, quantization: Quantization, *, automatic: bool = False) -> Settings:
        """The settings, from the seal where their file is lost; a new index gets ``quantization`` and ``automatic``.

        Raises:
            StoreCorruptError: The file cannot be read, or there is a manifest and no engine.
        """
        if not self.engine.is_dir() and self.read_manifest() is not None:
            raise StoreCorruptError(f"index {self.index.root} has a manifest and no folder {self.engine}; {REMEDY}")
        path = self.path / SETTINGS
        saved = read_json(path)
        if saved is None:
            seal = read_seal(self.path) if self.engine.exists() else None
            if seal is not None and seal.settings:
                settings = _settings(seal.settings, self.path / SEAL)
            else:
                settings = Settings(quantization, has_deletes=self.engine.exists(), automatic=automatic)
            self.path.mkdir(parents=True, exist_ok=True)
            self.save_settings(settings)
            return settings
        return _settings(saved, path)

    def save_settings(self, settings: Settings) -> None:
        """Replace the settings atomically."""
        write_json(self.path / SETTINGS, asdict(settings))

    def erase(self) -> None:
        """Remove the folder of a generation that is not live."""
        _erase(self.path)

    def release(self) -> None:
        """Give the share of the index back; releasing twice is fine."""
        if not self._released:
            self._released = True
            self.index.release()


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


def _settings(saved: Mapping[str, Any], path: Path) -> Settings:
    try:
        quantization = Quantization(**saved["quantization"])
        checked_quantization(quantization)
        return Settings(
            quantization,
            bool(saved["has_deletes"]),
            bool(saved.get("switching", False)),
            bool(saved.get("automatic", False)),
            bool(saved.get("graph", False)),
            int(saved.get("written", 0)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise StoreCorruptError(f"{path} is damaged ({error!r:.500}); {REMEDY}") from error


def _erase(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
        sync_folder(folder.parent)


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
