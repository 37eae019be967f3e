"""Files and folders into a stream of documents; the table of formats stands here."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from pathspec import GitIgnoreSpec

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.content import READ_ERRORS, UnreadableError, check_encoding, describe
from retrieval.documents.delimited import read_delimited
from retrieval.documents.html import read_html
from retrieval.documents.json_files import read_json, read_json_lines
from retrieval.documents.office import read_office
from retrieval.documents.parquet import read_parquet
from retrieval.documents.plain import read_plain
from retrieval.documents.source import Source
from retrieval.errors import DocumentError, MissingExtraError

IGNORE_FILE = ".retrievalignore"

_LOG = logging.getLogger(__name__)
_Reader = Callable[[Source], Iterator[Document]]
_TEXT_READERS: dict[str, _Reader] = {
    ".txt": read_plain,
    ".md": read_plain,
    ".markdown": read_plain,
    ".rst": read_plain,
    ".html": read_html,
    ".htm": read_html,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_delimited,
    ".tsv": read_delimited,
}
_BINARY_READERS: dict[str, _Reader] = {
    ".pdf": read_office,
    ".docx": read_office,
    ".pptx": read_office,
    ".xlsx": read_office,
    ".epub": read_office,
    ".parquet": read_parquet,
}
_READERS = {**_TEXT_READERS, **_BINARY_READERS}
SUPPORTED_EXTENSIONS = tuple(sorted((*_TEXT_READERS, *(name + ".gz" for name in _TEXT_READERS), *_BINARY_READERS)))


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
    root = Path(path).expanduser().absolute()
    try:
        mode = root.stat().st_mode
        root = root.resolve()
        if stat.S_ISREG(mode):
            with root.open("rb"):
                pass
            return _read_named_file(root, config, on_rejected)
        if stat.S_ISDIR(mode):
            os.scandir(root).close()
            return _read_folder(root, config, _ignored(root, config), on_rejected)
    except (OSError, ValueError) as error:
        raise DocumentError(
            f"cannot open {_unicode(str(path))!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
    raise DocumentError(f"{_unicode(str(path))!r} is neither a file nor a folder")


def _read_named_file(
    path: Path, config: DocumentsConfig, on_rejected: Callable[[Rejected], None]
) -> Iterator[Document]:
    reader, source = _source(path, path.name, config, on_rejected)
    if reader is None:
        known = " ".join(extension for extension in SUPPORTED_EXTENSIONS if not extension.endswith(".gz"))
        source.reject(f"unsupported extension {source.extension or '(none)'}; supported: {known}")
        return
    try:
        yield from _read(reader, source)
    except DocumentError as error:
        raise DocumentError(f"{source.location}: {error}") from error


def _read_folder(
    root: Path, config: DocumentsConfig, ignored: GitIgnoreSpec, on_rejected: Callable[[Rejected], None]
) -> Iterator[Document]:
    for path in _walk(root, ignored, on_rejected):
        reader, source = _source(path, path.relative_to(root).as_posix(), config, on_rejected)
        if reader is None:
            _LOG.debug("skipped %s: unsupported extension %s", source.location, source.extension or "(none)")
            continue
        try:
            yield from _read(reader, source)
        except DocumentError as error:
            source.reject(str(error))


def _read(reader: _Reader, source: Source) -> Iterator[Document]:
    """Run a reader; what one file does wrong is reported and ends that file only."""
    try:
        yield from reader(source)
    except UnreadableError as error:
        source.reject(str(error))
    except MissingExtraError as error:
        source.reject(str(error))
    except READ_ERRORS as error:
        source.reject(describe(error))


def _source(
    path: Path, name: str, config: DocumentsConfig, on_rejected: Callable[[Rejected], None]
) -> tuple[_Reader | None, Source]:
    suffixes = [suffix.lower() for suffix in PurePath(path.name).suffixes] or [""]
    packed = suffixes[-1] == ".gz" and suffixes[-2:-1] and suffixes[-2] in _TEXT_READERS
    extension = suffixes[-2] if packed else suffixes[-1]
    source = Source(path, _unicode(name), _unicode(str(path)), _unicode(extension), config, on_rejected)
    return _READERS.get(extension), source


def _unicode(name: str) -> str:
    """A name as valid Unicode; bytes that are not UTF-8 become hexadecimal escapes, so that names stay different."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _ignored(root: Path, config: DocumentsConfig) -> GitIgnoreSpec:
    lines = list(config.ignore)
    try:
        with (root / IGNORE_FILE).open(encoding="utf-8-sig") as file:
            lines += file.read(1 << 20).splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"cannot read {_unicode(str(root / IGNORE_FILE))}: {error}") from error
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
            on_rejected(Rejected(_unicode(str(path)), str(error)))
        except OSError as error:
            on_rejected(Rejected(_unicode(str(path)), describe(error)))


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
            f"is a symbolic link out of the folder, to {_unicode(str(target))}; links are not followed"
        )
    _LOG.debug("skipped the link %s: its target is read under its own name", path)
