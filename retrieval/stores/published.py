"""What readers see of an embedded index while another process writes to it.

::

    published/
        current.json     which of the folders below is the one to read, and which manifest it has
        7/               one publication: an index folder with its manifest and the live generation, without a log
        views/           copies that readers have open; see `retrieval.stores.published_views`

The engine lets one process open a folder, and writes to it as soon as it is open. So whoever writes leaves the state
before its first change, and after each change the new one, in a folder of its own, and a reader opens a private copy of
that. Both share their large files where nobody writes to them. One rename of ``current.json`` switches from one
publication to the next; the folders belong to the process that has the index locked.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import portalocker

from retrieval.errors import StoreCorruptError, StoreError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.generation_folder import GenerationFolder
from retrieval.stores.index_layout import ENCODER, ENGINE, GENERATIONS, SETTINGS
from retrieval.stores.json_files import read_json, sync_folder, write_json
from retrieval.stores.plain_files import is_own_folder
from retrieval.stores.published_files import copy_file, copy_folder, disk_of, shared_with_writer
from retrieval.stores.published_seal import damage_of_publication, seal_publication

PUBLISHED = "published"
VIEWS = "views"
VIEW_PREFIX, VIEW_LOCK = "retrieval-view-", ".lock"
_SHARE = 20
"""Many small writes spend one part in so many on publications, as long as nobody is seen to read them."""
_POINTER = "current.json"
_GOING = "going-"
_TRIES = 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Publication:
    """A state of an index that readers can have.

    Args:
        folder: An index folder.
        digest: Of the manifest of the index at that moment.
    """

    folder: Path
    digest: str


def pointer_file(root: Path) -> Path:
    """The file that changes with every publication of an index."""
    return root / PUBLISHED / _POINTER


def current_publication(root: Path) -> Publication | None:
    """The publication to read, ``None`` where there is none, or none that outlived the last start of the machine.

    One with files that are missing or of another size counts as none, and the next one takes its place.
    """
    for _ in range(_TRIES):
        publication = named_publication(root)
        if publication is None:
            return None
        wrong = next(damage_of_publication(publication.folder, publication.digest, contents=False), None)
        if wrong is None:
            return publication
        if named_publication(root) == publication:  # and not only removed because there is a newer one
            _log.warning("%s is not read: %s, %s", publication.folder, wrong.name, wrong.problem)
            return None
    return None


def named_publication(root: Path) -> Publication | None:
    """What `current_publication` gives, whatever its files are."""
    try:
        pointer = read_json(pointer_file(root))
    except StoreCorruptError:
        return None
    if pointer is None or pointer.get("boot") != _boot() or not isinstance(pointer.get("folder"), str):
        return None
    if not is_own_folder(root / PUBLISHED):
        return None
    return Publication(root / PUBLISHED / Path(pointer["folder"]).name, str(pointer.get("digest")))


def withdraw_publications(root: Path) -> None:
    """Remove all publications of an index that nobody else has locked; who has opened one keeps its copy."""
    place = root / PUBLISHED
    if is_own_folder(place):
        (place / _POINTER).unlink(missing_ok=True)
        _remove_others(place, None)


def manifest_digest(root: Path) -> str | None:
    """Digest of the manifest of an index, ``None`` where there is none."""
    try:
        return hashlib.sha256((root / MANIFEST_FILE).read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreCorruptError(f"{root / MANIFEST_FILE} cannot be read: {error.strerror or error}") from error


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
        place = self._root / PUBLISHED
        name = str(1 + max([*_numbers(place), _last_number(place)]))
        try:
            place.mkdir(exist_ok=True)
            if not is_own_folder(place):
                raise OSError(errno.ENOTDIR, "its folder for publications is a link")
            self._copy(place / name)
            seal_publication(place / name, self._folder.number)
        except OSError as error:
            shutil.rmtree(place / name, ignore_errors=True)
            raise StoreError(f"cannot publish index {self._root}: {error.strerror or error}") from error
        write_json(place / _POINTER, {"folder": name, "digest": digest, "boot": _boot()})
        _remove_others(place, name)

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
        if not _boot():
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


def tidy_publications(root: Path) -> None:
    """Remove what a process that died while it published has left; for whoever has the index locked."""
    place = root / PUBLISHED
    if is_own_folder(place):
        with contextlib.suppress(OSError):
            publication = current_publication(root)
            _remove_others(place, None if publication is None else publication.folder.name)


def _numbers(place: Path) -> list[int]:
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    return [int(name) for name in names if name.isdecimal() and name.isascii()]


def _last_number(place: Path) -> int:
    """Number of the publication made last; none is given twice, so that no reader takes one for the other."""
    try:
        name = str((read_json(place / _POINTER) or {}).get("folder"))
    except StoreCorruptError:
        return 0
    return int(name) if name.isdecimal() and name.isascii() else 0


def _remove_others(place: Path, kept: str | None) -> None:
    """Remove publications: first their names, so that no reader takes half of one for a whole."""
    for number in _numbers(place):
        if str(number) != kept:
            (place / str(number)).rename(place / f"{_GOING}{number}")
    for folder in place.glob(f"{_GOING}*"):
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def _boot() -> str:
    """Which start of the machine this is; empty where that is not told.

    The files of a publication are not forced to disk: after a power loss another one is made.
    """
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
