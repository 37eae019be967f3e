"""Which metadata documents carry, and which values are frequent: counted in a sample, so that nothing is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECTION = "metadata"
_PLAIN = re.compile(r"[\w\-]+")
_DEEPEST = 3
_MOST_FIELDS = 50
_MOST_DIFFERENT = 10_000
_LONGEST_VALUE = 200

Scalar = str | int | bool


@dataclass(slots=True)
class Field:
    """What a sample of passages holds in one field.

    Args:
        key: Payload path, as filters name it.
        passages: Passages of the sample that have it.
        values: How many passages hold each value that a filter can match; without floats and very long strings.
        least: Smallest number, ``None`` where there is none.
        most: Largest number.
    """

    key: str
    passages: int = 0
    values: Counter[Scalar] = field(default_factory=Counter)
    least: float | None = None
    most: float | None = None

    def add(self, value: Any) -> None:
        """Count the value that a passage has here, or each of a list."""
        self.passages += 1
        items = value if isinstance(value, list) else [value]
        for item in {(type(item), item): item for item in items if isinstance(item, str | int | float)}.values():
            if not isinstance(item, str | bool):
                self.least = item if self.least is None else min(self.least, item)
                self.most = item if self.most is None else max(self.most, item)
            if isinstance(item, float) or (isinstance(item, str) and len(item) > _LONGEST_VALUE):
                continue
            if item in self.values or len(self.values) < _MOST_DIFFERENT:
                self.values[item] += 1

    def most_frequent(self, limit: int) -> list[tuple[Scalar, int]]:
        """The values that most passages hold, with their numbers; equal numbers by the value."""
        return sorted(self.values.items(), key=lambda entry: (-entry[1], str(entry[0])))[:limit]


def count_fields(rows: Iterable[Mapping[str, Any]]) -> list[Field]:
    """The fields of some metadata, those that most have first.

    Args:
        rows: Metadata of one passage each. Objects are looked into, three levels deep; lists of objects are not.

    Returns:
        At most 50 fields.
    """
    fields: dict[str, Field] = {}
    for row in rows:
        for key, value in _leaves(row, SECTION, 1):
            if key in fields or len(fields) < _MOST_FIELDS:
                fields.setdefault(key, Field(key)).add(value)
    return sorted(fields.values(), key=lambda found: (-found.passages, found.key))


def _leaves(values: Mapping[str, Any], above: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if not name or '"' in name or "\\" in name:
            continue  # no filter can name it
        key = f"{above}.{name}" if _PLAIN.fullmatch(name) else f'{above}."{name}"'
        if isinstance(value, Mapping):
            if depth < _DEEPEST:
                yield from _leaves(value, key, depth + 1)
        elif value is not None and value != []:
            yield key, value
