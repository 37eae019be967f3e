"""PDF, Word, PowerPoint, Excel and EPUB through markitdown: one file is one document in markdown."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

from retrieval.datatypes import Document
from retrieval.documents.content import UnreadableError, read_bytes
from retrieval.documents.converter import converter
from retrieval.documents.plain import title_of
from retrieval.documents.source import Source

_UNPACKED_FACTOR = 4


def read_office(source: Source) -> Iterator[Document]:
    """Yield the file converted to markdown.

    Raises:
        MissingExtraError: markitdown, or the package that it needs for this format, is not installed.
        UnreadableError: It is empty, larger than ``max_file_bytes``, or cannot be converted within the limits.
    """
    data = read_bytes(source)
    if not data:
        raise UnreadableError("is empty")
    if source.extension == ".pdf":
        # Without this mark the converters would pass plain text through.
        if b"%PDF-" not in data[:1024]:
            raise UnreadableError("is not a PDF: its mark is missing")
    else:
        _check_archive(data, source.config.max_file_bytes * _UNPACKED_FACTOR)
    config = source.config
    converted = converter(config.max_convert_mb).convert(data, source.extension, config.max_convert_s)
    title = converted.title or title_of(converted.text)
    if (document := source.whole_document(converted.text, title)) is not None:
        yield document


def _check_archive(data: bytes, limit: int) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UnreadableError(f"is not a sound archive: {error}") from error
    if unpacked > limit:
        raise UnreadableError(
            f"unpacks to {unpacked:,} bytes, more than {_UNPACKED_FACTOR} times documents.max_file_bytes ({limit:,})"
        )
