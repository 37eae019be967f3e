"""Are the files of an embedded index what they were when it was last closed?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.index_checks import Check, Finding, Findings
from retrieval.errors import StoreBusyError, StoreError
from retrieval.manifest import MANIFEST_FILE
from retrieval.stores.generation_settings import settings_of
from retrieval.stores.index_folder import find_live
from retrieval.stores.index_layout import GENERATIONS, MANIFEST_COPY, SETTINGS
from retrieval.stores.json_files import read_json
from retrieval.stores.lock import IndexLock
from retrieval.stores.published import named_publication
from retrieval.stores.published_seal import damage_of_publication
from retrieval.stores.seal import SEAL, read_seal
from retrieval.stores.seal_differences import compare_digests


@dataclass(frozen=True, slots=True)
class FilesReport:
    """What the files look like.

    Args:
        checks: The checks.
        proven: Whether every file of the live generation is proven to be what was sealed; ``None`` without a seal.
    """

    checks: tuple[Check, ...]
    proven: bool | None


def examine_files(folder: Path) -> FilesReport:
    """Compare all files of an index with their checksums and seals, while it is locked.

    Args:
        folder: Folder of the index.

    Raises:
        StoreBusyError: The index is open elsewhere.
    """
    with _locked(folder):
        return _examine(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        lock = IndexLock(folder)
    except StoreBusyError:
        raise
    except StoreError:  # a folder that nobody can write to
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _examine(folder: Path) -> FilesReport:
    live = find_live(folder)
    own = Findings()
    small = [MANIFEST_FILE]
    _try(own, MANIFEST_FILE, lambda: read_json(folder / MANIFEST_FILE))
    if live is None:
        return FilesReport((own.check("files", "no generation is named"),), proven=None)
    place = f"{GENERATIONS}/{live.number}"
    for name in (MANIFEST_COPY, SEAL):
        small.append(name)
        _try(own, f"{place}/{name}", partial(read_json, folder / place / name))
    _try(own, f"{place}/{SETTINGS}", lambda: settings_of(folder, live.number))
    sealed = _sealed(folder, live.number, "seal")
    checks = [own.check("files", f"{', '.join([*small, SETTINGS])} are whole"), sealed]
    if live.previous is not None and (folder / GENERATIONS / str(live.previous)).is_dir():
        checks.append(_sealed(folder, live.previous, "previous"))
    publication = named_publication(folder)
    if publication is not None:
        found = damage_of_publication(publication.folder, publication.digest, contents=True)
        place = publication.folder.relative_to(folder).as_posix()
        copies = Findings()
        for different in found:
            copies.add(Finding("file", f"{place}/{different.name}", different.problem))
        checks.append(copies.check("published", f"{place}, from which other processes read, is as it was made"))
    return FilesReport(tuple(checks), proven=sealed.ok)


def _sealed(folder: Path, number: int, name: str) -> Check:
    place = f"{GENERATIONS}/{number}"
    try:
        seal = read_seal(folder / place)
    except StoreError:
        return Check(name, None, f"not compared, {place}/{SEAL} is damaged")
    if seal is None:
        return Check(name, None, f"{place} has none: an older version or a process that died wrote it last")
    found = Findings()
    for different in compare_digests(folder / place, seal):
        found.add(Finding("file", f"{place}/{different.name}", different.problem))
    size = sum(sealed.size for sealed in seal.files.values())
    return found.check(name, f"{len(seal.files):,} files of {place} are as they were ({size / 1e6:,.0f} MB with holes)")


def _try(found: Findings, name: str, read: Callable[[], object]) -> None:
    try:
        read()
    except StoreError as error:
        found.add(Finding("file", name, str(error).partition("; ")[0]))
