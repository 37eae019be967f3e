"""The file that a reader works on, and where it reports what it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document, Rejected
from retrieval.documents.cleaning import clean, clean_title


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a file of records.

    Args:
        start: First byte of JSON lines, which begins a line; first row group of a parquet table.
        stop: One past the last; a line that begins before it is read to its end.
        number: Lines or rows before ``start``, so that records keep their numbers.
    """

    start: int
    stop: int
    number: int


@dataclass(frozen=True, slots=True)
class Source:
    """One file.

    Args:
        path: Absolute path.
        name: Id of the file: its path below the root with forward slashes, valid Unicode.
        location: Absolute path as valid Unicode.
        extension: Lower case with the dot, without ``.gz``.
        config: How to read it.
        on_rejected: Called for everything that cannot be used.
        span: The stretch of UTF-8 lines or of row groups to read; ``None`` for the whole file.
    """

    path: Path
    name: str
    location: str
    extension: str
    config: DocumentsConfig
    on_rejected: Callable[[Rejected], None]
    span: Span | None = None

    @property
    def compressed(self) -> bool:
        """Whether the file is read through gzip."""
        return self.path.name.lower().endswith(".gz")

    def reject(self, reason: str, record: int | str | None = None) -> None:
        """Report the file, or one of its records."""
        self.on_rejected(Rejected(self.location if record is None else f"{self.location}#{record}", clean(reason)))

    def whole_document(self, text: str, title: str = "") -> Document | None:
        """The file as one document; reported and ``None`` when there is no text in it."""
        if not text.strip():
            self.reject("is empty: no text but whitespace was found")
            return None
        return Document(
            id=self.name,
            text=clean(text),
            title=clean_title(title),
            metadata={"path": self.name, "extension": self.extension},
            source=self.location,
        )
