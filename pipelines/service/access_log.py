"""One line for each request, written many at a time: alone, a line would cost a short request a fifth of its time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import orjson

from pipelines.service.logs import LOG, log

_EVERY_S = 0.1
_MOST_LINES = 20_000
_LAST_S = 2.0
_EVENT = "request"


class AccessLog:
    """Collects lines on the event loop and lets a thread write them, at most 0.1 s later.

    Whoever reads the log slowly slows down no request: lines that find the buffer full are only counted. Before `start`
    and after `close` every line is written at once.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._left_out = 0
        self._batches: SimpleQueue[list[str] | None] = SimpleQueue()
        self._idle = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to collect; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._idle.set()
        # A daemon: a log that nobody reads must not keep the process alive.
        self._thread = threading.Thread(target=self._write, name="retrieval-access-log", daemon=True)
        self._thread.start()

    def add(self, **fields: Any) -> None:
        """Log a request.

        Args:
            fields: JSON values; no text of queries or documents.
        """
        if self._loop is None:
            log(_EVENT, **fields)
            return
        if len(self._lines) >= _MOST_LINES:
            self._left_out += 1
        elif LOG.isEnabledFor(logging.INFO):
            self._lines.append(_line(_EVENT, "info", fields))
        if self._timer is None:
            self._timer = self._loop.call_later(_EVERY_S, self._hand_over)

    def close(self) -> None:
        """Write what was collected; called on the event loop."""
        if self._loop is None or self._thread is None:
            return
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._batches.put(self._taken())
        self._batches.put(None)
        self._thread.join(_LAST_S)

    def _hand_over(self) -> None:
        self._timer = None
        if self._loop is None:
            return
        if self._idle.is_set():
            self._idle.clear()
            self._batches.put(self._taken())
        else:
            self._timer = self._loop.call_later(_EVERY_S, self._hand_over)

    def _taken(self) -> list[str]:
        lines, self._lines = self._lines, []
        if self._left_out:
            lines.append(_line("requests not logged", "warning", {"count": self._left_out}))
            self._left_out = 0
        return lines

    def _write(self) -> None:
        while (lines := self._batches.get()) is not None:
            if lines:
                LOG.handle(LOG.makeRecord(LOG.name, logging.INFO, "", 0, _EVENT, (), None, extra={"lines": lines}))
            self._idle.set()


def _line(event: str, level: str, fields: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return orjson.dumps({"time": moment, "level": level, "logger": LOG.name, "event": event, **fields}).decode()
