"""What readers see of an embedded index while another process writes to it.

::

    published/
        current.json     which of the folders below is the one to read, and which manifest it has
        7/               one publication: an index folder with its manifest and the live generation, without a log
        views/           copies that readers have open; see `retrieval.stores.published_views`

The engine lets one process open a folder, and writes to it as soon as it is open. So whoever writes leaves the state
before its first change, and after each change the new one, in a folder of its own, and a reader opens a private copy of
that. Both share their large files where nobody writes to them. One rename of ``current.json`` switches from one
publication to the next; the folders belong to the process that has the index locked (`retrieval.stores.publisher`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import StoreCorruptError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.json_files import read_json, write_json
from retrieval.stores.plain_files import is_own_folder
from retrieval.stores.published_seal import damage_of_publication

PUBLISHED = "published"
VIEWS = "views"
VIEW_PREFIX, VIEW_LOCK = "retrieval-view-", ".lock"
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
    if pointer is None or pointer.get("boot") != boot_id() or not isinstance(pointer.get("folder"), str):
        return None
    if not is_own_folder(root / PUBLISHED):
        return None
    return Publication(root / PUBLISHED / Path(pointer["folder"]).name, str(pointer.get("digest")))


def next_publication(root: Path) -> Path:
    """Folder of a publication that is going to be made, under a number that none had."""
    place = root / PUBLISHED
    return place / str(1 + max([*_numbers(place), _last_number(place)]))


def show_publication(publication: Publication) -> None:
    """Let readers take a publication from now on, and remove all others.

    Raises:
        StoreError: It cannot be written; readers keep the one before.
    """
    place, name = publication.folder.parent, publication.folder.name
    write_json(place / _POINTER, {"folder": name, "digest": publication.digest, "boot": boot_id()})
    _remove_others(place, name)


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
def boot_id() -> str:
    """Which start of the machine this is; empty where that is not told.

    The files of a publication are not forced to disk: after a power loss another one is made.
    """
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
