"""Requests, read strictly: no NaN, no half surrogate pairs, no nesting without end, no unknown parameter."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from pipelines.service.errors import ServiceError


def parse_json(data: bytes) -> Any:
    """A JSON value.

    Raises:
        JSONDecodeError: The bytes are not UTF-8 or not JSON, hold NaN, Infinity or half a surrogate pair, or are
            nested too deep. A number too large for a float becomes infinite; the models of the requests refuse that.
    """
    try:
        return from_json(data, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from None


class StrictRequest(Request):
    """A request whose `json` is strict."""

    async def json(self) -> Any:
        """The body as a JSON value."""
        if not hasattr(self, "_strict"):
            self._strict = parse_json(await self.body())
        return self._strict


def _require_json(content_type: str | None) -> None:
    if content_type is None:
        return  # FastAPI takes the body for none
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ServiceError(415, "unsupported_media_type", "send the body as application/json")


def _require_known(request: Request, known: frozenset[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        raise ServiceError(
            422,
            "unknown_parameter",
            f"the path takes {', '.join(sorted(known))} after the '?', not {unknown[0][:100]!r}",
        )


class StrictRoute(APIRoute):
    """A route that reads its body with `StrictRequest`; the ``route_class`` of every router here.

    One that takes parameters in the query refuses others, so that a misspelt one does not go unnoticed.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of FastAPI, given a strict request."""
        handler = super().get_route_handler()
        known = frozenset(parameter.alias for parameter in self.dependant.query_params)

        async def strict(request: Request) -> Response:
            if self.body_field is not None:
                _require_json(request.headers.get("content-type"))
            if known:
                _require_known(request, known)
            return await handler(StrictRequest(request.scope, request.receive))

        return strict
