"""The page at ``/``: hand-written HTML, CSS and modules from the wheel, which call nothing but this service."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from mimetypes import MimeTypes

from fastapi import APIRouter, Request, Response

__all__ = ["ASSETS", "Asset", "FOLDER", "HEADERS", "PAGE", "playground_router"]

PAGE = "index.html"
FOLDER = "/playground"
ASSETS = (
    PAGE,
    "address.js",
    "api.js",
    "element.js",
    "facts.js",
    "filters.js",
    "icon.svg",
    "ingest.js",
    "key.js",
    "keyboard.js",
    "lines.js",
    "main.js",
    "numbers.js",
    "results.js",
    "search.js",
    "settings.js",
    "style.css",
    "table.js",
    "theme-button.js",
    "theme.js",
    "timings.js",
)
"""What is served, and nothing else: no path of a request is ever looked up in a folder."""

HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Nobody may make markup of a string here, so that no text of a document can become any.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    # Kept by the browser, and asked for again with its tag every time.
    "cache-control": "no-cache",
}
_TYPES = MimeTypes()
_TYPES.add_type("text/javascript", ".js")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page.

    Args:
        content: As it is sent.
        media_type: With the encoding where it is text.
        tag: Strong entity tag.
    """

    content: bytes
    media_type: str
    tag: str


def _load(name: str) -> Asset:
    content = (files(__name__) / "assets" / name).read_bytes()
    kind = _TYPES.guess_type(name)[0]
    charset = "" if kind == "image/svg+xml" else "; charset=utf-8"
    return Asset(content, f"{kind}{charset}", f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def playground_router() -> APIRouter:
    """The routes of the page; they need no key, for what they send is in the wheel of everybody."""
    router = APIRouter()
    for name in ASSETS:
        place = "/" if name == PAGE else f"{FOLDER}/{name}"
        router.add_api_route(place, _endpoint(_load(name)), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _endpoint(asset: Asset) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        headers = {**HEADERS, "etag": asset.tag}
        if _has(request.headers.get("if-none-match", ""), asset.tag):
            return Response(None, 304, headers)
        return Response(asset.content, 200, headers, media_type=asset.media_type)

    return answer


def _has(tags: str, tag: str) -> bool:
    known = {known.strip().removeprefix("W/") for known in tags.split(",")}
    return tag in known or "*" in known
