"""Files and folders into a stream of documents."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.content import UnreadableError, check_encoding, describe, regular_file
from retrieval.documents.formats import as_unicode, read_file, reader_of, reject_unsupported
from retrieval.documents.source import Span
from retrieval.errors import DocumentError

IGNORE_FILE = ".retrievalignore"

# The time to match grows with the length of a name to the power of this.
_MOST_STARS = 3

_LOG = logging.getLogger(__name__)


def open_documents(
    path: str | Path, config: DocumentsConfig = DocumentsConfig(), *, on_rejected: Callable[[Rejected], None]
) -> Iterator[Document]:
    """Read a file or a folder as a stream of documents.

    Folders are walked in sorted order. Names that ``config.ignore`` or a ``.retrievalignore`` file in the root match
    (both in gitignore syntax) are left out, and so are files of unknown extensions. Symbolic links are not followed:
    those that stay inside the root because their target is read under its own name, those that leave it are reported.
    Of a BEIR folder only the corpus is read. A file with one document has its path below the root as id; a record has
    its id column, or ``path#number`` without one.

    Args:
        path: A file or a folder.
        config: How to read.
        on_rejected: Called with everything that cannot be used; the stream goes on behind it.

    Returns:
        The documents, read while you iterate.

    Raises:
        DocumentError: The path is missing, cannot be opened, or is neither file nor folder; the configured encoding is
            unknown. While iterating, when the path is a file: it is a table without the columns it needs.
    """
    check_encoding(config.encoding)
    files, named = walk_files(path, config, on_rejected)
    return (document for file, name in files for document in read_one(file, name, config, on_rejected, named=named))


def walk_files(
    path: str | Path, config: DocumentsConfig, on_rejected: Callable[[Rejected], None]
) -> tuple[Iterator[tuple[Path, str]], bool]:
    """The files that a path stands for, as `open_documents` reads them.

    Returns:
        Absolute paths with their names below the root, and whether the path is a file itself.

    Raises:
        DocumentError: The path is missing, cannot be opened, or is neither file nor folder.
    """
    root = Path(path).expanduser().absolute()
    try:
        mode = root.stat().st_mode
        root = root.resolve()
        if stat.S_ISREG(mode):
            with root.open("rb"):
                pass
            return iter([(root, root.name)]), True
        if stat.S_ISDIR(mode):
            os.scandir(root).close()
            files = _walk(root, ignored_names(root, config), on_rejected)
            return ((file, file.relative_to(root).as_posix()) for file in files), False
    except (OSError, ValueError) as error:
        raise DocumentError(
            f"cannot open {as_unicode(str(path))!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    raise DocumentError(f"{as_unicode(str(path))!r} is neither a file nor a folder")


def read_one(
    path: Path,
    name: str,
    config: DocumentsConfig,
    on_rejected: Callable[[Rejected], None],
    *,
    named: bool,
    span: Span | None = None,
) -> Iterator[Document]:
    """Read one of the files of `walk_files`, or a stretch of it.

    Args:
        path: Absolute path.
        name: Its name below the root.
        config: How to read.
        on_rejected: Called with everything that cannot be used.
        named: Whether somebody has named this very file: an unknown extension is reported then and a table without its
            columns is an error. In a folder the first is skipped and the second reported.
        span: The stretch; ``None`` for all.

    Raises:
        DocumentError: A table that was named lacks the columns it needs.
    """
    reader, source = reader_of(path, name, config, on_rejected, span)
    if reader is None:
        if named:
            reject_unsupported(source)
        else:
            _LOG.debug("skipped %s: unsupported extension %s", source.location, source.extension or "(none)")
        return
    try:
        yield from read_file(reader, source)
    except DocumentError as error:
        if named:
            raise DocumentError(f"{source.location}: {error}") from error
        source.reject(str(error))


def is_read(path: Path, root: Path, ignored: GitIgnoreSpec) -> bool:
    """Whether `open_documents` on a folder would read a file in it, as far as its place and name tell.

    Args:
        path: Path of a file below the folder.
        root: The folder.
        ignored: Its `ignored_names`.
    """
    inside = path.relative_to(root)
    folder = root
    for part in inside.parts:
        corpus = _beir_corpus(folder)
        folder = folder / part
        if corpus and folder not in corpus:
            return False
        if folder.is_symlink():
            return False
    return path.is_file() and not ignored.match_file(inside.as_posix())


def ignored_names(root: Path, config: DocumentsConfig) -> GitIgnoreSpec:
    """Matches the names below a folder that are not read: those of ``config.ignore`` and of its ``.retrievalignore``.

    Raises:
        DocumentError: The file cannot be read, or a pattern is unusable.
    """
    lines = list(config.ignore)
    try:
        with open(root / IGNORE_FILE, encoding="utf-8-sig", opener=regular_file) as file:
            lines += file.read(1 << 20).splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"cannot read {as_unicode(str(root / IGNORE_FILE))}: {error}") from error
    for line in lines:
        parts = [] if line.startswith("#") else line.split("/")
        if parts.count("**") > _MOST_STARS or any(part.count("*") > _MOST_STARS for part in parts if part != "**"):
            raise DocumentError(
                f"documents.ignore or {IGNORE_FILE} holds the pattern {line[:80]!r}, which would take very long to "
                f"match: use at most {_MOST_STARS} '*' in a name, and as many '**/' in a path"
            )
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise DocumentError(f"documents.ignore or {IGNORE_FILE} holds an unusable pattern: {error}") from error


def _walk(root: Path, ignored: GitIgnoreSpec, on_rejected: Callable[[Rejected], None]) -> Iterator[Path]:
    """Yield the regular files below a folder in sorted order, depth first."""
    waiting: list[Path] = [root]
    while waiting:
        path = waiting.pop()
        try:
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield path
            elif stat.S_ISDIR(mode):
                waiting += reversed(_beir_corpus(path) or _entries(path, root, ignored))
            elif stat.S_ISLNK(mode):
                _check_link(path, root)
            else:
                _LOG.debug("skipped %s: not a regular file", path)
        except UnreadableError as error:
            on_rejected(Rejected(as_unicode(str(path)), str(error)))
        except OSError as error:
            on_rejected(Rejected(as_unicode(str(path)), describe(error)))


def _entries(folder: Path, root: Path, ignored: GitIgnoreSpec) -> list[Path]:
    entries = []
    with os.scandir(folder) as listing:
        for entry in sorted(listing, key=lambda entry: entry.name):
            path = folder / entry.name
            name = path.relative_to(root).as_posix() + ("/" if entry.is_dir(follow_symlinks=False) else "")
            if not ignored.match_file(name):
                entries.append(path)
    return entries


def _beir_corpus(folder: Path) -> list[Path]:
    """The corpus of a folder laid out as a BEIR collection, ``[]`` for any other folder."""
    corpora = [folder / name for name in ("corpus.jsonl", "corpus.jsonl.gz") if (folder / name).is_file()]
    judged = any((folder / name).exists() for name in ("queries.jsonl", "queries.jsonl.gz", "qrels"))
    return corpora[:1] if judged else []


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnreadableError("is a symbolic link to nothing") from error
    if not target.is_relative_to(root):
        raise UnreadableError(
            f"is a symbolic link out of the folder, to {as_unicode(str(target))}; links are not followed"
        )
    _LOG.debug("skipped the link %s: its target is read under its own name", path)
