"""What ``--where`` takes."""

from __future__ import annotations

import json
from typing import Any


def parse_where(text: str) -> dict[str, Any]:
    """The filter of a ``--where`` option.

    Raises:
        ValueError: It is not a JSON object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--where {text[:200]!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f'--where takes a JSON object such as {{"must": [...]}}, got {text[:200]!r}')
    return value
