"""Parquet tables, streamed in batches: one row is one document."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from retrieval.datatypes import Document
from retrieval.documents.content import UnreadableError
from retrieval.documents.converter import table_rows
from retrieval.documents.records import RecordReader, table_columns
from retrieval.documents.source import Source
from retrieval.errors import MissingExtraError


def read_parquet(source: Source) -> Iterator[Document]:
    """Yield one document a row; a float that is not a number counts as missing, as pandas writes it.

    Raises:
        MissingExtraError: pyarrow is not installed.
        DocumentError: A configured column is missing, or none can be the text.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "documents", "reading .parquet files") from error
    reader = RecordReader(source)
    config, span = source.config, source.span
    number = 0 if span is None else span.number
    groups = None if span is None else (span.start, span.stop)
    try:
        with source.path.open("rb") as file, pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
        columns = table_columns(names, config)
        wanted = {columns.text, columns.id, columns.title, *columns.metadata}
        used = [name for name in names if name in wanted]
        limits = config.max_line_bytes, config.max_convert_mb, config.max_convert_s
        for rows in table_rows(source.path, used, groups, *limits):
            if rows.skipped:
                number += 1
                source.reject(
                    f"record {number}: has {rows.skipped:,} bytes, more than documents.max_line_bytes "
                    f"({config.max_line_bytes:,})",
                    number,
                )
                continue
            for row in pa.ipc.open_stream(rows.stream).read_all().to_pylist():
                number += 1
                document = reader.document({name: _present(row[name]) for name in row}, number, columns)
                if document is not None:
                    yield document
    except UnreadableError as error:
        source.reject(f"cannot be read after row {number}: {error}")
        return
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        source.reject(f"is not a sound parquet file after row {number}: {error}")
        return
    if number == 0 and span is None:
        source.reject("is empty: a table without rows")


def _present(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def row_groups(source: Source) -> list[tuple[int, int]]:
    """Rows and bytes of each row group of a table; ``[]`` where they cannot be read."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return []
    try:
        with source.path.open("rb") as file, pq.ParquetFile(file) as table:
            groups = [table.metadata.row_group(number) for number in range(table.metadata.num_row_groups)]
            return [(group.num_rows, group.total_byte_size) for group in groups]
    except (pa.ArrowException, OSError):
        return []
