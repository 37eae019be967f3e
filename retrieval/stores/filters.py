"""Qdrant REST filters, checked once and turned into records that every store understands the same way."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from retrieval.errors import StoreInputError
from retrieval.yaml_text import shown

MAX_DEPTH = 32
MAX_PATH = 500  # characters
_PART = r'(?:[\w-]+|"[^"\\]+")(?:\[[0-9]{0,9}\])*'
_PATH = re.compile(rf"{_PART}(?:\.{_PART})*")
_TOKEN = re.compile(r'([\w-]+)|"([^"]+)"|\[([0-9]*)\]')


@dataclass(frozen=True, slots=True)
class Path:
    """A payload path: ``text`` as written, ``parts`` a key, an array position, or ``None`` for all elements each."""

    text: str
    parts: tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class MatchValues:
    """One of the values of the field is among ``values``, or with ``negated`` is not."""

    path: Path
    values: tuple[str | int | bool, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class MatchText:
    """All words of ``text`` occur in the field."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers between bounds; ``None`` is open."""

    path: Path
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class DatetimeRange:
    """Points in time between bounds; ``None`` is open."""

    path: Path
    gt: datetime | None = None
    gte: datetime | None = None
    lt: datetime | None = None
    lte: datetime | None = None


@dataclass(frozen=True, slots=True)
class ValuesCount:
    """Number of values of the field between bounds; ``None`` is open."""

    path: Path
    gt: int | None = None
    gte: int | None = None
    lt: int | None = None
    lte: int | None = None


@dataclass(frozen=True, slots=True)
class IsEmpty:
    """The field is missing, null or an empty array."""

    path: Path


@dataclass(frozen=True, slots=True)
class IsNull:
    """The field is null or an array with a null."""

    path: Path


@dataclass(frozen=True, slots=True)
class HasId:
    """The id of the point, as canonical UUID, is among ``ids``."""

    ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Nested:
    """One object of the array at ``path`` satisfies the whole clause."""

    path: Path
    clause: Clause


@dataclass(frozen=True, slots=True)
class Clause:
    """All of ``must``, none of ``must_not``, one of ``should`` if there are any, ``min_count`` of ``min_should``."""

    must: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()
    min_should: tuple[Condition, ...] = ()
    min_count: int = 0

    @property
    def matches_everything(self) -> bool:
        """Whether no condition of the clause, at any depth, excludes a point."""
        open_should = not self.should or any(_is_open(condition) for condition in self.should)
        open_minimum = sum(_is_open(condition) for condition in self.min_should) >= self.min_count
        return (
            not self.must_not and open_should and open_minimum and all(_is_open(condition) for condition in self.must)
        )


Condition = MatchValues | MatchText | Range | DatetimeRange | ValuesCount | IsEmpty | IsNull | HasId | Nested | Clause
_BOUNDS = ("gt", "gte", "lt", "lte")


def parse_filter(where: Mapping[str, Any]) -> Clause:
    """Check a filter.

    Supported: ``must``, ``should``, ``must_not`` (a condition or a list), ``min_should``; conditions on a field with
    ``match`` (value, any, except, text), ``range`` (numbers or RFC 3339 datetimes), ``values_count``, ``is_empty``
    and ``is_null``; ``is_empty``, ``is_null``, ``has_id``, ``nested``; and filters in filters.

    Raises:
        StoreInputError: Something in it is unknown, ambiguous or of the wrong type; the message says where.
    """
    return _clause(where, "filter", 0)


def parse_path(text: Any, where: str = "key") -> Path:
    """Check a payload path such as ``metadata.authors[].name`` or ``metadata."two words"``.

    Raises:
        StoreInputError: It is not a path.
    """
    if not isinstance(text, str) or not _PATH.fullmatch(text):
        hint = 'keys joined by dots, [] for all elements, quotes around unusual keys: metadata."two words"'
        raise StoreInputError(f"{where} is not a payload path: {shown(text)}; write {hint}")
    _whole_text(text, where)
    if len(text) > MAX_PATH:
        raise StoreInputError(
            f"{where} is a payload path of {len(text)} characters, more than {MAX_PATH}: {text[:50]!r}…"
        )
    parts: list[str | int | None] = []
    for bare, quoted, position in _TOKEN.findall(text):
        parts.append(bare or quoted or (int(position) if position else None))
    return Path(text, tuple(parts))


def parse_datetime(text: str) -> datetime | None:
    """A point in time from RFC 3339 or a shorter form (UTC where no offset is given), ``None`` if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) < 10 or text[4] != "-" or text[7] != "-":
        return None
    offset = moment.utcoffset()
    if offset is None:
        return moment.replace(tzinfo=UTC)
    return None if offset % timedelta(minutes=1) else moment


def _is_open(condition: Condition) -> bool:
    return isinstance(condition, Clause) and condition.matches_everything


def _clause(where: Any, place: str, depth: int) -> Clause:
    _require_mapping(where, place, {"must", "should", "must_not", "min_should"})
    if depth > MAX_DEPTH:
        raise StoreInputError(f"{place}: filters are nested more than {MAX_DEPTH} deep")
    must, should, must_not = (
        _conditions(where.get(name), f"{place}.{name}", depth) for name in ("must", "should", "must_not")
    )
    minimum = where.get("min_should")
    if minimum is None:
        return Clause(must, should, must_not)
    _require_mapping(minimum, f"{place}.min_should", {"conditions", "min_count"})
    count = minimum.get("min_count")
    if not _is_int(count) or not 0 <= count <= 10_000:
        raise StoreInputError(f"{place}.min_should.min_count is a whole number from 0 to 10,000, not {shown(count)}")
    if not isinstance(minimum.get("conditions"), Sequence):
        raise StoreInputError(f"{place}.min_should.conditions is a list of conditions")
    conditions = _conditions(minimum["conditions"], f"{place}.min_should.conditions", depth)
    if count and not conditions:
        # Beside other conditions the engine takes an empty list for one that holds; of one condition two never do.
        conditions, count = (Clause(),), max(count, 2)
    return Clause(must, should, must_not, conditions, count)


def _conditions(value: Any, place: str, depth: int) -> tuple[Condition, ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return (_condition(value, place, depth),)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise StoreInputError(f"{place} is a list of conditions, not {shown(value)}")
    return tuple(_condition(item, f"{place}[{index}]", depth) for index, item in enumerate(value))


def _condition(value: Any, place: str, depth: int) -> Condition:
    _require_mapping(value, place)
    if "key" in value:
        return _field(value, place)
    if "has_id" in value:
        _require_mapping(value, place, {"has_id"})
        return HasId(frozenset(_ids(value["has_id"], f"{place}.has_id")))
    if "nested" in value:
        _require_mapping(value, place, {"nested"})
        inner = value["nested"]
        _require_mapping(inner, f"{place}.nested", {"key", "filter"})
        path = parse_path(inner.get("key"), f"{place}.nested.key")
        clause = _clause(inner.get("filter"), f"{place}.nested.filter", depth + 1)
        if any(isinstance(part, HasId) for part in _flat(clause)):
            raise StoreInputError(f"{place}.nested: has_id asks about points, not about objects in them")
        return Nested(path, clause)
    for name, kind in (("is_empty", IsEmpty), ("is_null", IsNull)):
        if name in value:
            _require_mapping(value, place, {name})
            _require_mapping(value[name], f"{place}.{name}", {"key"})
            return kind(parse_path(value[name].get("key"), f"{place}.{name}.key"))
    return _clause(value, place, depth + 1)


def _flat(clause: Clause) -> list[Condition]:
    found: list[Condition] = []
    for condition in (*clause.must, *clause.should, *clause.must_not, *clause.min_should):
        inner = condition if isinstance(condition, Clause) else getattr(condition, "clause", None)
        found.extend([condition] if inner is None else _flat(inner))
    return found


def _field(value: Mapping[str, Any], place: str) -> Condition:
    kinds = {"match", "range", "values_count", "is_empty", "is_null"}
    _require_mapping(value, place, {"key", *kinds})
    path = parse_path(value["key"], f"{place}.key")
    given = [name for name in kinds if value.get(name) is not None]
    if len(given) != 1:
        found = " and ".join(sorted(given)) or "none"
        raise StoreInputError(
            f"{place} needs exactly one of {', '.join(sorted(kinds))} for {shown(path.text)}, found {found}"
        )
    name, detail = given[0], value[given[0]]
    if name == "match":
        return _match(path, detail, f"{place}.match")
    if name == "range":
        return _range(path, detail, f"{place}.range")
    if name == "values_count":
        _require_mapping(detail, f"{place}.values_count", set(_BOUNDS))
        if not all(bound is None or (_is_int(bound) and 0 <= bound <= 2**53) for bound in detail.values()):
            raise StoreInputError(f"{place}.values_count holds whole numbers from 0 to 2^53, not {shown(dict(detail))}")
        return ValuesCount(path, **_given(detail))
    if not isinstance(detail, bool):
        raise StoreInputError(f"{place}.{name} is true or false, not {shown(detail)}")
    condition = IsEmpty(path) if name == "is_empty" else IsNull(path)
    return condition if detail else Clause(must_not=(condition,))


def _match(path: Path, detail: Any, place: str) -> Condition:
    _require_mapping(detail, place, {"value", "any", "except", "text"})
    if len(detail) != 1:
        raise StoreInputError(f"{place} needs exactly one of value, any, except, text, found {shown(sorted(detail))}")
    ((kind, value),) = detail.items()
    if kind == "text":
        if not isinstance(value, str):
            raise StoreInputError(f"{place}.text is a string, not {shown(value)}")
        return MatchText(path, _whole_text(value, place))
    if kind == "value":
        if not isinstance(value, str) and not isinstance(value, bool) and not _is_int(value):
            raise StoreInputError(
                f"{place}.value is a string, an integer or a boolean, not {shown(value)}; use range for fractions"
            )
        return MatchValues(path, (_text_or_number(value, place),))
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise StoreInputError(f"{place}.{kind} is a list of strings or of integers, not {shown(value)}")
    if not (all(isinstance(item, str) for item in value) or all(_is_int(item) for item in value)):
        raise StoreInputError(f"{place}.{kind} is a list of strings or of integers, not {shown(list(value))}")
    return MatchValues(path, tuple(_text_or_number(item, place) for item in value), negated=kind == "except")


def _range(path: Path, detail: Any, place: str) -> Condition:
    _require_mapping(detail, place, set(_BOUNDS))
    bounds = _given(detail)
    if bounds and all(isinstance(bound, str) for bound in bounds.values()):
        moments = {name: parse_datetime(bound) for name, bound in bounds.items()}
        for name, moment in moments.items():
            if moment is None:
                raise StoreInputError(
                    f"{place}.{name} is not an RFC 3339 datetime: {shown(bounds[name])}; write 2024-05-01T12:00:00Z"
                )
        return DatetimeRange(path, **moments)
    for name, bound in bounds.items():
        if not _is_finite(bound):
            raise StoreInputError(
                f"{place}.{name} is a finite number or a datetime like the other bounds, not {shown(bound)}"
            )
    return Range(path, **{name: float(bound) for name, bound in bounds.items()})


def _is_finite(bound: Any) -> bool:
    if isinstance(bound, bool) or not isinstance(bound, int | float):
        return False
    try:
        return math.isfinite(bound)
    except OverflowError:
        return False


def _ids(value: Any, place: str) -> list[str]:
    if not isinstance(value, Sequence | set | frozenset) or isinstance(value, str | bytes):
        raise StoreInputError(f"{place} is a list of UUID strings, not {shown(value)}")
    try:
        return [str(uuid.UUID(item)) for item in value]
    except (ValueError, AttributeError, TypeError) as error:
        raise StoreInputError(f"{place} holds something that is not a UUID string: {shown(list(value)[:5])}") from error


def _text_or_number(value: Any, place: str) -> str | int | bool:
    if isinstance(value, str):
        return _whole_text(value, place)
    if isinstance(value, bool):
        return value
    if not -(2**63) <= value < 2**63:
        raise StoreInputError(f"{place} holds an integer beyond 64 bits: {shown(value)}")
    return int(value)


def _whole_text(text: str, place: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StoreInputError(f"{place} holds half of a surrogate pair: {shown(text)}") from error
    return text


def _given(bounds: Mapping[str, Any]) -> dict[str, Any]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_mapping(value: Any, place: str, allowed: set[str] | None = None) -> None:
    if not isinstance(value, Mapping):
        raise StoreInputError(f"{place} is a mapping, not {shown(value)}")
    unknown = sorted(str(key) for key in value if allowed is not None and key not in allowed)
    if unknown:
        raise StoreInputError(
            f"{place}: {', '.join(unknown)[:500]} is not supported here; known: {', '.join(sorted(allowed or ()))}"
        )
