"""Logits of pairs that were read before, within a bound of memory."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

ENTRY_BYTES = 256
"""What an entry takes at most: a key, a float, and their places in an ordered dictionary (64-bit CPython)."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache did so far.

    Args:
        hits: Logits that were there.
        misses: Logits that were not.
        evicted: Entries that made room for others, those unused for the longest time.
        entries: How many there are.
        bytes: What they take, counted with `ENTRY_BYTES`.
    """

    hits: int = 0
    misses: int = 0
    evicted: int = 0
    entries: int = 0
    bytes: int = 0


class ScoreCache:
    """Logits by the hash of model, query and text; the least recently used go first. Safe from several threads.

    Args:
        max_bytes: Bound, 0 to keep nothing.

    Raises:
        ValueError: The bound is below 0.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"a cache takes 0 bytes or more, not {max_bytes}")
        self._most = max_bytes // ENTRY_BYTES
        self._logits: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evicted = 0

    @staticmethod
    def keys(model: str, query: str, texts: Sequence[str]) -> list[bytes]:
        """128 bits for each text: no two pairs of a query and a text in a lifetime are expected to share them.

        Args:
            model: Whose logits: the digest of its weights, and what else decides a logit.
            query: As it is read.
            texts: As they are read.
        """
        start = hashlib.blake2b(digest_size=16)
        for part in (model, query):
            content = part.encode("utf-8", "surrogatepass")
            start.update(len(content).to_bytes(8, "little") + content)
        keys = []
        for text in texts:
            whole = start.copy()
            whole.update(text.encode("utf-8", "surrogatepass"))
            keys.append(whole.digest())
        return keys

    def holds(self, keys: Sequence[bytes]) -> list[bool]:
        """Which are there, without counting as use."""
        with self._lock:
            return [key in self._logits for key in keys]

    def get(self, keys: Sequence[bytes]) -> list[float | None]:
        """The logit of each, ``None`` where it is not there."""
        with self._lock:
            found = [self._logits.get(key) for key in keys]
            for key, logit in zip(keys, found, strict=True):
                if logit is not None:
                    self._logits.move_to_end(key)
            here = sum(logit is not None for logit in found)
            self._hits += here
            self._misses += len(keys) - here
        return found

    def put(self, keys: Sequence[bytes], logits: Sequence[float]) -> None:
        """Keep logits, and drop what was not used for the longest time where there are too many."""
        if not self._most:
            return
        with self._lock:
            for key, logit in zip(keys, logits, strict=True):
                self._logits[key] = logit
                self._logits.move_to_end(key)
            while len(self._logits) > self._most:
                self._logits.popitem(last=False)
                self._evicted += 1

    @property
    def statistics(self) -> CacheStatistics:
        """What it did so far."""
        with self._lock:
            entries = len(self._logits)
            return CacheStatistics(self._hits, self._misses, self._evicted, entries, entries * ENTRY_BYTES)
