"""What the engine needs of the system's allocator.

For every batch that is written the engine copies the points and frees the copies; meanwhile what it keeps for good, the
lists of its BM25 index first of all, grows a little. In one heap the two mix: after 200,000 passages glibc spends a
fifth of an ingest looking for free pieces between the kept ones. Two settings keep them apart
(``benchmarks/notes.md``): a thread of its own, to which glibc gives a heap of its own, and no fast bins, so that freed
neighbours become one piece at once.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

R = TypeVar("R")
_M_MXFAST = 1


class OwnHeap:
    """Runs calls one after the other on a thread of their own; on systems without glibc, where they are."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._starting = threading.Lock()

    def run(self, call: Callable[[], R]) -> R:
        """Run a call, give its result, or raise its error."""
        if _of_glibc("mallopt") is None:
            return call()
        try:
            answer = self._started().submit(call)
        except RuntimeError:  # the interpreter is ending and starts no thread
            return call()
        return answer.result()

    def close(self) -> None:
        """End the thread; the next call starts another."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()

    def _started(self) -> ThreadPoolExecutor:
        with self._starting:
            if self._thread is None:
                mallopt = _of_glibc("mallopt")
                if mallopt is not None:
                    mallopt(_M_MXFAST, 0)
                self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retrieval-engine")
            return self._thread


def return_memory() -> None:
    """Give what the engine has freed back to the system, which glibc keeps: some 3 KB for each point written."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
