"""Rows of JSON lines, CSV, TSV and Parquet files as dictionaries, one by one, with the line they stand in."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from retrieval.errors import DocumentError, MissingExtraError

EXTENSIONS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""What can be read; all but the last also with ``.gz`` behind it."""

MAX_LINE_BYTES = 16 * 2**20
_DELIMITERS = ",;\t|"
_BATCH_ROWS = 1024
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

Row = dict[str, Any]
OnBadRow = Callable[[int, str], None]
"""Called with the number of the line (of a Parquet file: the row) and the reason."""


def read_rows(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file with the number of their line; of a Parquet file, of their row.

    Args:
        path: The file; its extension says the format.
        on_bad_row: Called for every row that cannot be read; the stream goes on behind it.

    Raises:
        DocumentError: The file is missing, of an unknown format, damaged or empty, or a header cannot be used.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    if not path.is_file():
        raise DocumentError(f"no file {path}" if not path.is_dir() else f"{path} is a folder, not a file")
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    if not is_row_file(path):
        raise DocumentError(f"{path}: rows are read from {', '.join(EXTENSIONS)} (and .gz of text), not {extension!r}")
    reader = {".parquet": _parquet_rows, ".csv": _csv_rows, ".tsv": _csv_rows}.get(extension, _json_rows)
    empty = True
    try:
        for numbered in reader(path, on_bad_row):
            empty = False
            yield numbered
    except (OSError, EOFError, zlib.error) as error:
        raise DocumentError(f"cannot read {path} to its end: {error}") from error
    if empty:
        raise DocumentError(f"{path} holds no usable row")


def is_row_file(path: Path) -> bool:
    """Whether the extension of a file is one that `read_rows` knows."""
    name = path.name.lower()
    return name.removesuffix(".gz").endswith(EXTENSIONS) and not name.endswith(".parquet.gz")


def _json_rows(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[int, Row]]:
    for number, line in _lines(path, on_bad_row):
        if line.isspace():
            continue
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            on_bad_row(number, f"is not valid JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            on_bad_row(number, f"holds a JSON {type(row).__name__}, not an object")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _csv_rows(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[int, Row]]:
    # The limit of the csv module is one for the process; it is only ever raised here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    lines = _CountedLines(_lines(path, on_bad_row))
    first = next(lines, "")
    delimiter = "\t" if ".tsv" in path.suffixes else max(_DELIMITERS, key=first.count)
    lines.put_back(first)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise DocumentError(f"{path}: the header cannot be read: {error}") from error
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise DocumentError(f"{path}: the header names the column {twice[0]!r} twice")
    while True:
        start = lines.number + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            on_bad_row(start, str(error))
            continue
        if len(row) == len(header):
            yield start, {name: cell for name, cell in zip(header, row, strict=True) if name}
        elif row:
            on_bad_row(start, f"has {len(row)} fields where the header has {len(header)}")


class _CountedLines(Iterator[str]):
    """Lines for the csv module, which joins those of a quoted field."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self._lines = lines
        self._again: str | None = None
        self.number = 0

    def put_back(self, line: str) -> None:
        self._again, self.number = line or None, 0

    def __next__(self) -> str:
        if self._again is not None:
            line, self._again, self.number = self._again, None, 1
            return line
        self.number, line = next(self._lines)
        return line


def _lines(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[int, str]]:
    """Decoded lines from 1; those that are too long or not UTF-8 are reported and left out."""
    with _open(path) as stream:
        number = 0
        while data := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1 and data.startswith(_UTF16):
                raise DocumentError(f"{path} is UTF-16; save it as UTF-8")
            if len(data) > MAX_LINE_BYTES:
                while not data.endswith(b"\n") and (data := stream.readline(1 << 20)):
                    pass
                on_bad_row(number, f"has more than {MAX_LINE_BYTES:,} bytes")
                continue
            try:
                yield number, data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                on_bad_row(number, f"is not valid UTF-8: {error.reason} at byte {error.start}")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _parquet_rows(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "train", "reading .parquet files") from error
    number = 0
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DocumentError(f"{path} is not a sound Parquet file after row {number}: {error}") from error
