"""The outermost layer, plain ASGI: request ids, keys, limits, metrics, the log, and an answer for every error.

Authentication happens here, before a byte of the body is read. Hot paths can be answered here too, before routing.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from pipelines.service.access_log import AccessLog
from pipelines.service.context import RequestContext, put_context
from pipelines.service.core import Service
from pipelines.service.errors import PROBLEM_TYPE, ServiceError, service_error, unavailable
from pipelines.service.limits import (
    ClientGoneError,
    LimitedBody,
    Message,
    Receive,
    Send,
    declared_length,
    linger,
    send_within,
    too_large,
)
from pipelines.service.logs import LOG
from pipelines.service.origins import Origins
from pipelines.service.places import Places
from retrieval.errors import RetrievalError

Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
FastPaths = Mapping[tuple[str, str], AsgiApp]
"""Method and path to an ASGI callable that answers them."""

OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json"})
UPLOAD_PATHS = frozenset({"/v1/ingest"})
_CLIENT_GONE = 499
_REASON_CHARACTERS = 500
# Two of one of these would be read one way here and perhaps another way by a proxy before us.
_SINGLE = frozenset({b"host", b"authorization", b"content-length", b"content-type", b"transfer-encoding", b"origin"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._\-]{1,128}")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Door:
    """Wraps the application.

    Args:
        app: The application behind.
        service: What requests share.
        places: The paths that there are.
        access: Log of requests.
        fast: Paths that are answered here instead; they get the context, the limits, the metrics and the answers to
            errors that every request gets, and authorize themselves.
        open_paths: Paths that need no key, besides `OPEN_PATHS`.
    """

    def __init__(
        self,
        app: AsgiApp,
        service: Service,
        places: Places,
        access: AccessLog,
        fast: FastPaths | None = None,
        open_paths: Collection[str] = (),
    ) -> None:
        self.app = app
        self._service = service
        self._access = access
        self._places = places
        self._fast = dict(fast or {})
        self._open = OPEN_PATHS.union(open_paths)
        self._origins = Origins(service.config, checked=not len(service.keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        context = RequestContext(request_id_of(headers), self._service.new_deadline())
        put_context(scope, context)
        answer = _Answer(send, context, self._service)
        self._service.metrics.in_flight.inc()
        body = context.receive = self._body(scope, receive, context)
        try:
            await self._answer(scope, headers, body, answer)
        except ClientGoneError:
            raise
        except asyncio.CancelledError:
            # The server cancels what is still running when the time to drain is over.
            if not self._service.draining or context.status:
                raise
            context.body_done = True
            await answer.problem(unavailable("closing", "the service is shutting down"), receive)
        except Exception as error:
            await self._refuse(error, scope, receive, answer)
        finally:
            self._service.metrics.in_flight.dec()
            self.account(scope["method"], self._route(scope, context), context, scope.get("client"))

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], body: LimitedBody, answer: _Answer) -> None:
        context = answer.context
        _require_clear(scope, headers)
        length = declared_length(headers.get(b"content-length"))
        context.body_done = not length and b"transfer-encoding" not in headers
        self._origins.check(headers)
        if scope["path"] not in self._open and not (scope["method"] == "OPTIONS" and b"origin" in headers):
            public = scope["path"] == "/metrics" and self._service.config.open_metrics
            if not public:
                context.principal = self._service.keys.authenticate(headers.get(b"authorization"))
                self._service.rates.check(context.principal)
        if length is not None and length > body.limit:
            raise too_large(body.limit)
        fast = self._fast.get((scope["method"], scope["path"]))
        if fast is not None:
            context.route = scope["path"]
            await fast(scope, body, answer.send)
            return
        await self.app(scope, body, answer.send)

    def _body(self, scope: Scope, receive: Receive, context: RequestContext) -> LimitedBody:
        config = self._service.config
        upload = scope["path"] in UPLOAD_PATHS
        return LimitedBody(
            receive,
            context,
            limit=config.limits.upload_bytes if upload else config.limits.body_bytes,
            seconds=config.timeouts.body,
            each_part=upload,
        )

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Answer an error, or end the connection where the answer has already begun."""
        context = answer.context
        refusal = service_error(error)
        if refusal is None or refusal.status_code >= 500:
            self._log(error, refusal, scope, context)
        if context.status:
            if answer.complete:
                return
            raise ClientGoneError("the answer had begun") from error
        if refusal is None:
            refusal = ServiceError(500, "internal", "something went wrong here; the log has it under the request id")
        if refusal.status_code == 405:
            refusal.headers = {"Allow": ", ".join(self._places.methods(scope["path"]) or ["GET"])}
        await answer.problem(refusal, receive)

    def _log(self, error: Exception, refusal: ServiceError | None, scope: Scope, context: RequestContext) -> None:
        """Log an error by its kind and the places it came through; the messages of our own errors quote no text."""
        fields: dict[str, Any] = {"request_id": context.request_id, "route": self._route(scope, context)}
        if refusal is not None:
            fields["code"] = refusal.code
        if isinstance(error, RetrievalError):
            fields["reason"] = str(error)[:_REASON_CHARACTERS]
        LOG.error("request failed", exc_info=(type(error), error, error.__traceback__), extra={"fields": fields})

    def _route(self, scope: Scope, context: RequestContext) -> str:
        """The path with placeholders; what no route knows shares one name, so that clients cannot make metrics."""
        found = context.route or getattr(scope.get("route"), "path_format", None)
        return found or self._places.route(scope["path"]) or "unmatched"

    def account(self, method: str, route: str, context: RequestContext, client: Any) -> None:
        """Count and log a request that is over.

        Args:
            method: HTTP method.
            route: Path with placeholders.
            context: Of the request.
            client: Its address and port, ``None`` where the server does not know them.
        """
        seconds = time.perf_counter() - context.started
        self._service.metrics.count(method, route, context.status or _CLIENT_GONE, seconds)
        if self._service.config.access_log:
            principal = context.principal
            self._access.add(
                request_id=context.request_id,
                method=method,
                route=route,
                status=context.status or _CLIENT_GONE,
                ms=round(seconds * 1000, 2),
                received=context.received,
                sent=context.sent,
                key=None if principal is None else principal.name,
                client=client[0] if client else None,
            )


class _Answer:
    """Sends an answer: adds the headers that every answer has, counts, and does not wait for a client for ever."""

    def __init__(self, send: Send, context: RequestContext, service: Service) -> None:
        self._send = send
        self.context = context
        self._service = service
        self._seconds = service.config.timeouts.write
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.context.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.context.request_id.encode())]
            own = {name for name, _ in headers}
            headers += [header for header in SECURITY_HEADERS if header[0] not in own]
            if self._service.draining or not self.context.body_done:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        else:
            self.context.sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await send_within(self._send, message, self._seconds)

    async def problem(self, error: ServiceError, receive: Receive) -> None:
        body = error.body(self.context.request_id)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in (error.headers or {}).items()]
        headers += [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": error.status_code, "headers": headers})
        unread = not self.context.body_done
        await self.send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await linger(receive)
            await self.send({"type": "http.response.body", "body": b""})


def _require_clear(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Refuse what two readers of the same bytes could take for different requests.

    Raises:
        ServiceError: 400, a header came twice or is missing, or the body has a coding of another kind than chunks.
    """
    given = scope["headers"]
    if len(headers) != len(given):
        names = [name for name, _ in given]
        twice = sorted(name.decode() for name in _SINGLE if names.count(name) > 1)
        if twice:
            raise ServiceError(400, "header_twice", f"the header {twice[0]} came twice; which one is meant?")
    if b"host" not in headers and scope.get("http_version") == "1.1":
        raise ServiceError(400, "host_missing", "HTTP/1.1 needs a Host header")
    if headers.get(b"transfer-encoding", b"chunked").strip().lower() != b"chunked":
        raise ServiceError(400, "transfer_encoding", "a body comes in one piece or in chunks, not in another coding")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that the client gives its request, or else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return f"{random.getrandbits(128):032x}"
