"""CSV and TSV: one row is one document."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO

from retrieval.datatypes import Document
from retrieval.documents.content import open_utf8
from retrieval.documents.lines import read_lines
from retrieval.documents.records import Columns, RecordReader, table_columns
from retrieval.documents.source import Source
from retrieval.errors import DocumentError

_DELIMITERS = ",;\t|"
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read_delimited(source: Source) -> Iterator[Document]:
    """Yield one document a row; the first row names the columns.

    Metadata that is written as a plain integer (no leading zero, no plus sign), as a decimal number with a point or as
    true or false becomes a number or boolean, so that filters by number work; everything else stays a string. Empty
    cells are left out. Rows of another width than the header, with NUL bytes or with broken quoting are reported.

    Raises:
        DocumentError: The header lacks a configured column, has none for the text, or names one twice.
    """
    # The limit of the csv module is one for the process; it is only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), source.config.max_line_bytes))
    with open_utf8(source) as stream:
        lines = _Lines(source, stream)
        delimiter = "\t" if source.extension == ".tsv" else _delimiter(stream)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            header = next((row for row in rows if any(row)), None)
        except (csv.Error, _BadLineError) as error:
            raise DocumentError(f"the header on line {lines.number} cannot be read: {error}") from error
        if header is None:
            source.reject("is empty")
            return
        yield from _documents(source, rows, lines, header)


def _documents(source: Source, rows: Iterator[list[str]], lines: _Lines, header: list[str]) -> Iterator[Document]:
    header = [name.strip() for name in header]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DocumentError(f"the header names the column {twice[0]!r} twice")
    columns = table_columns(header, source.config)
    reader = RecordReader(source)
    number = 0
    while True:
        first = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except (csv.Error, _BadLineError) as error:
            source.reject(f"line {first}: {error}", f"line {first}")
            continue
        if not any(row):
            continue
        number += 1
        if len(row) != len(header):
            source.reject(f"line {first}: has {len(row)} fields where the header has {len(header)}", f"line {first}")
            continue
        document = reader.document(_record(header, row, columns), number, columns)
        if document is not None:
            yield document
    if number == 0:
        source.reject("is empty: a header without rows")


def _record(header: list[str], row: list[str], columns: Columns) -> dict[str, object]:
    verbatim = {columns.text, columns.id, columns.title}
    return {
        name: value if name in verbatim else plain_value(value)
        for name, value in zip(header, row, strict=True)
        if name and (value or name in verbatim)
    }


def plain_value(cell: str) -> str | int | float | bool:
    """The number or boolean that a cell plainly is, else the cell."""
    if _INTEGER.fullmatch(cell):
        return int(cell)
    if _FLOAT.fullmatch(cell):
        return float(cell)
    return _BOOLEANS.get(cell, cell)


def _delimiter(stream: BinaryIO) -> str:
    """The delimiter that the csv module finds in the first lines, the comma when it finds none."""
    sample = stream.peek(8192)[:8192].decode("utf-8", "replace")  # type: ignore[attr-defined]
    header = sample.split("\n", 1)[0]
    there = "".join(delimiter for delimiter in _DELIMITERS if delimiter in header)
    if len(there) < 2:
        return there or ","
    try:
        found = csv.Sniffer().sniff(sample[: sample.rfind("\n") + 1] or sample, there).delimiter
    except csv.Error:
        found = ","
    return found if found in there else there[0]


class _BadLineError(Exception):
    """A physical line that no row can use."""


class _Lines(Iterator[str]):
    """Decoded lines for the csv module; a line that cannot be used is raised where it stands."""

    def __init__(self, source: Source, stream: BinaryIO) -> None:
        self._limit = source.config.max_line_bytes
        self._lines = read_lines(stream, self._limit)
        self.number = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.number = line.number
        if line.data is None:
            raise _BadLineError(f"has {line.size:,} bytes, more than documents.max_line_bytes ({self._limit:,})")
        if b"\0" in line.data:
            raise _BadLineError("holds a NUL byte")
        try:
            return line.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BadLineError("is not valid UTF-8") from error
