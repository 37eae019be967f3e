"""MCP over standard input and output: one client, which started this process and ends it by closing the input."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from pipelines.mcp_server.limits import MESSAGE_BYTES


class InputLines:
    """The lines of standard input, read by a thread of their own.

    The thread waits in a read that nothing can end but the client, so it must not be one that the process waits for:
    otherwise SIGTERM would have no effect while the client keeps the pipe open. Standard input itself becomes empty for
    everybody else in the process, children included.

    Args:
        loop: Where the lines are wanted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._room = threading.Semaphore(64)
        descriptor = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._file = os.fdopen(descriptor, "rb")
        threading.Thread(target=self._read, name="retrieval-mcp-stdin", daemon=True).start()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._each()

    async def _each(self) -> AsyncIterator[str]:
        while (line := await self._lines.get()) is not None:
            self._room.release()
            yield line

    def _read(self) -> None:
        with self._file, contextlib.suppress(OSError):
            while line := self._file.readline(MESSAGE_BYTES + 1):
                if len(line) > MESSAGE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = self._file.readline(MESSAGE_BYTES)
                    line = b"too long"  # not JSON: the client is told so
                self._room.acquire()
                self._put(line.decode("utf-8", "replace"))
        self._put(None)

    def _put(self, line: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


def serve_stdio(server: Server[Any]) -> None:
    """Answer until the client closes the input, SIGTERM or Ctrl-C.

    Everything but the protocol that anybody writes to standard output goes to standard error meanwhile.

    Args:
        server: What `create_server` made.
    """
    asyncio.run(_serve(server))


async def _serve(server: Server[Any]) -> None:
    loop = asyncio.get_running_loop()
    serving = asyncio.ensure_future(_answer(server, InputLines(loop)))
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, serving.cancel)
        except NotImplementedError:  # Windows: the default ends the process, and its locks with it
            break
    try:
        await serving
    except asyncio.CancelledError:
        pass
    except BaseException as error:
        if not _is_closed_pipe(error):
            raise


async def _answer(server: Server[Any], lines: InputLines) -> None:
    async with stdio_server(stdin=cast(Any, lines)) as (read, write):
        sys.stdout.flush()
        await server.run(read, write, server.create_initialization_options())


def _is_closed_pipe(error: BaseException) -> bool:
    """Whether all that went wrong is that the client does not read any more."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_closed_pipe(one) for one in error.exceptions)
    return isinstance(error, BrokenPipeError)
