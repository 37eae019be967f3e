"""Server-sent events to a reader that may be slow, or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Any

from fastapi import Response
from starlette.types import Receive, Scope, Send

from pipelines.service.limits import until_gone


def event(name: str, data: str, number: int) -> bytes:
    """One event.

    Args:
        name: What happened.
        data: JSON on one line.
        number: Grows from event to event.
    """
    return f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode()


class EventStream(Response):
    """Sends what an iterator gives until it ends or the client goes.

    Nothing is made that cannot be sent: the iterator is asked for the next event when the client has taken the last.

    Args:
        events: The events, as bytes.
        counted: Entered while the stream runs; it may refuse.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], counted: AbstractContextManager[Any]) -> None:
        super().__init__(None)
        del self.headers["content-length"]
        self._events = events
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._counted:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            gone = asyncio.ensure_future(until_gone(receive))
            try:
                await self._send_events(send, gone)
            finally:
                gone.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await gone

    async def _send_events(self, send: Send, gone: asyncio.Future[None]) -> None:
        while True:
            following = asyncio.ensure_future(self._next())
            try:
                await asyncio.wait((following, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not following.done():
                    following.cancel()
            if gone.done():
                return
            part = following.result()
            await send({"type": "http.response.body", "body": part, "more_body": bool(part)})
            if not part:
                return

    async def _next(self) -> bytes:
        return await anext(self._events, b"")
