"""Parsed filters in the words of the embedded engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as engine

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
    Range,
    ValuesCount,
)


def edge_filter(clause: Clause) -> engine.Filter:
    """Translate a parsed filter for the engine."""
    minimum = engine.MinShould(_all(clause.min_should) or [], clause.min_count) if clause.min_count else None
    return engine.Filter(
        must=_all(clause.must), should=_all(clause.should), must_not=_all(clause.must_not), min_should=minimum
    )


def _all(conditions: Sequence[Condition]) -> list[Any] | None:
    # Inside a nested condition the engine takes an empty list for one that nothing satisfies.
    return [_condition(condition) for condition in conditions] or None


def _condition(condition: Condition) -> Any:
    if isinstance(condition, Clause):
        return edge_filter(condition)
    if isinstance(condition, HasId):
        return engine.HasIdCondition({UUID(point_id) for point_id in condition.ids})
    key = condition.path.text
    if isinstance(condition, Nested):
        return engine.NestedCondition(key, edge_filter(condition.clause))
    if isinstance(condition, IsEmpty):
        return engine.IsEmptyCondition(key)
    if isinstance(condition, IsNull):
        return engine.IsNullCondition(key)
    if isinstance(condition, MatchValues):
        return engine.FieldCondition(key, match=_match(condition))
    if isinstance(condition, MatchText):
        return engine.FieldCondition(key, match=engine.MatchText(condition.text))
    bounds = {name: getattr(condition, name) for name in ("gt", "gte", "lt", "lte")}
    if isinstance(condition, ValuesCount):
        return engine.FieldCondition(key, values_count=engine.ValuesCount(**bounds))
    if isinstance(condition, Range):
        return engine.FieldCondition(key, range=engine.RangeFloat(**bounds))
    assert isinstance(condition, DatetimeRange)
    moments = {name: None if moment is None else moment.isoformat() for name, moment in bounds.items()}
    return engine.FieldCondition(key, range=engine.RangeDateTime(**moments))


def _match(condition: MatchValues) -> Any:
    values: list[Any] = list(condition.values)
    if condition.negated:
        return engine.MatchExcept(values)
    if len(values) == 1 and isinstance(values[0], bool):
        # A Python bool is taken for the integer 1 or 0 and matches no boolean; numpy's is taken for what it is.
        return engine.MatchValue(np.bool_(values[0]))  # type: ignore[arg-type]
    return engine.MatchAny(values)
