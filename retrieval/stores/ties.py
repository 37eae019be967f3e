"""The one order of results and facets, and how it is kept over engines that return ties in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from retrieval.datatypes import ScoredPoint

T = TypeVar("T")
MARGIN = 16
MAX_WINDOW = 16_384


def best_first(points: Iterable[ScoredPoint], limit: int) -> list[ScoredPoint]:
    """The first ``limit`` points by score descending, then id."""
    return sorted(points, key=lambda point: (-point.score, point.id))[:limit]


def most_frequent(counts: Iterable[tuple[Any, int]], limit: int) -> list[tuple[Any, int]]:
    """The first ``limit`` values by count descending, then type and value."""
    return sorted(counts, key=lambda pair: (-pair[1], type(pair[0]).__name__, pair[0]))[:limit]


def close_tie(
    fetch: Callable[[int], Sequence[T]], first: Sequence[T], limit: int, value: Callable[[T], float]
) -> Sequence[T]:
    """Widen a fetch until the tie at the cut is complete.

    An engine that is asked for ``limit`` points returns any of those that tie at the last place. Which ones stay is
    ours to decide (the smallest ids), so all of them are needed: the window grows fourfold while its last score
    equals the score at the cut. Beyond ``MAX_WINDOW`` the choice is left to the engine.

    Args:
        fetch: Fetches a window of the given size, best first.
        first: The window already fetched, of ``limit + MARGIN``.
        limit: Where the result will be cut.
        value: Score of an item.
    """
    window, size = first, limit + MARGIN
    while len(window) >= size and size < MAX_WINDOW and value(window[-1]) == value(window[limit - 1]):
        size = min(size * 4, MAX_WINDOW)
        window = fetch(size)
    return window


def count_values(rows: Iterable[list[Any]]) -> list[tuple[Any, int]]:
    """Count in how many rows each string, integer or boolean occurs; 1 and true are different values."""
    counts: Counter[tuple[type, Any]] = Counter()
    for row in rows:
        counts.update({(type(value), value) for value in row if isinstance(value, str | int)})
    return [(value, count) for (_, value), count in counts.items()]
