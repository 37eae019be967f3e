"""What goes over the wire: base models, and bounds from the configuration that the OpenAPI document shows too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipelines.service.config import LimitsConfig
from pipelines.service.errors import ServiceError

WITHOUT_NUL = r"^[^\x00]*$"


@dataclass(frozen=True, slots=True)
class Cap:
    """Annotates a field of a request whose upper bound is one of `LimitsConfig`.

    Args:
        limit: Name of the limit.
        each: Holds for each item of a list instead of for the value itself.
    """

    limit: str
    each: bool = False


class Wire(BaseModel):
    """Base of requests: strict types, no unknown keys, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Reply(BaseModel):
    """Base of answers: finite numbers, nothing that is not described."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _whole(value: Any) -> Any:
    # JSON Schema counts 5.0 as an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer; a bound goes between: ``Annotated[int, Field(ge=1), BeforeValidator(...)]``, as in `Count`."""
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
"""An integer from 1."""
CountOrNone = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
"""An integer from 0."""
Text = Annotated[str, Field(pattern=WITHOUT_NUL)]
"""A string without NUL."""


def check_caps(request: Wire, limits: LimitsConfig) -> None:
    """Refuse a request that asks for more than the configuration allows.

    Args:
        request: A request whose fields are annotated with `Cap`.
        limits: The limits.

    Raises:
        ServiceError: 422, naming every field that is too large.
    """
    errors = []
    for name, field in type(request).model_fields.items():
        value = getattr(request, name)
        for cap in field.metadata:
            if isinstance(cap, Cap) and value is not None:
                bound = getattr(limits, cap.limit)
                items = value if cap.each and isinstance(value, list) else [value]
                size = max((_size(item) for item in items), default=0)
                if size > bound:
                    errors.append({"loc": ["body", name], "message": f"{size:,} is more than {bound:,}"})
    if errors:
        raise ServiceError(422, "too_large", "the request asks for more than this service allows", errors=errors)


def _size(value: Any) -> float:
    return value if isinstance(value, int | float) else len(value)
