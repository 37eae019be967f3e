"""Lines of a file with a limit on the memory that one line can take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from retrieval.documents.source import Span


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Args:
        number: From 1.
        data: Its bytes with the line end; ``None`` when there are more than the limit.
        size: Its length in bytes.
    """

    number: int
    data: bytes | None
    size: int


def read_lines(stream: BinaryIO, limit: int, span: Span | None = None) -> Iterator[Line]:
    """Yield every line of a stream; one of more than ``limit`` bytes is skipped over without being held.

    With a span, the stream stands at its start, and no line that begins behind its stop is read.
    """
    number, left = (0, None) if span is None else (span.number, span.stop - span.start)
    while (left is None or left > 0) and (data := stream.readline(limit + 1)):
        number += 1
        if len(data) <= limit or (len(data) == limit + 1 and data.endswith(b"\n")):
            left = None if left is None else left - len(data)
            yield Line(number, data, len(data))
            continue
        size = len(data)
        while not data.endswith(b"\n") and (data := stream.readline(1 << 20)):
            size += len(data)
        left = None if left is None else left - size
        yield Line(number, None, size)
