"""Evaluates filters on payloads in Python, exactly as the engine does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from retrieval.stores.filters import (
    Clause,
    Condition,
    DatetimeRange,
    HasId,
    IsEmpty,
    IsNull,
    MatchText,
    MatchValues,
    Nested,
    Path,
    Range,
    ValuesCount,
)

_WORD = re.compile(r"[^\W_]+")
_DATETIME = re.compile(
    r"\s*\+?(\d{1,4})-(\d{1,2})-(\d{1,2})"
    r"(?:(T|t|\s+)(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d+))?\s*((?i:Z|UTC)|[+-]\d{2}(?::?\d{2})?)?)?)?",
    re.ASCII,
)


def matches(clause: Clause, payload: Mapping[str, Any], point_id: str) -> bool:
    """Whether a point satisfies a clause.

    Args:
        clause: Parsed filter.
        payload: JSON values.
        point_id: Canonical UUID, for ``has_id``.
    """

    def holds(condition: Condition) -> bool:
        return _holds(condition, payload, point_id)

    return (
        all(map(holds, clause.must))
        and not any(map(holds, clause.must_not))
        and (not clause.should or any(map(holds, clause.should)))
        and sum(map(holds, clause.min_should)) >= clause.min_count
    )


def values_at(path: Path, payload: Mapping[str, Any]) -> list[Any]:
    """The values that a path leads to; a key never looks into the elements of an array, ``[]`` does."""
    found: list[Any] = [payload]
    for part in path.parts:
        if isinstance(part, str):
            found = [value[part] for value in found if isinstance(value, Mapping) and part in value]
        elif part is None:
            found = [element for value in found if isinstance(value, list) for element in value]
        else:
            found = [value[part] for value in found if isinstance(value, list) and part < len(value)]
    return found


def scalars_at(path: Path, payload: Mapping[str, Any]) -> list[Any]:
    """The values at a path, arrays opened by one level, without nulls."""
    return [value for value in _opened(values_at(path, payload)) if value is not None]


def stored_datetime(text: str) -> datetime | None:
    """The point in time that the engine reads in a stored string, UTC where it names no offset; ``None`` for none."""
    match = _DATETIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, between, hour, minute, second, fraction, zone = match.groups()
    if between == "t" and (zone is None or (len(zone) == 3 and zone[1:].isdigit())):
        return None
    if second == "60":  # a leap second is the end of the second before it
        second, fraction = "59", "999999"
    try:
        moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))
        return moment.replace(microsecond=int(f"{fraction or 0:0<6}"[:6]), tzinfo=_zone(zone))
    except (ValueError, OverflowError):
        return None


def _zone(text: str | None) -> timezone:
    if text is None or text[0] not in "+-":
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    if minutes > 59:
        raise ValueError(f"an hour has no minute {minutes}")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _opened(values: Iterable[Any]) -> list[Any]:
    return [element for value in values for element in (value if isinstance(value, list) else [value])]


def _holds(condition: Condition, payload: Mapping[str, Any], point_id: str) -> bool:
    if isinstance(condition, Clause):
        return matches(condition, payload, point_id)
    if isinstance(condition, HasId):
        return point_id in condition.ids
    if isinstance(condition, Nested):
        parts = condition.path.parts
        array = Path(condition.path.text, parts[:-1]) if parts[-1] is None else condition.path
        objects = [item for value in values_at(array, payload) if isinstance(value, list) for item in value]
        return any(matches(condition.clause, item, point_id) for item in objects if isinstance(item, Mapping))
    return _field_holds(condition, payload)


def _field_holds(
    condition: MatchValues | MatchText | Range | DatetimeRange | ValuesCount | IsEmpty | IsNull,
    payload: Mapping[str, Any],
) -> bool:
    values = values_at(condition.path, payload)
    if isinstance(condition, IsEmpty):
        return all(value is None or value == [] for value in values)
    if isinstance(condition, IsNull):
        return any(value is None or (isinstance(value, list) and None in value) for value in values)
    if isinstance(condition, ValuesCount):
        return any(_within(condition, _count(value)) for value in values or [None])
    return any(map(_scalar_test(condition), (value for value in _opened(values) if value is not None)))


def _scalar_test(condition: MatchValues | MatchText | Range | DatetimeRange) -> Callable[[Any], bool]:
    if isinstance(condition, MatchValues):
        # 1, 1.0 and True are equal in Python and three different values in JSON.
        wanted = {(type(value), value) for value in condition.values}
        scalar = (str, int, bool)
        return lambda value: (isinstance(value, scalar) and (type(value), value) in wanted) != condition.negated
    if isinstance(condition, MatchText):
        words = set(_words(condition.text))
        return lambda value: bool(words) and isinstance(value, str) and words <= set(_words(value))
    if isinstance(condition, DatetimeRange):
        return lambda value: (
            isinstance(value, str) and (moment := stored_datetime(value)) is not None and _within(condition, moment)
        )
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and _within(condition, value)


def _within(bounds: Any, value: Any) -> bool:
    return (
        (bounds.gt is None or value > bounds.gt)
        and (bounds.gte is None or value >= bounds.gte)
        and (bounds.lt is None or value < bounds.lt)
        and (bounds.lte is None or value <= bounds.lte)
    )


def _count(value: Any) -> int:
    if isinstance(value, list):
        return len(value)
    return 0 if value is None else 1


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
