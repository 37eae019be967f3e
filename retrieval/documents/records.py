"""One record of a table or a JSON file into a document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.config import DocumentsConfig
from retrieval.datatypes import Document
from retrieval.documents.cleaning import SeenIds, clean, clean_title, json_value
from retrieval.documents.source import Source
from retrieval.errors import DocumentError

TEXT_COLUMNS = ("text", "contents", "content", "body", "passage", "abstract")
ID_COLUMNS = ("_id", "id", "doc_id", "docid")
TITLE_COLUMNS = ("title",)
MAX_METADATA_CHARACTERS = 4_096
"""Longer strings become metadata only when ``metadata_columns`` names their column."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a table hold what; ``None`` where there is none."""

    text: str
    id: str | None
    title: str | None
    metadata: tuple[str, ...]


def find_columns(names: Sequence[str], config: DocumentsConfig) -> Columns:
    """Assign the columns of a table, by the names configured or else by the usual ones in any case.

    Raises:
        DocumentError: A named column is missing, or none can be the text; the message lists the columns.
    """
    there = f"columns: {', '.join(map(repr, names[:50])) or 'none'}"
    for setting in ("text_column", "id_column", "title_column"):
        named = getattr(config, setting)
        if named is not None and named not in names:
            raise DocumentError(f"no column {named!r} as documents.{setting} asks; {there}")
    text = config.text_column or _first(names, TEXT_COLUMNS)
    if text is None:
        raise DocumentError(f"no column named {', '.join(TEXT_COLUMNS)}; set documents.text_column; {there}")
    identity = config.id_column or _first(names, ID_COLUMNS)
    title = config.title_column or _first(names, TITLE_COLUMNS)
    taken = {text, identity, title, ""}
    others = tuple(name for name in names if name not in taken)
    return Columns(text, identity, title, others if config.metadata_columns is None else config.metadata_columns)


def table_columns(names: Sequence[str], config: DocumentsConfig) -> Columns:
    """`find_columns` for a table, whose metadata columns must be there too.

    Raises:
        DocumentError: As `find_columns`, or a column of ``metadata_columns`` is missing.
    """
    columns = find_columns(names, config)
    missing = [name for name in columns.metadata if name not in names]
    if missing:
        there = ", ".join(map(repr, names[:50]))
        raise DocumentError(f"no column {missing[0]!r} as documents.metadata_columns asks; columns: {there}")
    return columns


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    folded = {name.strip().lower(): name for name in reversed(names)}
    return next((name if name in names else folded[name] for name in wanted if name in folded), None)


class RecordReader:
    """Turns the records of one file into documents and reports those that cannot be used."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen = SeenIds()
        self._columns: dict[tuple[str, ...], Columns] = {}

    def document(self, record: Mapping[str, Any], number: int, columns: Columns | None = None) -> Document | None:
        """One document.

        Args:
            record: Values by column.
            number: Of the record, from 1; names it when it has no id.
            columns: Assignment for a table; ``None`` looks at the keys of this record.
        """
        try:
            document = self._document(record, number, columns or self._columns_of(record))
        except (DocumentError, ValueError) as error:
            self._source.reject(f"record {number}: {error}", number)
            return None
        if not self._seen.add(document.source):
            self._source.reject(f"record {number}: the id {document.id!r} occurred before in this file", number)
            return None
        return document

    def _columns_of(self, record: Mapping[str, Any]) -> Columns:
        names = tuple(record)
        if names not in self._columns:
            if len(self._columns) >= 256:
                self._columns.clear()
            self._columns[names] = find_columns(names, self._source.config)
        return self._columns[names]

    def _document(self, record: Mapping[str, Any], number: int, columns: Columns) -> Document:
        title = record.get(columns.title) if columns.title else None
        title = clean_title(title) if isinstance(title, str) else ""
        text = record.get(columns.text)
        if text is not None and not isinstance(text, str):
            raise ValueError(f"column {columns.text!r} holds a {type(text).__name__}, not text")
        if text is None or not text.strip():
            if not title:
                raise ValueError(f"column {columns.text!r} is empty")
            text = title
        name = _identity(record.get(columns.id), columns.id) if columns.id else None
        return Document(
            id=name or f"{self._source.name}#{number}",
            text=clean(text),
            title=title,
            metadata=self._metadata(record, columns),
            source=f"{self._source.location}#{name or number}",
        )

    def _metadata(self, record: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
        selected = self._source.config.metadata_columns is not None
        metadata: dict[str, Any] = {}
        for name in columns.metadata:
            value = record.get(name)
            if value is None or (not selected and not _is_small(value)):
                continue
            try:
                metadata[clean(name)] = json_value(value)
            except ValueError as error:
                raise ValueError(f"column {name!r} {error}") from error
        return metadata


def _is_small(value: Any) -> bool:
    """Whether a value becomes metadata without being asked for: scalars and short lists of scalars."""
    if isinstance(value, str):
        return len(value) <= MAX_METADATA_CHARACTERS
    if isinstance(value, list):
        return (
            len(value) <= 100
            and not any(isinstance(item, list | dict | bytes) for item in value)
            and all(map(_is_small, value))
        )
    return not isinstance(value, dict | bytes)


def _identity(value: Any, column: str) -> str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"id column {column!r} holds a {type(value).__name__}, not text or a number")
    return clean(str(json_value(value))).strip() or None
