"""MCP over streamable HTTP: several clients, on this machine or, with a key, from others."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import FrameType
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings

from pipelines.mcp_server.limits import MESSAGE_BYTES
from retrieval.errors import ConfigError

PATH = "/mcp"
MIN_KEY_CHARACTERS = 16
BACKLOG = 128
_DRAIN_S = 3
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine only."""
    return host.strip("[]").lower() in {"127.0.0.1", "localhost", "::1"}


def read_key(name: str | None, host: str, *, insecure: bool) -> str | None:
    """The key that clients have to send, from an environment variable.

    Args:
        name: The variable; ``None`` for no key.
        host: Where to listen.
        insecure: Serve other machines without a key.

    Raises:
        ConfigError: The variable holds no usable key, or other machines would need none.
    """
    if name is None:
        if not is_loopback(host) and not insecure:
            raise ConfigError(
                f"host {host} can be reached from other machines and there is no key; name an environment variable "
                "with one (--key-env RETRIEVAL_MCP_KEY), or say --insecure if whoever reaches the port may search"
            )
        return None
    key = os.environ.get(name, "")
    if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        state = "is not set" if not key else "holds no usable key"
        raise ConfigError(
            f"--key-env: the environment variable {name} {state}; a key has at least {MIN_KEY_CHARACTERS} printable "
            "ASCII characters without blanks ('openssl rand -hex 32' makes one)"
        )
    return key


def http_app(server: Server[Any], *, host: str, key: str | None, allowed_hosts: Sequence[str] = ()) -> App:
    """The ASGI application.

    Web pages never get an answer: a request with a foreign ``Origin`` is refused, and without a key also one that was
    made for another host name, so that a page cannot reach the server by renaming itself (DNS rebinding).

    Args:
        server: What `create_server` made.
        host: Where it listens.
        key: The key that clients have to send; ``None`` for none.
        allowed_hosts: Further names that requests may be made for.
    """
    names = [name for base in (*_LOOPBACK, host, *allowed_hosts) for name in (base, f"{base}:*")]
    checked = key is None and (is_loopback(host) or bool(allowed_hosts))
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=checked, allowed_hosts=list(dict.fromkeys(names)), allowed_origins=[]
    )
    inner = server.streamable_http_app(
        streamable_http_path=PATH, max_request_body_size=MESSAGE_BYTES, transport_security=security, host=host
    )
    return _Guard(inner, key)


class _Guard:
    """Refuses requests of web pages, and those without the key, before anything else looks at them."""

    def __init__(self, app: App, key: str | None) -> None:
        self._app = app
        self._digest = None if key is None else hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if b"origin" in headers:
                await _refuse(send, 403, "web pages may not call this server")
                return
            if self._digest is not None and not self._knows(headers.get(b"authorization", b"")):
                await _refuse(send, 401, "a key is needed: Authorization: Bearer KEY")
                return
        await self._app(scope, receive, send)

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, key = authorization.partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        return scheme.lower() == b"bearer" and hmac.compare_digest(given, self._digest or b"")


async def _refuse(send: Send, status: int, message: str) -> None:
    body = message.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="retrieval"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve_http(app: App, listener: socket.socket, *, on_started: Callable[[], None] = lambda: None) -> None:
    """Answer until SIGTERM or Ctrl-C; open connections have a few seconds to end.

    Args:
        app: What `http_app` made.
        listener: Listening socket; it is closed.
        on_started: Called when requests are answered.
    """
    # Requests that are refused are no news, and every line of the SDK below a warning is not either.
    logging.getLogger("mcp").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    settings = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    _Uvicorn(settings, on_started).run(sockets=[listener])


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a complaint is about something else than a stream that was open when the server ended."""
    return "without completing response" not in record.getMessage()


class _Uvicorn(uvicorn.Server):
    """Says when it answers, and ends quietly on a signal."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
