"""The requests that `tests.qdrant_double` understands, and what carries them out."""

from __future__ import annotations

import email
import email.policy
import json
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.qdrant_double_engine import Engine, RefusedError


@dataclass(frozen=True)
class Request:
    """What a route gets."""

    path: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Plain:
    """An answer that is not wrapped as ``result``."""

    value: Any


Route = Callable[[Engine, Request], Any]


def _updated(use: Callable[[Engine, Request], None]) -> Route:
    def route(engine: Engine, request: Request) -> dict[str, Any]:
        use(engine, request)
        waited = request.query.get("wait") == "true"
        return {"operation_id": 1, "status": "completed" if waited else "acknowledged"}

    return route


def _recover(engine: Engine, request: Request) -> bool:
    location, checksum = request.json["location"], request.json.get("checksum")
    parts = urlsplit(location)
    stored = re.fullmatch(r"/collections/([^/]+)/snapshots/([^/]+)", parts.path)
    # A location on this server: asking ourselves over HTTP would wait for our own lock.
    if parts.scheme in {"http", "https"} and stored and parts.netloc == request.headers.get("host"):
        return engine.recover(request.path[0], engine.snapshot(*map(unquote, stored.groups())), checksum)
    if parts.scheme not in {"http", "https", "file"}:
        raise RefusedError(400, f"Bad request: Invalid snapshot URI, {location}")
    try:
        with urllib.request.urlopen(location, timeout=10) as answer:
            data = answer.read()
    except OSError as error:
        raise RefusedError(400, f"Bad request: Failed to download snapshot from {location}: {error}") from error
    return engine.recover(request.path[0], data, checksum)


def _upload(engine: Engine, request: Request) -> bool:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.body, policy=email.policy.HTTP)
    parts = [p for p in message.iter_parts() if p.get_param("name", header="content-disposition") == "snapshot"]
    if not parts:
        raise RefusedError(400, "Bad request: field `snapshot` is missing")
    return engine.recover(request.path[0], parts[0].get_payload(decode=True), request.query.get("checksum"))


C = r"/collections/([^/]+)"
ROUTES: list[tuple[str, str, Route]] = [
    ("GET", "/", lambda e, r: Plain({"title": "qdrant - vector search engine", "version": "1.20.0"})),
    ("GET", "/(?:healthz|readyz|livez)", lambda e, r: Plain("healthz check passed")),
    ("GET", "/cluster", lambda e, r: {"status": "disabled"}),
    ("GET", "/collections", lambda e, r: {"collections": [{"name": name} for name in e.collections()]}),
    ("GET", "/aliases", lambda e, r: {"aliases": e.aliases()}),
    ("POST", "/collections/aliases", lambda e, r: e.change_aliases(r.json)),
    ("PUT", C, lambda e, r: e.create(r.path[0], r.json)),
    ("PATCH", C, lambda e, r: e.update(r.path[0], r.json)),
    ("DELETE", C, lambda e, r: e.delete(r.path[0])),
    ("GET", C, lambda e, r: e.info(r.path[0])),
    ("GET", f"{C}/exists", lambda e, r: {"exists": e.exists(r.path[0])}),
    ("GET", f"{C}/aliases", lambda e, r: {"aliases": e.aliases(r.path[0])}),
    ("GET", f"{C}/cluster", lambda e, r: e.cluster(r.path[0])),
    ("PUT", f"{C}/index", _updated(lambda e, r: e.create_index(r.path[0], r.json))),
    ("DELETE", f"{C}/index/([^/]+)", _updated(lambda e, r: e.delete_index(*r.path))),
    ("PUT", f"{C}/points", _updated(lambda e, r: e.upsert(r.path[0], r.json))),
    ("POST", f"{C}/points", lambda e, r: e.retrieve(r.path[0], r.json)),
    ("POST", f"{C}/points/payload", _updated(lambda e, r: e.set_payload(r.path[0], r.json))),
    ("POST", f"{C}/points/delete", _updated(lambda e, r: e.delete_points(r.path[0], r.json))),
    ("POST", f"{C}/points/scroll", lambda e, r: e.scroll(r.path[0], r.json)),
    ("POST", f"{C}/points/count", lambda e, r: e.count(r.path[0], r.json)),
    ("POST", f"{C}/points/query", lambda e, r: e.query(r.path[0], r.json)),
    ("POST", f"{C}/points/query/batch", lambda e, r: e.query_batch(r.path[0], r.json)),
    ("POST", f"{C}/facet", lambda e, r: e.facet(r.path[0], r.json)),
    ("POST", f"{C}/snapshots", lambda e, r: e.create_snapshot(r.path[0])),
    ("GET", f"{C}/snapshots", lambda e, r: e.snapshots(r.path[0])),
    ("PUT", f"{C}/snapshots/recover", _recover),
    ("POST", f"{C}/snapshots/upload", _upload),
    ("GET", f"{C}/snapshots/([^/]+)", lambda e, r: e.snapshot(*r.path)),
    ("DELETE", f"{C}/snapshots/([^/]+)", lambda e, r: e.delete_snapshot(*r.path)),
]
