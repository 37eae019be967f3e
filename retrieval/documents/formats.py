"""One file into a stream of documents; the table of formats stands here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.content import READ_ERRORS, UnreadableError, describe
from retrieval.documents.delimited import read_delimited
from retrieval.documents.html import read_html
from retrieval.documents.json_files import read_json, read_json_lines
from retrieval.documents.office import read_office
from retrieval.documents.parquet import read_parquet
from retrieval.documents.plain import read_plain
from retrieval.documents.source import Source, Span
from retrieval.errors import MissingExtraError

Reader = Callable[[Source], Iterator[Document]]
_TEXT_READERS: dict[str, Reader] = {
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
_BINARY_READERS: dict[str, Reader] = {
    ".pdf": read_office,
    ".docx": read_office,
    ".pptx": read_office,
    ".xlsx": read_office,
    ".epub": read_office,
    ".parquet": read_parquet,
}
_READERS = {**_TEXT_READERS, **_BINARY_READERS}
SUPPORTED_EXTENSIONS = tuple(sorted((*_TEXT_READERS, *(name + ".gz" for name in _TEXT_READERS), *_BINARY_READERS)))
TABLES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Formats of which one file holds many documents."""
SLOW = (".pdf", ".docx", ".pptx", ".xlsx", ".epub")
"""Formats that take a moment to read."""


def reader_of(
    path: Path, name: str, config: DocumentsConfig, on_rejected: Callable[[Rejected], None], span: Span | None = None
) -> tuple[Reader | None, Source]:
    """The reader of a file by its extension, ``None`` for an unknown one, and what it reads from.

    Args:
        path: Absolute path.
        name: Path below the root of what is read.
        config: How to read.
        on_rejected: Called with everything that cannot be used.
        span: Read only this stretch of the file.
    """
    suffixes = [suffix.lower() for suffix in PurePath(path.name).suffixes] or [""]
    packed = suffixes[-1] == ".gz" and suffixes[-2:-1] and suffixes[-2] in _TEXT_READERS
    extension = suffixes[-2] if packed else suffixes[-1]
    source = Source(path, as_unicode(name), as_unicode(str(path)), as_unicode(extension), config, on_rejected, span)
    return _READERS.get(extension), source


def read_file(reader: Reader, source: Source) -> Iterator[Document]:
    """Run a reader; what one file does wrong is reported and ends that file only.

    Raises:
        DocumentError: It is a table without the columns it needs.
    """
    try:
        yield from reader(source)
    except UnreadableError as error:
        source.reject(str(error))
    except MissingExtraError as error:
        source.reject(str(error))
    except READ_ERRORS as error:
        source.reject(describe(error))


def reject_unsupported(source: Source) -> None:
    """Report a file that no reader is for."""
    known = " ".join(extension for extension in SUPPORTED_EXTENSIONS if not extension.endswith(".gz"))
    source.reject(f"unsupported extension {source.extension or '(none)'}; supported: {known}")


def as_unicode(name: str) -> str:
    """A name as valid Unicode; bytes that are not UTF-8 become hexadecimal escapes, so that names stay different."""
    raw = os.fsencode(name)
    if os.sep == "/" and b"\\x" in raw:
        # What is written like such an escape and is none gets its backslash escaped.
        raw = re.sub(rb"\\(?=x[0-9a-f]{2})", rb"\\x5c", raw)
    return raw.decode("utf-8", "backslashreplace")
