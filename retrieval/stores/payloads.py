"""Checks that a payload is JSON before any engine sees it, and copies it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from retrieval.errors import StoreInputError

MAX_PAYLOAD_BYTES = 16 * 2**20
MAX_PAYLOAD_DEPTH = 32
_LEAST, _MOST = -(2**63), 2**63 - 1
_UTF8_BYTES = 4
_UNKNOWN = 2**62


def checked_payload(payload: Any, position: int, point_id: str) -> dict[str, Any]:
    """Copy a payload as plain JSON values.

    Args:
        payload: The payload.
        position: Of its point in the batch, for messages.
        point_id: Id of its point, for messages.

    Raises:
        StoreInputError: It holds something that JSON would lose or change, or is larger than `MAX_PAYLOAD_BYTES`.
    """
    if not isinstance(payload, Mapping):
        _refuse(position, point_id, "", f"is a {type(payload).__name__}, not a mapping")
    plain: dict[str, Any] = {}
    try:
        size = _copy_mapping(payload, plain, 1)
    except _UnusableError as error:
        _refuse(position, point_id, "".join(reversed(error.path)), error.reason)
    if size > MAX_PAYLOAD_BYTES:
        _refuse(position, point_id, "", f"has {size} bytes; the limit is {MAX_PAYLOAD_BYTES}")
    return plain


def is_plain(payload: Any) -> bool:
    """Whether a payload is plain JSON values as it is, so that no copy of it could differ.

    False says nothing; `checked_payload` knows.
    """
    return type(payload) is dict and _most_bytes(payload, 0) <= MAX_PAYLOAD_BYTES


def _most_bytes(value: Any, depth: int) -> int:
    """At least the size of a plain JSON value; `_UNKNOWN` for all else."""
    kind = type(value)
    if kind is str:
        return len(value) if value.isascii() else _UTF8_BYTES * len(value) if _is_utf8(value) else _UNKNOWN
    if kind is int:
        return 8 if _LEAST <= value <= _MOST else _UNKNOWN
    if kind is dict and depth < MAX_PAYLOAD_DEPTH:
        size = 2
        for key, inner in value.items():
            if type(key) is not str or not key.isascii():
                return _UNKNOWN
            # What nearly all values are, without a call.
            if type(inner) is str and inner.isascii():
                size += len(key) + len(inner)
            else:
                size += len(key) + _most_bytes(inner, depth + 1)
        return size
    if kind is list and depth < MAX_PAYLOAD_DEPTH:
        return 2 + sum(_most_bytes(item, depth + 1) for item in value)
    if value is None or kind is bool or (kind is float and math.isfinite(value)):
        return 8
    return _UNKNOWN


class _UnusableError(Exception):
    """A value that JSON cannot carry; its path, innermost step first, is known only when all loops are left."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def _refuse(position: int, point_id: str, path: str, reason: str) -> NoReturn:
    raise StoreInputError(f"point {position} ({point_id}): payload{path} {reason}")


def _copy_mapping(values: Mapping[Any, Any], plain: dict[str, Any], depth: int) -> int:
    """Copy into ``plain`` and return the size in bytes, roughly."""
    size = 2
    for key, value in values.items():
        if not isinstance(key, str):
            raise _UnusableError(f"has the key {key!r}, which is not a string")
        size += len(key) if key.isascii() else _utf8_size(key)
        # What nearly all values are, without a call.
        kind = type(value)
        if kind is str and value.isascii():
            plain[key] = value
            size += len(value)
            continue
        if kind is int and _LEAST <= value <= _MOST:
            plain[key] = value
            size += 8
            continue
        try:
            plain[key], value_size = _copy(value, depth)
        except _UnusableError as error:
            error.path.append(f".{key}")
            raise
        size += value_size
    return size


def _copy(value: Any, depth: int) -> tuple[Any, int]:
    if value is None or isinstance(value, bool):
        return value, 5
    if isinstance(value, str):
        return value, len(value) if value.isascii() else _utf8_size(value)
    if isinstance(value, int):
        if not _LEAST <= value <= _MOST:
            raise _UnusableError(f"is an integer beyond 64 bits: {value}; store it as a string")
        return value, 8
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _UnusableError(f"is {value}, which JSON cannot carry; leave it out or store null")
        return value, 8
    if depth >= MAX_PAYLOAD_DEPTH:
        raise _UnusableError(f"is nested more than {MAX_PAYLOAD_DEPTH} deep")
    return _copy_container(value, depth)


def _copy_container(value: Any, depth: int) -> tuple[Any, int]:
    if isinstance(value, Mapping):
        pairs: dict[str, Any] = {}
        size = _copy_mapping(value, pairs, depth + 1)
        return pairs, size
    if isinstance(value, list | tuple):
        items, size = [], 2
        for index, item in enumerate(value):
            try:
                plain, item_size = _copy(item, depth + 1)
            except _UnusableError as error:
                error.path.append(f"[{index}]")
                raise
            items.append(plain)
            size += item_size
        return items, size
    raise _UnusableError(f"is a {type(value).__name__}, which is not a JSON value")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _utf8_size(text: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _UnusableError("holds half of a surrogate pair, which UTF-8 cannot carry") from error
