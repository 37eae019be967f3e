"""Lines of a file with a limit on the memory that one line can take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO


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


def read_lines(stream: BinaryIO, limit: int) -> Iterator[Line]:
    """Yield every line of a stream; one of more than ``limit`` bytes is skipped over without being held."""
    number = 0
    while data := stream.readline(limit + 1):
        number += 1
        if len(data) <= limit or (len(data) == limit + 1 and data.endswith(b"\n")):
            yield Line(number, data, len(data))
            continue
        size = len(data)
        while not data.endswith(b"\n") and (data := stream.readline(1 << 20)):
            size += len(data)
        yield Line(number, None, size)
