"""The process that serves: uvicorn, with limits on slow headers, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from pipelines.listening import bind
from pipelines.service.config import ServiceConfig
from pipelines.service.core import Service
from pipelines.service.limits import ClientGoneError
from pipelines.service.logs import configure_logging, log
from pipelines.service.origins import is_loopback
from pipelines.service.shortcut import ShortcutProtocol
from pipelines.tracing_http import trace_requests
from retrieval.errors import ConfigError

_BACKLOG = 1024


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


def listen(config: ServiceConfig) -> socket.socket:
    """The listening socket of a configuration; nobody is answered before `serve`.

    Raises:
        ConfigError: The host is no address of this machine.
        OSError: The address is in use.
    """
    return bind(config.host, config.port, named="service.host", backlog=_BACKLOG)


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

    class Protocol(ShortcutProtocol):
        shortcut = app.state.shortcut
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


def _expected(record: logging.LogRecord) -> bool:
    """Whether uvicorn's complaint is about something else than a client that went away, which is no error here."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClientGoneError))
