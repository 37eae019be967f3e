"""Bytes read as decisions, so that an engine that mutates bytes mutates structures."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_TEXTS = (
    "pipe", "Pipe", "leak", "not", "x", "", " ", "\n", "\t", "\r\n", "# ", "## Heading\n", "===\n", "```\n", "- ",
    "a.b",
    "\0", "\u0301", "e\u0301", "\u212b", "\ufb01", "\u0130", "\u00df", "\u65e5\u672c", "\u3002",
    "\U0001f469\u200d\U0001f467",
    "\u200b", "\ufeff", "\u202e", "\u2028", "\x85", "\x1c", "\ud800", "\udc00", "\ufffd", "\U0010ffff", "\ufffe",
    "'", '"', "\\",
    "<p>", "</p>", "<!--", "-->", "[UNK]", "[SEP]", "2024-05-01", "1e999", "-0.0", "true", "null", "{}", "[]",
    "%00", "../", "/",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 7, 255, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, 10**30, -(10**400))
_FLOATS = (0.0, -0.0, 0.5, 1.0, 2.0**53, 1e-320, 1.7e308, -1.7e308, float("inf"), float("-inf"), float("nan"))


class Choices:
    """Takes decisions from bytes; when they are used up, every answer is the first, the least or the empty one.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not used yet."""
        return len(self._data) - self._at

    def byte(self) -> int:
        """0 to 255."""
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def rest(self, most: int | None = None) -> bytes:
        """What is left, or so many bytes of it."""
        start = self._at
        self._at = len(self._data) if most is None else min(len(self._data), start + most)
        return self._data[start : self._at]

    def whole(self, least: int, most: int) -> int:
        """A whole number."""
        span = most - least
        value = self.byte() if span < 256 else self.byte() << 8 | self.byte()
        return least + value % (span + 1)

    def chance(self, one_in: int = 2) -> bool:
        """True once in so many times."""
        return self.byte() % one_in == one_in - 1

    def pick(self, options: Sequence[T]) -> T:
        """One of some options."""
        return options[self.whole(0, len(options) - 1)]

    def list_of(self, make: Callable[[], T], most: int) -> list[T]:
        """Up to so many of what ``make`` makes."""
        return [make() for _ in range(self.whole(0, most)) if self.left]

    def number(self) -> int:
        """A small number, or one at an edge."""
        return self.pick(_NUMBERS) if self.chance(3) else self.byte() - 16

    def real(self) -> float:
        """A float, also one that is not finite."""
        kind = self.byte() % 4
        if kind == 0:
            return float(self.byte() - 16)
        if kind == 1:
            return self.pick(_FLOATS)
        raw = self.rest(8).ljust(8, b"\0")
        return float(struct.unpack("<d", raw)[0]) if kind == 2 else float(struct.unpack("<f", raw[:4])[0])

    def text(self, most: int = 6) -> str:
        """Text from pieces that are trouble, and from any characters; half surrogate pairs among them."""
        return "".join(self.list_of(self._piece, most))

    def clean_text(self, most: int = 6) -> str:
        """Text without half surrogate pairs."""
        return self.text(most).encode("utf-8", "replace").decode()

    def _piece(self) -> str:
        kind = self.byte()
        if kind < 200:
            return _TEXTS[kind % len(_TEXTS)]
        if kind < 230:
            return chr(kind - 135)
        code = self.whole(0, 65535) if kind < 250 else 0x10000 + self.whole(0, 65535) * 16
        return chr(code)

    def json(self, depth: int = 3) -> Any:
        """A JSON value as Python's parser gives it, with what it lets through: NaN, huge numbers, half pairs."""
        kind = self.byte() % (6 if depth <= 0 else 9)
        if kind == 0:
            return None
        if kind == 1:
            return self.chance()
        if kind == 2:
            return self.number()
        if kind == 3:
            return self.real()
        if kind in {4, 5}:
            return self.text()
        if kind == 6:
            return self.list_of(lambda: self.json(depth - 1), 4)
        return {self.text(2): self.json(depth - 1) for _ in range(self.whole(0, 4))}
