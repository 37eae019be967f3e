"""The folder of an embedded index: its lock, its manifest and the settings of its store.

``manifest.json`` what the index was built with, ``store.json`` `Settings`, ``.lock`` who has it open,
``engine/`` the files of the engine.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Settings:
    """What the store has to remember besides the engine.

    Args:
        quantization: How dense vectors are compressed and rescored.
        has_deletes: Whether points were deleted or replaced since the last optimization.
    """

    quantization: Quantization
    has_deletes: bool = False


class IndexFolder:
    """Holds a folder, made when absent, until `release`.

    Args:
        path: The folder.
        quantization: Of a new index.
        fresh: Whether to erase the index that is there.

    Raises:
        StoreError: The folder cannot be made.
        StoreBusyError: Another process or handle holds it.
        StoreCorruptError: Its files contradict each other or cannot be read.
        IndexMismatchError: A newer version has written it.
    """

    def __init__(self, path: Path, *, quantization: Quantization, fresh: bool) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the index folder {path}: {error.strerror or error}") from error
        self.root = path.resolve()
        self.engine = self.root / "engine"
        self._lock = IndexLock(self.root)
        try:
            if fresh:
                self._erase()
            if self.read_manifest() is not None and not self.engine.is_dir():
                raise StoreCorruptError(f"index {self.root} has a manifest and no folder engine/; {REMEDY}")
            self.settings = self._open_settings(quantization)
        except BaseException:
            self.release()
            raise

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, ``None`` when none was written.

        Raises:
            StoreCorruptError: It cannot be read.
            IndexMismatchError: A newer version has written it.
        """
        manifest = read_json(self.root / MANIFEST_FILE)
        if manifest is not None:
            check_schema(manifest, str(self.root))
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest atomically.

        Raises:
            StoreInputError: It is not JSON.
            IndexMismatchError: Its schema is not ours.
        """
        check_schema(manifest, str(self.root))
        write_json(self.root / MANIFEST_FILE, manifest)

    def save(self, settings: Settings) -> None:
        """Replace the settings atomically, where they differ."""
        if settings != self.settings:
            write_json(self.root / "store.json", asdict(settings))
            self.settings = settings

    def release(self) -> None:
        """Give the folder back."""
        self._lock.release()

    def _open_settings(self, wanted: Quantization) -> Settings:
        path = self.root / "store.json"
        saved = read_json(path)
        if saved is None:
            settings = Settings(wanted, has_deletes=self.engine.exists())
            write_json(path, asdict(settings))
            return settings
        try:
            return Settings(Quantization(**saved["quantization"]), bool(saved["has_deletes"]))
        except (KeyError, TypeError) as error:
            raise StoreCorruptError(f"{path} is damaged ({error!r}); {REMEDY}") from error

    def _erase(self) -> None:
        for name in (MANIFEST_FILE, "store.json"):
            (self.root / name).unlink(missing_ok=True)
        if self.engine.exists():
            shutil.rmtree(self.engine)
        sync_folder(self.root)
