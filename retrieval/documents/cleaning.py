"""Values from outside into strings and JSON values that every later part can carry."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import math
from typing import Any

MAX_TITLE_CHARACTERS = 1_000
"""Longer titles are cut: a title is repeated in every passage of its document."""


def clean(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def clean_title(title: str) -> str:
    """One line of at most `MAX_TITLE_CHARACTERS`."""
    return clean(" ".join(title[: 4 * MAX_TITLE_CHARACTERS].split())[:MAX_TITLE_CHARACTERS])


def json_value(value: Any, depth: int = 0) -> Any:
    """The value as JSON carries it.

    Dates and times become ISO 8601, decimals floats, numpy scalars Python ones, integers beyond 64 bits strings.

    Raises:
        ValueError: It is not finite, of a type that JSON does not know, or nested more than 20 levels deep.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, int | float | decimal.Decimal):
        return _number(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if depth >= 20:
        raise ValueError("is nested more than 20 levels deep")
    if isinstance(value, dict):
        return {clean(str(key)): json_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, depth + 1) for item in value]
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return json_value(value.item(), depth + 1)
    raise ValueError(f"is a {type(value).__name__}, which is not a JSON value")


def _number(value: float | decimal.Decimal) -> int | float | str:
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        try:
            return str(value)
        except ValueError:
            raise ValueError("is an integer of more than 4,300 digits") from None
    if not math.isfinite(value):
        raise ValueError(f"is {value}, which JSON cannot carry")
    return float(value)


class SeenIds:
    """Which ids a stream has had, 16 bytes each."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, name: str) -> bool:
        """Remember an id; false when it was there."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        before = len(self._digests)
        self._digests.add(digest)
        return len(self._digests) > before
