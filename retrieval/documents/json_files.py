"""JSON: one record a line, a list of records, or one object that is one document."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, NoReturn

from retrieval.datatypes import Document
from retrieval.documents.content import UnreadableError, open_utf8
from retrieval.documents.lines import Line, read_lines
from retrieval.documents.records import RecordReader
from retrieval.documents.source import Source

_CHUNK_BYTES = 64 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")
_SEPARATOR = re.compile(r"[ \t\r\n]*([,\]])")


def read_json_lines(source: Source) -> Iterator[Document]:
    """Yield one document a line; lines that cannot be used are reported with their number."""
    reader = RecordReader(source)
    with open_utf8(source) as stream:
        seen = False
        for line in read_lines(stream, source.config.max_line_bytes, source.span):
            if line.data is not None and line.data.isspace():
                continue
            seen = True
            record = _parse_line(source, line)
            if record is not None and (document := reader.document(record, line.number)) is not None:
                yield document
    if not seen and source.span is None:
        source.reject("is empty")


def read_json(source: Source) -> Iterator[Document]:
    """Yield the records of a list, one by one as they are parsed, or the one document that an object is."""
    with open_utf8(source) as stream:
        first = _skip_space(stream)
        if first == b"[":
            yield from _read_list(source, stream)
            return
        if not first:
            source.reject("is empty")
            return
        limit = source.config.max_file_bytes
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise UnreadableError(f"holds one JSON value of more than documents.max_file_bytes ({limit:,} bytes)")
    try:
        record = _loads(data)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise UnreadableError(f"is not valid JSON: {error}") from error
        # Several values one after the other: JSON lines under the name of JSON.
        yield from read_json_lines(source)
        return
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise UnreadableError(f"holds a JSON {type(record).__name__}, not an object or a list of objects")
    document = RecordReader(source).document(record, 1)
    if document is not None:
        name = source.name if document.id == f"{source.name}#1" else document.id
        yield replace(document, id=name, source=source.location)


def _skip_space(stream: BinaryIO) -> bytes:
    """Read up to the first byte that is no white space, and return that byte, which is still to be read."""
    while block := stream.peek(1):  # type: ignore[attr-defined]
        there = block.lstrip()
        stream.read(len(block) - len(there))
        if there:
            return bytes(there[:1])
    return b""


def _parse_line(source: Source, line: Line) -> dict[str, Any] | None:
    if line.data is None:
        limit = source.config.max_line_bytes
        source.reject(
            f"line {line.number}: has {line.size:,} bytes, more than documents.max_line_bytes ({limit:,})", line.number
        )
        return None
    try:
        record = _loads(line.data)
    except UnicodeDecodeError:
        source.reject(f"line {line.number}: is not valid UTF-8", line.number)
    except (ValueError, RecursionError) as error:
        source.reject(f"line {line.number}: is not valid JSON: {error}", line.number)
    else:
        if isinstance(record, dict):
            return record
        source.reject(f"line {line.number}: holds a JSON {type(record).__name__}, not an object", line.number)
    return None


def _loads(data: bytes) -> Any:
    return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _read_list(source: Source, stream: BinaryIO) -> Iterator[Document]:
    reader = RecordReader(source)
    number = 0
    try:
        for number, record in enumerate(_list_items(stream, source.config.max_line_bytes), 1):
            if not isinstance(record, dict):
                source.reject(f"record {number}: holds a JSON {type(record).__name__}, not an object", number)
            elif (document := reader.document(record, number)) is not None:
                yield document
    except (ValueError, RecursionError) as error:
        source.reject(f"is not valid JSON after record {number}, the last one read: {error}")
        return
    if number == 0:
        source.reject("is empty: a list without records")


def _list_items(stream: BinaryIO, limit: int) -> Iterator[Any]:
    """Parse the items of a list one by one, holding little more than the one at hand.

    The json module instead of a streaming parser, because those stop at a lone surrogate, which is valid JSON.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    parse = json.JSONDecoder().raw_decode
    stream.read(1)
    buffer, position, ended, first = "", 0, False, True
    while True:
        position = _SPACE.match(buffer, position).end()  # type: ignore[union-attr]
        if first and buffer[position : position + 1] == "]":
            return
        failure, separator = ValueError("a comma or ] is missing"), None
        try:
            item, end = parse(buffer, position)
            separator = _SEPARATOR.match(buffer, end)
        except ValueError as error:
            failure = error
        if separator:
            yield item
            if separator[1] == "]":
                return
            position, first = separator.end(), False
            continue
        if ended:
            raise failure
        if len(buffer) - position > limit:
            raise ValueError(f"{failure}, or the next record is larger than documents.max_line_bytes ({limit:,})")
        # Twice as much each time, so that the attempts at one long record add up to a multiple of its length.
        data = stream.read(max(_CHUNK_BYTES, len(buffer) - position))
        ended = not data
        buffer, position = buffer[position:] + decode(data, ended), 0
