"""How much and how slowly a client may send, and how slowly it may read; pure ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from typing import Any, TypeVar

from pipelines.service.context import RequestContext
from pipelines.service.errors import ServiceError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Result = TypeVar("Result")

_LINGER_S = 5.0
_LINGER_IDLE_S = 1.0
_LINGER_BYTES = 64 * 2**20


class ClientGoneError(Exception):
    """The client has closed the connection, or takes no more of the answer."""


def declared_length(value: bytes | None) -> int | None:
    """The number in a ``Content-Length``, ``None`` where there is none."""
    return int(value) if value is not None and value.isdigit() and len(value) < 20 else None


def too_large(limit: int) -> ServiceError:
    """413 for a body over the limit."""
    return ServiceError(413, "body_too_large", f"the body has more than {limit:,} bytes, the most that is read here")


class LimitedBody:
    """Receives a body: at most so many bytes, and no slower than it may come.

    Args:
        receive: Of the server.
        context: Of the request; counts what has come.
        limit: Bytes.
        seconds: For the whole body, or for each part of it.
        each_part: Whether the time begins anew with every part, for uploads of any length.
    """

    def __init__(
        self, receive: Receive, context: RequestContext, *, limit: int, seconds: float, each_part: bool
    ) -> None:
        self._receive = receive
        self._context = context
        self.limit = limit
        self._seconds = seconds
        self._each_part = each_part
        self._until = time.monotonic() + seconds

    async def __call__(self) -> Message:
        """The next message of the server.

        Raises:
            ServiceError: 413, the body is too long; 408, it comes too slowly.
        """
        if self._context.body_done:
            return await self._receive()
        seconds = self._seconds if self._each_part else self._until - time.monotonic()
        try:
            message = await within(self._receive(), max(0.0, seconds))
        except TimeoutError:
            raise ServiceError(408, "body_too_slow", "the body of the request did not come in time") from None
        if message["type"] == "http.disconnect":
            self._context.body_done = True
            return message
        self._context.received += len(message.get("body", b""))
        self._context.body_done = not message.get("more_body", False)
        if self._context.received > self.limit:
            raise too_large(self.limit)
        return message


async def within(call: Awaitable[Result], seconds: float) -> Result:
    """Wait for a call for at most so many seconds; one that has its result at once costs no timer.

    Most calls of a server do: the body is there with the headers, and the buffer of the socket takes the answer.

    Raises:
        TimeoutError: The time is over; the call was cancelled.
    """
    if not isinstance(call, types.CoroutineType):
        async with asyncio.timeout(seconds):
            return await call
    try:
        wanted = call.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _rest(call, wanted)


@types.coroutine
def _rest(call: Coroutine[Any, Any, Result], wanted: Any) -> Generator[Any, Any, Result]:
    """Go on with a coroutine that has begun and wants something of the event loop."""
    while True:
        thrown: BaseException | None = None
        given: Any = None
        try:
            given = yield wanted
        except BaseException as error:
            thrown = error
        try:
            wanted = call.send(given) if thrown is None else call.throw(thrown)
        except StopIteration as done:
            result: Result = done.value
            return result


async def linger(receive: Receive) -> None:
    """Read on for a moment what a client still sends, so that it gets to read the answer before the connection ends."""
    read = 0
    until = time.monotonic() + _LINGER_S
    with contextlib.suppress(TimeoutError):
        while read < _LINGER_BYTES and time.monotonic() < until:
            async with asyncio.timeout(_LINGER_IDLE_S):
                message = await receive()
            read += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return


async def send_within(send: Send, message: Message, seconds: float) -> None:
    """Send a message to a client that takes it in time.

    Raises:
        ClientGoneError: It does not.
    """
    try:
        await within(send(message), seconds)
    except TimeoutError:
        raise ClientGoneError("the client takes no more of the answer") from None


async def unless_gone(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Wait for something that is not worth it any more when the client has gone; for requests whose body was read.

    Args:
        work: What to wait for; it is cancelled when the client goes.
        receive: Of the request.

    Raises:
        ClientGoneError: The client went.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError("the client went while its request was waiting")
    finally:
        task.cancel()
        gone.cancel()


async def until_gone(receive: Receive) -> None:
    """Wait until the client has gone; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
