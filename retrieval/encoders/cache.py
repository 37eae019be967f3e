"""What the memory of words has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Words looked up in a cache. Counts may be a little off when several threads work at once.

    Args:
        hits: Words that were known.
        misses: Words that had to be tokenized.
        words: Words remembered now.
        bytes: Memory that they take, in bytes; estimated for the part that Python keeps.
        restarts: How often the cache was full and began again.
    """

    hits: int = 0
    misses: int = 0
    words: int = 0
    bytes: int = 0
    restarts: int = 0

    def __add__(self, other: CacheStatistics) -> CacheStatistics:
        """Both caches as one."""
        return CacheStatistics(
            self.hits + other.hits,
            self.misses + other.misses,
            self.words + other.words,
            self.bytes + other.bytes,
            self.restarts + other.restarts,
        )
