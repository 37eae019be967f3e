"""Calls that are kept on a thread, and so in a heap, of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from retrieval.stores.allocator import OwnHeap, return_memory

glibc = pytest.mark.skipif(sys.platform != "linux", reason="only glibc has heaps of threads")


class Panic(BaseException):
    """Like a panic of the engine, which is no Exception."""


@glibc
def test_all_calls_are_on_one_other_thread() -> None:
    heap = OwnHeap()
    threads = {heap.run(threading.get_ident) for _ in range(5)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    heap.close()


def test_errors_of_every_kind_arrive() -> None:
    def fail(error: BaseException) -> None:
        raise error

    heap = OwnHeap()
    for error in (ValueError("no"), Panic("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            heap.run(lambda error=error: fail(error))  # type: ignore[misc]
    assert heap.run(lambda: 1) == 1
    heap.close()


def test_after_closing_the_next_call_starts_again() -> None:
    heap = OwnHeap()
    assert heap.run(lambda: 1) == 1
    heap.close()
    heap.close()
    assert heap.run(lambda: 2) == 2
    heap.close()


def test_calls_of_several_threads_come_one_after_the_other() -> None:
    heap, inside, most = OwnHeap(), [0], [0]

    def call() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1

    with ThreadPoolExecutor(4) as callers:
        for _ in range(200):
            callers.submit(heap.run, call)
    assert (inside, most) == ([0], [1])
    heap.close()


def test_an_ending_interpreter_still_runs_calls() -> None:
    program = (
        "import atexit\n"
        "from retrieval.stores.allocator import OwnHeap\n"
        "heap = OwnHeap()\n"
        "atexit.register(lambda: print(heap.run(lambda: 'run'), flush=True))\n"
        "print(heap.run(lambda: 'before'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["before", "run"]


def test_returning_memory_changes_nothing_that_is_held() -> None:
    held = bytearray(range(256)) * 4_096
    return_memory()
    assert held == bytearray(range(256)) * 4_096
