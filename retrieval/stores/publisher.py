"""Who writes to an embedded index publishes its states for those who read."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import portalocker

from retrieval.errors import StoreError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.generation_folder import GenerationFolder
from retrieval.stores.index_layout import ENCODER, ENGINE, GENERATIONS, SETTINGS
from retrieval.stores.json_files import sync_folder
from retrieval.stores.plain_files import is_own_folder
from retrieval.stores.published import (
    PUBLISHED,
    VIEW_LOCK,
    VIEW_PREFIX,
    VIEWS,
    Publication,
    boot_id,
    current_publication,
    manifest_digest,
    next_publication,
    pointer_file,
    show_publication,
    withdraw_publications,
)
from retrieval.stores.published_files import copy_file, copy_folder, disk_of, shared_with_writer
from retrieval.stores.published_seal import seal_publication

_SHARE = 20
"""Many small writes spend one part in so many on publications, as long as nobody is seen to read them."""
_log = logging.getLogger(__name__)


class Publisher:
    """Publishes the states of an index that is open for writing.

    Readers are a courtesy: where a publication fails, a warning is logged and the write goes on; readers keep the state
    before. Where somebody reads, every complete state is published; where nobody is seen to, the ones of many small
    writes that follow each other are passed over.

    Args:
        folder: The generation that is open.
        flush: Brings the files of the engine up to date.
        require_disk: Refuses where there is no room for so many bytes.
        enabled: Whether to publish at all; otherwise publications are removed as soon as the index changes.
    """

    def __init__(
        self,
        folder: GenerationFolder,
        flush: Callable[[], None],
        require_disk: Callable[[int], None],
        *,
        enabled: bool,
    ) -> None:
        self._folder = folder
        self._root = folder.index.root
        self._flush = flush
        self._require_disk = require_disk
        self._enabled = enabled
        self._wanted = True
        self._not_before = 0.0

    def before(self, manifest: Mapping[str, Any]) -> None:
        """Publish what there is before changes begin.

        Args:
            manifest: What is about to be written.
        """
        if self._folder.growing or manifest.get("state") == "ready":
            return
        if not self._enabled:
            withdraw_publications(self._root)
            return
        before = self._folder.read_manifest()
        if before is None or before.get("state") != "ready" or not before.get("passages"):
            return
        publication = current_publication(self._root)
        self._wanted = self._wanted or publication is None or _somebody_reads(self._root)
        if publication is None or (publication.digest != manifest_digest(self._root) and self._wanted):
            self._try()

    def after(self) -> None:
        """Publish what there is now, where somebody reads what was published and no change is under way."""
        if self._folder.growing or not pointer_file(self._root).exists():
            return
        manifest = self._folder.read_manifest()
        if not self._enabled:
            withdraw_publications(self._root)
        elif manifest is None or manifest.get("state") != "ready":
            return
        elif self._wanted or time.monotonic() >= self._not_before or _somebody_reads(self._root):
            self._wanted = False
            began = time.monotonic()
            self._try()
            self._not_before = time.monotonic() + _SHARE * (time.monotonic() - began)

    def publish_if_new(self) -> None:
        """Publish what there is now, unless that is done, or nothing is to be published.

        Raises:
            StoreError: As for `publish`.
        """
        publication = current_publication(self._root)
        if self._enabled and (publication is None or publication.digest != manifest_digest(self._root)):
            self.publish()

    def publish(self) -> None:
        """Publish what there is now.

        Raises:
            StoreError: Changes are under way, or the copy cannot be made; readers keep the state before.
        """
        manifest, digest = self._folder.read_manifest(), manifest_digest(self._root)
        if manifest is None or digest is None or manifest.get("state") != "ready":
            raise StoreError(f"index {self._root} is in the middle of a change; finish it with 'retrieval ingest'")
        self._flush()
        folder = next_publication(self._root)
        try:
            folder.parent.mkdir(exist_ok=True)
            if not is_own_folder(folder.parent):
                raise OSError(errno.ENOTDIR, "its folder for publications is a link")
            self._copy(folder)
            seal_publication(folder, self._folder.number)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreError(f"cannot publish index {self._root}: {error.strerror or error}") from error
        show_publication(Publication(folder, digest))

    def _copy(self, target: Path) -> None:
        source = self._folder.path
        copy = target / GENERATIONS / str(self._folder.number)
        segments = self._folder.engine / "segments"
        shares = shared_with_writer(segments)
        self._require_disk(disk_of(segments, shares))
        copy_folder(segments, copy / ENGINE / "segments", shares)
        for path in sorted(self._folder.engine.glob("*.json")):
            copy_file(path, copy / ENGINE / path.name)
        copy_file(source / SETTINGS, copy / SETTINGS)
        if self._folder.encoder.is_dir():
            # Written before the generation was live, and never again.
            copy_folder(self._folder.encoder, copy / ENCODER, lambda path: True)
        copy_file(self._root / MANIFEST_FILE, target / MANIFEST_FILE)
        if not boot_id():
            _sync(target)

    def _try(self) -> None:
        try:
            self.publish()
        except StoreError as error:
            _log.warning("readers keep the state before: %s", error)


def _somebody_reads(root: Path) -> bool:
    """Whether a view is open, or one was since the last publication; views in other folders are not seen."""
    views = root / PUBLISHED / VIEWS
    try:
        if views.stat().st_mtime_ns >= pointer_file(root).stat().st_mtime_ns:
            return True
    except OSError:
        return False
    for path in views.glob(f"{VIEW_PREFIX}*{VIEW_LOCK}"):
        with contextlib.suppress(OSError), path.open("r+", encoding="ascii") as file:
            try:
                portalocker.lock(file, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING)
            except portalocker.LockException:
                return True
    return False


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
