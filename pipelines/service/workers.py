"""Threads that do the work, and a queue in front of them that does not grow: who finds it full is told so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from pipelines.service.errors import ServiceError, saturated, unavailable
from pipelines.tracing import carry

Result = TypeVar("Result")
Observer = Callable[[float, float], None]

_FIRST_GUESS_S = 0.05
_WEIGHT_OF_LATEST = 0.1


class _TooLateError(Exception):
    """The time of a call was over when a thread was free."""


class _Call(Generic[Result]):
    def __init__(self, work: Callable[[], Result], deadline: float | None) -> None:
        self.work = work
        self.deadline = deadline
        self.queued = time.perf_counter()
        self.begun: float | None = None


class WorkerPool:
    """A few threads and a bounded queue; `submit` is called on the event loop.

    Args:
        workers: Threads.
        queue: Calls that may wait for a thread.
        on_done: Told the seconds in the queue and the seconds of work of every call that was begun.
        name: Of the threads.
    """

    def __init__(self, workers: int, queue: int, *, on_done: Observer | None = None, name: str = "worker") -> None:
        self.workers = workers
        self.queue = queue
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=f"retrieval-{name}")
        self._on_done = on_done
        self._pending = 0
        self._mean_s = _FIRST_GUESS_S

    @property
    def pending(self) -> int:
        """Calls that wait or are worked on."""
        return self._pending

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return max(0, self._pending - self.workers)

    @property
    def saturated(self) -> bool:
        """Whether the next call would be refused."""
        return self._pending >= self.workers + self.queue

    async def submit(self, work: Callable[[], Result], *, deadline: float | None) -> Result:
        """Run a call on a thread.

        A call that cannot be begun in time is taken out of the queue. One that is under way when its time is over
        cannot be stopped: its thread stays busy, and counts as busy, until it returns; so give the call the time that
        it has (`RequestContext.remaining`).

        Args:
            work: The call.
            deadline: Time of `time.monotonic` until which the result is needed; ``None`` for a call of the service
                itself, which is not refused and may take its time.

        Raises:
            ServiceError: 429, the queue is full, or the wait in it would be too long; 503, the time was over before a
                thread was free; 504, or before the call returned.
        """
        if deadline is not None and self.saturated:
            raise saturated("queue_full", "all workers are busy and the queue is full", self.expected_wait_s())
        if deadline is not None and self.waiting and self.expected_wait_s() > deadline - time.monotonic():
            raise saturated("queue_slow", "all workers are busy for longer than there is time", self.expected_wait_s())
        loop = asyncio.get_running_loop()
        call = _Call(carry(work), deadline)
        try:
            future = self._executor.submit(self._timed, call)
        except RuntimeError as error:
            raise unavailable("closing", "the service is shutting down") from error
        self._pending += 1
        # Whether the call has returned, not whether somebody still waits for it, decides when there is room again.
        future.add_done_callback(lambda done: _on_loop(loop, self._release))
        try:
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except _TooLateError:
            pass
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()
            if call.begun is not None:
                raise ServiceError(
                    504, "timeout", "the request took longer than it may; ask for less or give it more time"
                ) from None
        raise unavailable("queue_timeout", "the time was over before a worker was free", self.expected_wait_s())

    def expected_wait_s(self) -> float:
        """Seconds until a call that came now would be begun, as far as the last calls tell."""
        return self._mean_s * (self.waiting + 1) / self.workers

    def close(self, *, wait: bool = True) -> None:
        """End the threads when they have returned; calls in the queue are dropped."""
        self._executor.shutdown(wait=wait, cancel_futures=True)

    def _timed(self, call: _Call[Result]) -> Result:
        if call.deadline is not None and time.monotonic() >= call.deadline:
            raise _TooLateError
        call.begun = begun = time.perf_counter()
        try:
            return call.work()
        finally:
            seconds = time.perf_counter() - begun
            # Lost updates between threads do not matter: it is an estimate.
            self._mean_s += _WEIGHT_OF_LATEST * (seconds - self._mean_s)
            if self._on_done is not None:
                self._on_done(begun - call.queued, seconds)

    def _release(self) -> None:
        self._pending -= 1


def _on_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
