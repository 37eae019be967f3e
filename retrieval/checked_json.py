"""JSON files that notice when they are not what was written: a mapping with a digest of itself among its keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECKSUM = "checksum"
"""Key of the digest; a mapping without it is not compared, so that files of older versions can be read."""


def encode_json(value: Mapping[str, Any]) -> str:
    """A mapping as JSON text, the same for equal mappings.

    Raises:
        TypeError: It holds something that is not JSON.
        ValueError: It holds a number that is not finite, half of a surrogate pair, or itself.
        RecursionError: It is nested too deep.
    """
    text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
    text.encode("utf-8")
    return text


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with its digest.

    Raises:
        TypeError, ValueError, RecursionError: As for `encode_json`.
    """
    plain = {name: item for name, item in value.items() if name != CHECKSUM}
    return {**plain, CHECKSUM: _digest(plain)}


def parse_mapping(data: bytes) -> dict[str, Any]:
    """The mapping in a file, without its digest.

    Raises:
        ValueError: It is not JSON, not a mapping, or not the mapping that was written.
        RecursionError: It is nested too deep.
    """
    value = json.loads(data.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a mapping")
    checksum = value.pop(CHECKSUM, None)
    if checksum is not None and checksum != _digest(value):
        raise ValueError("its checksum does not belong to what it says")
    return value


def _digest(value: Mapping[str, Any]) -> str:
    # What a reader parses of NaN or a lone surrogate still has to have a digest, to be found different.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
