"""Connections: ended when a client is too slow, and written to in as few pieces as can be."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEADER_BYTES = 64 * 1024
_JOINED_BYTES = 64 * 1024
_REFUSED = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


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
        self.headers_came()
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
        self.headers_came()
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

    def headers_came(self) -> None:
        """End the time for headers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: bytes) -> None:
        self.headers_came()
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
