"""Texts as one buffer of bytes, and the threads that work on several buffers at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")

_CHARACTERS = 2**18
_TEXTS = 2**14
_AFTER = bytes(16)  # the kernels read 8 bytes at a time


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Texts behind each other in UTF-8, a line end after each.

    Args:
        text: uint8, with a few bytes behind the last text.
        offsets: int64 (texts + 1,), where each text starts.
    """

    text: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        """How many texts."""
        return len(self.offsets) - 1

    @classmethod
    def of(cls, texts: Sequence[str]) -> Block:
        """Texts as a block; half a surrogate pair becomes a question mark, as it does for the tokenizer."""
        encoded = list(map(str.encode, texts, repeat("utf-8"), repeat("replace")))
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1, out=offsets[1:])
        encoded.append(_AFTER)
        return cls(np.frombuffer(b"\n".join(encoded), np.uint8), offsets)


def bounds(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where to cut many texts into blocks."""
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        end = min(start + _TEXTS, int(np.searchsorted(ends, before + _CHARACTERS)) + 1, len(texts))
        yield start, end
        start = end


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def run_all(work: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
    """Results in order; on as many threads as there are cores, or at once when there is one item."""
    if len(items) <= 1 or cores() == 1:
        return [work(item) for item in items]
    return list(_threads().map(work, items))


class _Pool:
    """The threads of this process, started when needed; a forked child starts its own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.process = 0


_pool = _Pool()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool.process not in (0, os.getpid()):
        _pool = _Pool()  # the lock may have been held when this process was forked
    with _pool.lock:
        if _pool.executor is None:
            _pool.executor, _pool.process = ThreadPoolExecutor(cores(), "encode"), os.getpid()
        return _pool.executor
