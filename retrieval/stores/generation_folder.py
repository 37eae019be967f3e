"""The folder of one generation: its manifest and its settings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.datatypes import Quantization
from retrieval.errors import StoreCorruptError, StoreError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.generation_settings import Settings, parse_settings
from retrieval.stores.index_layout import ENCODER, ENGINE, GENERATIONS, GROWING, ORIGIN, SETTINGS
from retrieval.stores.json_files import REMEDY, check_schema, read_json, sync_folder, write_json
from retrieval.stores.seal import SEAL, read_seal

if TYPE_CHECKING:
    from retrieval.stores.index_folder import IndexFolder


def origin_of(root: Path, generation: int) -> str:
    """What a generation is a copy of; empty where it is none."""
    try:
        return str((read_json(root / GENERATIONS / str(generation) / ORIGIN) or {}).get("origin", ""))
    except StoreCorruptError:
        return ""


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
        self.engine = self.path / ENGINE
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
            return read_json(self.path / GROWING) or None
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
            write_json(self.path / GROWING, manifest)
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
                settings = parse_settings(seal.settings, self.path / SEAL)
            else:
                settings = Settings(quantization, has_deletes=self.engine.exists(), automatic=automatic)
            self.path.mkdir(parents=True, exist_ok=True)
            self.save_settings(settings)
            return settings
        return parse_settings(saved, path)

    def save_settings(self, settings: Settings) -> None:
        """Replace the settings atomically."""
        write_json(self.path / SETTINGS, asdict(settings))

    def erase(self) -> None:
        """Remove the folder of a generation that is not live."""
        erase_folder(self.path)

    def release(self) -> None:
        """Give the share of the index back; releasing twice is fine."""
        if not self._released:
            self._released = True
            self.index.release()


def erase_folder(folder: Path) -> None:
    """Remove a folder, if it is there, so that it stays removed after a power loss."""
    if folder.exists():
        shutil.rmtree(folder)
        sync_folder(folder.parent)
