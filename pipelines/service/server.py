"""The process that serves: uvicorn, with limits on slow headers, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipelines.service.config import ServiceConfig
from pipelines.service.core import Service
from pipelines.service.limits import ClientGoneError
from pipelines.service.logs import configure_logging, log
from pipelines.service.origins import is_loopback
from pipelines.tracing_http import trace_requests
from retrieval.errors import ConfigError

_HEADER_BYTES = 64 * 1024
_BACKLOG = 1024
_JOINED_BYTES = 64 * 1024
_REFUSED = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def require_safe(config: ServiceConfig) -> None:
    """Refuse to serve other machines without keys.

    Raises:
        ConfigError: No keys are configured and the host is not this machine.
    """
    if not config.keys and not is_loopback(config.host) and not config.insecure:
        raise ConfigError(
            f"host {config.host} can be reached from other machines and no keys are configured; list some under "
            "service.keys, or say --insecure if whoever reaches the port may do everything"
        )


def bind(config: ServiceConfig) -> socket.socket:
    """The listening socket; nobody is answered before `serve`.

    Raises:
        OSError: The address is in use or not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"service.host {config.host!r} is no address or name of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{config.host} port {config.port}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listening socket can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def serve(app: FastAPI, listener: socket.socket, *, on_started: Callable[[], None] = lambda: None) -> None:
    """Answer until SIGTERM or SIGINT, then let running requests end and jobs end or stop.

    A second signal ends at once what still runs.

    Args:
        app: What `create_app` made.
        listener: Listening socket; it is closed.
        on_started: Called when requests are answered.
    """
    service: Service = app.state.service
    config = service.config
    configure_logging()
    logging.getLogger("uvicorn.error").addFilter(_expected)
    timeouts = config.timeouts

    class Protocol(GuardedProtocol):
        header_seconds = timeouts.header
        write_seconds = timeouts.write

    settings = uvicorn.Config(
        trace_requests(app, [route for _, route in app.state.fast_paths]),
        http=Protocol,
        loop="auto",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, round(timeouts.keep_alive)),
        timeout_graceful_shutdown=max(1, round(timeouts.drain)),
    )
    DrainingServer(settings, service, on_started).run(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """Tells the service that the end has come before it stops to accept connections.

    Args:
        config: Of uvicorn.
        service: Told to drain.
        on_started: Called when requests are answered.
    """

    def __init__(self, config: uvicorn.Config, service: Service, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = service
        self._on_started = on_started
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at the second signal, end at once."""
        if self._loop is None:
            self.should_exit = True
        elif self._service.draining:
            self.should_exit = self.force_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin_to_end, self._loop, sig)

    def _begin_to_end(self, loop: asyncio.AbstractEventLoop, sig: int) -> None:
        self._service.drain()
        log("draining", signal=signal.Signals(sig).name)
        # Whoever spreads requests over several services hears first that this one is not ready any more.
        wait = self._service.config.timeouts.lame_duck if sig == signal.SIGTERM else 0.0
        loop.call_later(wait, setattr, self, "should_exit", True)


class GuardedProtocol(HttpToolsProtocol):
    """Ends connections whose request headers come too slowly or are too long, and those that take no more of an answer.

    Uvicorn waits for all of them for ever: an answer that was handed over as a whole has no call that could time out.
    """

    header_seconds = 10.0
    write_seconds = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first headers their time."""
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._headers_came()
        self._written()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete."""
        if self._timer is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._header_bytes > _HEADER_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Give the headers of the next request their time."""
        super().on_message_begin()
        if self._timer is None:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        """Take the headers."""
        self._headers_came()
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = JoinedWrites(self.cycle.transport, self.loop)  # type: ignore[assignment]

    def pause_writing(self) -> None:
        """Begin to look whether the client takes anything."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """End to look: the client has taken most of it."""
        self._written()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, also where the end of the last answer still waits to be taken."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch_writing(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(self.write_seconds, self._check_writing, left)

    def _check_writing(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._watch_writing()
        else:
            # To close it would wait for the client.
            self.transport.abort()

    def _written(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._timer = self.loop.call_later(self.header_seconds, self._refuse, b"408 Request Timeout")

    def _headers_came(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: bytes) -> None:
        self._headers_came()
        if not self.transport.is_closing():
            self.transport.write(_REFUSED % status)
            self.transport.close()


class JoinedWrites:
    """Sends the head of an answer together with the body that follows at once: one packet, which wakes the client once.

    Args:
        transport: Of the connection.
        loop: Sends a head by itself when nothing has followed in this turn, as for a stream of events.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._begun = False
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Keep the first thing that is written until the second, but not beyond this turn of the loop."""
        if not self._begun:
            self._begun, self._head = True, data
            self._loop.call_soon(self._flush)
        elif self._head is not None and len(data) <= _JOINED_BYTES:
            head, self._head = self._head, None
            self._transport.write(head + data)
        else:
            self._flush()
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection when everything is sent."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)


def _expected(record: logging.LogRecord) -> bool:
    """Whether uvicorn's complaint is about something else than a client that went away, which is no error here."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClientGoneError))
