"""What keeps a short request short: calls that need no timer, and a log that is written many lines at a time."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.service import access_log
from pipelines.service.access_log import AccessLog
from pipelines.service.limits import within
from pipelines.service.logs import LOG, JsonFormatter


async def after(turns: int, result: Any) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    if isinstance(result, Exception):
        raise result
    return result


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_within_gives_results_and_errors_whether_or_not_it_waits(turns: int) -> None:
    assert asyncio.run(within(after(turns, "result"), 30)) == "result"
    with pytest.raises(KeyError, match="wrong"):
        asyncio.run(within(after(turns, KeyError("wrong")), 30))


def test_within_ends_what_takes_too_long() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        asyncio.run(within(slow(), 0.01))
    assert ended == ["cancelled"]


def test_within_a_call_that_has_its_result_is_never_too_late() -> None:
    assert asyncio.run(within(after(0, "result"), 0.0)) == "result"


def test_within_futures_tasks_and_calls_that_survive_a_first_cancellation() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "put away"

    async def all_of_them() -> None:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, future.set_result, "future")
        assert await within(future, 30) == "future"
        assert await within(asyncio.create_task(after(2, "task")), 30) == "task"
        assert await within(stubborn(), 0.01) == "put away"

    asyncio.run(all_of_them())


def test_within_is_cancelled_from_outside() -> None:
    async def cancel() -> None:
        task = asyncio.create_task(within(after(10**6, None), 30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


class Lines(logging.Handler):
    """Keeps what is written, and can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.stream = io.StringIO()
        self.batches = 0
        self.open = threading.Event()
        self.open.set()

    def emit(self, record: logging.LogRecord) -> None:
        self.open.wait(30)
        self.batches += 1
        self.stream.write(self.format(record) + "\n")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def written() -> Iterator[Lines]:
    handler, level = Lines(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    yield handler
    LOG.removeHandler(handler)
    LOG.setLevel(level)


def test_lines_of_requests_are_written_together_and_all_of_them(written: Lines) -> None:
    async def serve() -> None:
        log = AccessLog()
        log.start()
        for number in range(500):
            log.add(status=200, number=number, key=None)
        await asyncio.sleep(0.5)
        log.add(status=404, number=500)
        log.close()

    asyncio.run(serve())
    assert [line["number"] for line in written.lines] == list(range(501))
    assert written.batches == 2
    first = written.lines[0]
    assert list(first) == ["time", "level", "logger", "event", "status", "number", "key"]
    assert (first["level"], first["logger"], first["event"]) == ("info", "retrieval.service", "request")


def test_without_a_loop_lines_are_written_at_once(written: Lines) -> None:
    log = AccessLog()
    log.add(status=200)
    assert [line["status"] for line in written.lines] == [200]
    log.close()


def test_a_log_that_is_not_read_holds_nobody_up(written: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_MOST_LINES", 10)
    monkeypatch.setattr(access_log, "_EVERY_S", 0.01)

    async def serve() -> None:
        log = AccessLog()
        log.start()
        written.open.clear()
        log.add(number=0)
        await asyncio.sleep(0.1)  # the first line is stuck
        for number in range(1, 31):
            log.add(number=number)
        written.open.set()
        await asyncio.sleep(0.2)
        log.add(number=31)
        log.close()

    asyncio.run(serve())
    assert [line["number"] for line in written.lines if "number" in line] == [*range(11), 31]
    assert [(line["event"], line["count"]) for line in written.lines if "count" in line] == [
        ("requests not logged", 20)
    ]


def test_closing_does_not_wait_for_a_reader_for_ever(written: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_LAST_S", 0.05)

    async def serve() -> None:
        log = AccessLog()
        log.start()
        written.open.clear()
        log.add(number=0)
        log.close()

    asyncio.run(serve())
    assert written.lines == []
    written.open.set()


def test_a_level_above_leaves_requests_out(written: Lines) -> None:
    LOG.setLevel(logging.WARNING)

    async def serve() -> None:
        log = AccessLog()
        log.start()
        log.add(status=200)
        log.close()

    asyncio.run(serve())
    assert written.lines == []
