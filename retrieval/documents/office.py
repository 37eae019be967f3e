"""PDF, Word, PowerPoint, Excel and EPUB through markitdown: one file is one document in markdown."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from retrieval.datatypes import Document
from retrieval.documents.content import UnreadableError, read_bytes
from retrieval.documents.plain import title_of
from retrieval.documents.source import Source
from retrieval.errors import MissingExtraError
from retrieval.telemetry import refuse_telemetry

_UNPACKED_FACTOR = 4


def read_office(source: Source) -> Iterator[Document]:
    """Yield the file converted to markdown.

    Raises:
        MissingExtraError: markitdown, or the package that it needs for this format, is not installed.
        UnreadableError: It is empty, larger than ``max_file_bytes``, or cannot be converted.
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text, title = _convert(data, source.extension)
    if (document := source.whole_document(text, title or title_of(text))) is not None:
        yield document


def _convert(data: bytes, extension: str) -> tuple[str, str]:
    converter = _converter()
    from markitdown import MissingDependencyException, StreamInfo

    try:
        result = converter.convert_stream(io.BytesIO(data), stream_info=StreamInfo(extension=extension))
    except MissingDependencyException as error:
        raise MissingExtraError("markitdown", "documents", f"reading {extension} files") from error
    except Exception as error:  # a converter runs half a dozen parsers, each with errors of its own
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise UnreadableError(f"cannot be converted from {extension}: {cause[-1][:300]}") from error
    return result.markdown or "", result.title or ""


@lru_cache(maxsize=1)
def _converter() -> Any:
    refuse_telemetry()  # it guesses types of files with ONNX Runtime
    try:
        from markitdown import MarkItDown
    except ImportError as error:
        raise MissingExtraError("markitdown", "documents", "reading .pdf .docx .pptx .xlsx .epub files") from error
    return MarkItDown(enable_plugins=False)


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
