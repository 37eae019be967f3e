"""Filters over the wire: checked by the library's own parser, and described in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from retrieval.stores.filters import MAX_PATH, parse_filter

COMPONENT = "x-component"
"""Marks a schema that stands for a component of the document."""

_PART = r'([\w\-]+|"[^"\\]+")(\[[0-9]{0,9}\])*'
_KEY = {
    "type": "string",
    "pattern": rf"^{_PART}(\.{_PART})*$",
    "maxLength": MAX_PATH,
    "description": "payload path; what a document came with stands under metadata",
    "examples": ["metadata.year"],
}
_INTEGER = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
_COUNT = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2**53}, {"type": "null"}]}
_BOUNDS = ("gt", "gte", "lt", "lte")


def _object(properties: dict[str, Any], *, required: tuple[str, ...] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }


def _one_or_many(name: str) -> dict[str, Any]:
    item = {"$ref": f"#/components/schemas/{name}"}
    return {"anyOf": [item, {"type": "array", "items": item}, {"type": "null"}]}


def _list_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


def _bounds(schema: dict[str, Any]) -> dict[str, Any]:
    return _object({name: schema for name in _BOUNDS}, required=())


_STRINGS_OR_INTEGERS = {"anyOf": [_list_of({"type": "string"}), _list_of(_INTEGER)]}
_MATCH = {
    "anyOf": [
        _object({"value": {"anyOf": [{"type": "string"}, _INTEGER, {"type": "boolean"}]}}),
        _object({"any": _STRINGS_OR_INTEGERS}),
        _object({"except": _STRINGS_OR_INTEGERS}),
        _object({"text": {"type": "string"}}),
    ]
}
_RANGE = {
    "anyOf": [
        _bounds({"anyOf": [{"type": "number"}, {"type": "null"}]}),
        _bounds({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
    ]
}
_FIELD = {"type": "object", "properties": {"key": _KEY}, "required": ["key"], "additionalProperties": False}


def _filter(condition: str) -> dict[str, Any]:
    several = _list_of({"$ref": f"#/components/schemas/{condition}"})
    at_least = _object({"conditions": several, "min_count": {"type": "integer", "minimum": 0, "maximum": 10_000}})
    kinds = {name: _one_or_many(condition) for name in ("must", "should", "must_not")}
    return _object({**kinds, "min_should": {"anyOf": [at_least, {"type": "null"}]}}, required=())


def _conditions(own: str) -> list[dict[str, Any]]:
    return [
        _object({"key": _KEY, "match": _MATCH}),
        _object({"key": _KEY, "range": _RANGE}),
        _object({"key": _KEY, "values_count": _bounds(_COUNT)}),
        _object({"key": _KEY, "is_empty": {"type": "boolean"}}),
        _object({"key": _KEY, "is_null": {"type": "boolean"}}),
        _object({"is_empty": _FIELD}),
        _object({"is_null": _FIELD}),
        _object({"nested": _object({"key": _KEY, "filter": {"$ref": "#/components/schemas/NestedFilter"}})}),
        {"$ref": f"#/components/schemas/{own}"},
    ]


SCHEMAS: dict[str, Any] = {
    "Filter": {
        "description": "A Qdrant filter: all of must, none of must_not, at least one of should.",
        **_filter("Condition"),
        "examples": [{"must": [{"key": "metadata.year", "range": {"gte": 2020}}]}],
    },
    "Condition": {
        "description": "A condition on a field, on ids, on the objects of an array, or a filter in a filter.",
        "anyOf": [
            _object({"has_id": _list_of({"type": "string", "format": "uuid"})}),
            *_conditions("Filter"),
        ],
    },
    "NestedFilter": {
        "description": "A filter on the objects of an array, which have no ids.",
        **_filter("NestedCondition"),
    },
    "NestedCondition": {
        "description": "A condition on a field of such an object, on the objects of an array in it, or a filter.",
        "anyOf": _conditions("NestedFilter"),
    },
}
"""The components that filters consist of."""


def _usable(where: dict[str, Any]) -> dict[str, Any]:
    exact: dict[str, Any] = _with_integers(where)
    parse_filter(exact)
    return exact


def _with_integers(value: Any) -> Any:
    # JSON Schema counts 5.0 as an integer, the stores do not.
    if isinstance(value, dict):
        return {name: _with_integers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_integers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


WhereFilter = Annotated[
    dict[str, Any], AfterValidator(_usable), WithJsonSchema({"type": "object", COMPONENT: "Filter"})
]
"""A filter as the stores take it."""
