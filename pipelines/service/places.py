"""Which paths there are and which methods they know, for answers that are given before or instead of routing."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.routing import APIRoute


class Places:
    """The paths of some routers.

    Args:
        routers: The routers.
    """

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._places = [(route.path_regex, route.path_format, frozenset(route.methods or ())) for route in routes]

    def route(self, path: str) -> str | None:
        """The path with placeholders; ``None`` where there is no such path."""
        return next((shown for pattern, shown, _ in self._places if pattern.match(path)), None)

    def all(self) -> frozenset[str]:
        """Every path, with placeholders."""
        return frozenset(shown for _, shown, _ in self._places)

    def methods(self, path: str) -> list[str]:
        """The methods that a path knows; one that is written out hides those with placeholders."""
        shown = self.route(path)
        return sorted({method for _, other, known in self._places if other == shown for method in known})
