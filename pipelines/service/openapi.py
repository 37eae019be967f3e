"""The OpenAPI document: every status that an operation can answer, in the one shape, and the configured bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field

from pipelines.service.config import LimitsConfig
from pipelines.service.errors import PROBLEM_TYPE
from pipelines.service.filters import COMPONENT
from pipelines.service.wire import Cap

_REF = {"$ref": "#/components/schemas/Problem"}
ALWAYS = (400, 401, 403, 408, 413, 421, 422, 429, 500, 503, 504)
"""What the door, the keys, the limits and the workers answer on every path that needs a key."""


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    model_config = ConfigDict(extra="forbid")
    loc: list[str | int]
    message: str


class OpenAIError(BaseModel):
    """The same in the shape that OpenAI's clients look for."""

    model_config = ConfigDict(extra="forbid")
    message: str
    type: str
    param: None
    code: str


class Problem(BaseModel):
    """Why a request was not answered as asked (RFC 9457)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Too Many Requests",
                "status": 429,
                "code": "queue_full",
                "detail": "all workers are busy and the queue is full",
                "request_id": "0d9f4c0f7e3c4d5fb5a2a5f5d9f0a1b2",
                "error": {
                    "message": "all workers are busy and the queue is full",
                    "type": "queue_full",
                    "param": None,
                    "code": "queue_full",
                },
            }
        },
    )
    type: str
    title: str
    status: int = Field(ge=400, le=599)
    code: str = Field(description="short name of the error, for programs")
    detail: str = Field(description="one sentence, for a person")
    request_id: str
    errors: list[FieldProblem] | None = None
    error: OpenAIError


def problems(*statuses: int, always: Iterable[int] = ALWAYS) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: the errors that it can answer.

    Args:
        statuses: Those of the route itself.
        always: Those of every route.
    """
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": _REF}},
            **({"headers": _RETRY_AFTER} if status in {429, 503} else {}),
        }
        for status in sorted({*statuses, *always})
    }


_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}


def document(
    app: FastAPI,
    limits: LimitsConfig,
    models: Iterable[type[BaseModel]],
    components: Mapping[str, Any],
    *,
    keyed: bool,
) -> dict[str, Any]:
    """Build the document.

    Args:
        app: The application with all of its routes.
        limits: Bounds to write into the schemas.
        models: Requests whose fields are annotated with `Cap`.
        components: Further schemas, which others refer to by their name.
        keyed: Whether keys are needed.
    """
    schema = get_openapi(
        title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes
    )
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {}) | {"Problem": problem} | components
    for model in models:
        if model.__name__ in schemas:
            _write_caps(schemas[model.__name__], model, limits)
    _refer_to_components(schema)
    if not keyed:
        schema["components"].pop("securitySchemes", None)
        for item in schema["paths"].values():
            for operation in item.values():
                operation.pop("security", None)
    return schema


def _refer_to_components(schema: Any) -> None:
    """Put a reference in the place of every schema that is marked as a component."""
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _refer_to_components(value)
    if isinstance(schema, dict) and COMPONENT in schema:
        name = schema[COMPONENT]
        schema.clear()
        schema["$ref"] = f"#/components/schemas/{name}"


def _write_caps(schema: dict[str, Any], model: type[BaseModel], limits: LimitsConfig) -> None:
    for name, field in model.model_fields.items():
        for cap in field.metadata:
            if not isinstance(cap, Cap):
                continue
            target = schema["properties"][field.alias or name]
            for branch in target.get("anyOf", [target]):
                _cap(branch["items"] if cap.each and "items" in branch else branch, getattr(limits, cap.limit))


def _cap(schema: dict[str, Any], bound: int) -> None:
    keyword = {"integer": "maximum", "number": "maximum", "string": "maxLength", "array": "maxItems"}
    kind = schema.get("type")
    if kind in keyword:
        schema[keyword[kind]] = bound
