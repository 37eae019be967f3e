"""Filters of all kinds over payloads of all kinds, from decisions."""

from __future__ import annotations

import uuid
from typing import Any

from benchmarks.fuzz.choices import Choices

KEYS = ("a", "b", "tags", "when", "n", "box", "list")
PATHS = (
    "a", "b", "tags", "when", "n", "list", "box.a", "box.b", "list[]", "list[].a", "list[].b", "tags[]", "tags[0]",
    "list[1].a",
    "missing", "a.b", '"two words"', "box", "list[0]", "n[]",
)  # fmt: skip
WORDS = ("copper pipe", "Pipe", "pipe", "leak", "", "x", "\u65e5\u672c", "caf\u00e9", "cafe\u0301", "a_b", "1")
TIMES = (
    "2024-05-01T12:00:00Z", "2024-05-01", "2024-05-01T12:00:00+02:00", "2023-12-31T23:59:59.999999Z",
    "2024-05-01T12:00:00.5Z",
    "1969-12-31T23:59:59Z", "2024-05-01T10:00:00",
)  # fmt: skip
NUMBERS = (0, 1, 2, -1, 7, 2**31, 2**53 - 1, -(2**53))
REALS = (0.0, 0.5, 1.0, 2.0, -1.5, 1e-9, 1e15)


def point_id(number: int) -> str:
    """Id of a point."""
    return str(uuid.UUID(int=number + 1))


def odd_time(choices: Choices) -> str:
    """A date in a form that one reader of dates may take and another not."""
    days = (
        "2024-05-01",
        "2024-5-1",
        "20240501",
        "2024-W18-3",
        " 2024-05-01",
        "+2024-05-01",
        "2024-02-30",
        "9999-12-31",
    )
    times = (
        "",
        "T12:00:00",
        "T12",
        "T12:00",
        " 12:00:00",
        "  12:00",
        "t12:00:00",
        "T12:00:00.5",
        "T12:00:00,5",
        "T120000",
    )
    more = ("T24:00:00", "T23:59:60", "T12:0:0", "T12:00:00.", "T12:00:00.123456789")
    zones = (
        "",
        "Z",
        "z",
        "+02:00",
        "+0200",
        "+02",
        "-00:00",
        "+05:30:15",
        "+24:00",
        "+23:59",
        " Z",
        "UTC",
        "utc",
        "+0199",
    )
    return choices.pick(days) + choices.pick(times + more) + choices.pick(zones)


def scalar(choices: Choices, odd: bool = True) -> Any:
    """What a field may hold; with odd spellings of dates, which the stand-in of a server reads in its own way."""
    kind = choices.byte() % 8
    if kind == 0:
        return None
    if kind == 1:
        return choices.chance()
    if kind in {2, 3}:
        return choices.pick(NUMBERS)
    if kind == 4:
        return choices.pick(REALS)
    if kind == 5:
        return odd_time(choices) if odd and choices.chance() else choices.pick(TIMES)
    return choices.pick(WORDS)


def payload(choices: Choices, odd: bool = True) -> dict[str, Any]:
    """Fields with values, lists of them, and objects with values."""
    values: dict[str, Any] = {}
    for key in KEYS:
        kind = choices.byte() % 6
        if kind in {1, 2}:
            values[key] = scalar(choices, odd)
        elif kind == 3:
            values[key] = choices.list_of(lambda: scalar(choices, odd), 3)
        elif kind == 4:
            values[key] = {"a": scalar(choices, odd), "b": choices.list_of(lambda: scalar(choices, odd), 2)}
        elif kind == 5:
            values[key] = choices.list_of(lambda: {"a": scalar(choices, odd), "b": scalar(choices, odd)}, 3)
    if choices.chance(5):
        values["two words"] = scalar(choices, odd)
    return values


def filter_of(choices: Choices, depth: int = 2, *, nested: bool = False) -> dict[str, Any]:
    """A filter.

    Args:
        choices: Decisions.
        depth: How deep filters may stand in it.
        nested: Whether it is about the objects of an array.
    """
    where: dict[str, Any] = {}
    for name in ("must", "should", "must_not"):
        if choices.chance():
            where[name] = choices.list_of(lambda: _condition(choices, depth, nested), 3)
    if choices.chance(6):
        conditions = choices.list_of(lambda: _condition(choices, depth, nested), 3)
        where["min_should"] = {"conditions": conditions, "min_count": choices.whole(0, 3)}
    return where


def _condition(choices: Choices, depth: int, nested: bool) -> dict[str, Any]:
    kind = choices.byte() % 14
    if kind == 12 and depth > 0:
        return filter_of(choices, depth - 1, nested=nested)
    if kind == 13 and depth > 0:
        key = choices.pick(("list", "list[]", "tags", "box", "box.b"))
        return {"nested": {"key": key, "filter": filter_of(choices, depth - 1, nested=True)}}
    if kind == 11 and not nested:
        return {"has_id": [point_id(choices.byte() % 40) for _ in range(choices.whole(0, 4))]}
    key = choices.pick(("a", "b", "missing") if nested else PATHS)
    if kind == 0:
        return {"is_empty": {"key": key}}
    if kind == 1:
        return {"is_null": {"key": key}}
    if kind == 2:
        return {"key": key, choices.pick(("is_empty", "is_null")): choices.chance()}
    return {"key": key, **_match(choices, kind)}


def _match(choices: Choices, kind: int) -> dict[str, Any]:
    if kind == 3:
        return {"match": {"value": choices.pick((True, False, *NUMBERS, *WORDS))}}
    if kind in {4, 5}:
        values: list[Any] = choices.list_of(lambda: choices.pick(WORDS), 3)
        if choices.chance():
            values = choices.list_of(lambda: choices.pick(NUMBERS), 3)
        return {"match": {"any" if kind == 4 else "except": values}}
    if kind == 6:
        return {"match": {"text": choices.pick(WORDS)}}
    if kind == 7:
        return {"range": {name: choices.pick(TIMES) for name in _bounds(choices)}}
    if kind == 8:
        return {"values_count": {name: choices.whole(0, 3) for name in _bounds(choices)}}
    return {"range": {name: choices.pick((*NUMBERS, *REALS)) for name in _bounds(choices)}}


def _bounds(choices: Choices) -> list[str]:
    return [name for name in ("gte", "lt", "gt", "lte") if choices.chance()] or ["gte"]
