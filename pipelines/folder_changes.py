"""Brings an index in step with folders: all of one, or only what has changed in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.two_stage import TwoStagePipeline
from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, IngestProgress, IngestReport, Rejected
from retrieval.documents.folders import IGNORE_FILE, ignored_names, is_read, read_one, walk_files
from retrieval.documents.formats import SUPPORTED_EXTENSIONS, as_unicode
from retrieval.errors import DocumentError

_KEYS_PER_FILTER = 1_000
_SHOWN_REJECTIONS = 1_000


class StoppedError(Exception):
    """Somebody wanted it to end; what was written stays, and the next run goes on from there."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What changed in the index.

    Args:
        added: New documents.
        changed: Documents whose content replaced an older one.
        unchanged: Documents that were as before.
        removed: Documents that are no longer there.
        rejected: What could not be used.
        seconds: Wall-clock time.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    rejected: tuple[Rejected, ...] = ()
    seconds: float = 0.0

    @classmethod
    def of(cls, report: IngestReport, removed: int = 0, rejected: Iterable[Rejected] = ()) -> Applied:
        """The same of an ingest, with what was removed and rejected besides."""
        refused = (*rejected, *report.rejected)[:_SHOWN_REJECTIONS]
        return cls(report.added, report.changed, report.unchanged, report.removed + removed, refused, report.seconds)

    def __add__(self, other: Applied) -> Applied:
        return Applied(
            self.added + other.added,
            self.changed + other.changed,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
            (*self.rejected, *other.rejected),
            self.seconds + other.seconds,
        )

    @property
    def wrote(self) -> bool:
        """Whether the index is another one now."""
        return bool(self.added or self.changed or self.removed)


def sync_folder(pipeline: TwoStagePipeline, root: Path, stopping: Callable[[], bool]) -> Applied:
    """Read a whole folder: what is new goes in, what changed is replaced, what is gone is removed.

    Args:
        pipeline: Open pipeline.
        root: The folder.
        stopping: Asked after every batch whether to end.

    Raises:
        StoppedError: It was asked to end.
        DocumentError: The folder cannot be read, or nothing in it can: nothing is removed then, since a folder that is
            not mounted is empty too.
        StoreError: The store refused; what was written stays.
    """

    def check(progress: IngestProgress) -> None:
        if stopping():
            raise StoppedError

    # An index that holds nothing can lose nothing: there an empty folder is no reason for doubt.
    holds_something = pipeline.manifest.documents > 0
    return Applied.of(pipeline.ingest(root, sync=holds_something, on_progress=check))


def that_matter(paths: Iterable[Path], root: Path, config: DocumentsConfig) -> set[Path]:
    """Those of some changed paths that can mean something for the index: no ignored names, no files of other kinds.

    The index itself, where it lies in the folder, is an ignored name: its own writes must not set off the next batch.

    Args:
        paths: Paths in the folder.
        root: The folder.
        config: How it is read.

    Raises:
        DocumentError: The ignore file of the folder cannot be read.
    """
    ignored = ignored_names(root, config)
    kept = set()
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path == root / IGNORE_FILE or (
            not (ignored.match_file(name) or ignored.match_file(name + "/"))
            and (name.lower().endswith(SUPPORTED_EXTENSIONS) or not path.is_file())
        ):
            kept.add(path)
    return kept


def apply_changes(
    pipeline: TwoStagePipeline, root: Path, paths: Collection[Path], stopping: Callable[[], bool]
) -> Applied:
    """Read only some paths of a folder; ids and contents are those of `sync_folder`.

    Args:
        pipeline: Open pipeline.
        root: The folder.
        paths: Files and folders in it that came, changed or went.
        stopping: Asked before every document whether to end.

    Raises:
        StoppedError: It was asked to end.
        DocumentError: The folder cannot be read.
        StoreError: The store refused; what was written stays.
    """
    if root / IGNORE_FILE in paths:
        return sync_folder(pipeline, root, stopping)
    config = pipeline.config.documents
    rejected: list[Rejected] = []
    files, gone = _sorted_out(root, paths, config, rejected.append)
    keys: dict[str, set[str]] = {as_unicode(str(file)): set() for file in files}

    def documents() -> Iterator[Document]:
        for file in sorted(files):
            name = file.relative_to(root).as_posix()
            for document in read_one(file, name, config, rejected.append, named=False):
                if stopping():
                    return
                keys[as_unicode(str(file))].add(document.key)
                yield document

    report = pipeline.ingest(documents())
    if stopping():
        raise StoppedError
    # A file with records may have lost some of them; one with a single document has been replaced as a whole.
    gone |= {file for file, found in keys.items() if found != {file}}
    unread = {one.source for one in (*rejected, *report.rejected)}
    removed = _remove(pipeline, gone, set().union(*keys.values()), unread) if gone else 0
    return Applied.of(report, removed, rejected)


def _sorted_out(
    root: Path, paths: Collection[Path], config: DocumentsConfig, on_rejected: Callable[[Rejected], None]
) -> tuple[set[Path], set[str]]:
    """The files to read, and the paths under which nothing may be any more."""
    ignored = ignored_names(root, config)
    files: set[Path] = set()
    gone: set[str] = set()
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                inside, _ = walk_files(path, config, on_rejected)
                files |= {file for file, _ in inside if is_read(file, root, ignored)}
            elif is_read(path, root, ignored):
                files.add(path)
            else:
                gone.add(as_unicode(str(path)))
        except (DocumentError, OSError):  # it went while we looked
            gone.add(as_unicode(str(path)))
    return files, gone


def _remove(pipeline: TwoStagePipeline, gone: Collection[str], seen: Collection[str], unread: Collection[str]) -> int:
    """Remove the documents from under some paths that were not seen; what could not be read stays."""
    keys = set()
    with pipeline.reading() as serving:
        for point in serving.store.scan(payload=["source", "document"]):
            key, above = str(point.payload["document"]), set(_above(str(point.payload["source"])))
            if key not in seen and not above.isdisjoint(gone) and above.isdisjoint(unread):
                keys.add(key)
    doomed = sorted(keys)
    return sum(
        pipeline.delete_where({"must": [{"key": "document", "match": {"any": doomed[at : at + _KEYS_PER_FILTER]}}]})
        for at in range(0, len(doomed), _KEYS_PER_FILTER)
    )


def _above(source: str) -> Iterator[str]:
    """A source and the paths that it is under: ``/a/b.csv#3``, ``/a/b.csv``, ``/a``."""
    yield source
    for at in range(len(source) - 1, 0, -1):
        if source[at] in {"#", os.sep}:
            yield source[:at]
