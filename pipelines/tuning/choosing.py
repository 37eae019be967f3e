"""The choice between settings: cheap ones before dear ones wherever the queries show no difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pipelines.tuning.replay import Floats
from pipelines.tuning.settings import Grid, Setting, changes
from retrieval.evaluation.comparison import LEVEL, randomization_p

Rows = NDArray[np.int64]
"""Places of the queries that a choice may look at."""

_SAME_TIME = 1.1
_SAME_MS = 1.0
_SAME_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What was measured of a setting.

    Args:
        setting: The setting.
        values: float64 (queries,): quality for each query.
        milliseconds: float64 (queries,): what a search takes.
        bytes_per_passage: Of what the first stage searches.
        reranked: Candidates read on average.
    """

    setting: Setting
    values: Floats
    milliseconds: Floats
    bytes_per_passage: float
    reranked: float

    def mean(self, rows: Rows) -> float:
        """Mean quality over some queries."""
        return float(self.values[rows].mean())

    def p50(self, rows: Rows) -> float:
        """Median milliseconds over some queries."""
        return float(np.median(self.milliseconds[rows]))


Evaluate = Callable[[Setting], Scored | None]
"""Measures a setting, at every query; ``None`` where that would take too long."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a choice has to keep.

    Args:
        passages: How many the index has.
        latency_ms: Median milliseconds; ``None`` for any.
        max_bytes: Bytes a passage; ``None`` for any.
        max_loss: How far below the best one a cheaper setting may be, where chance explains the difference.
        no_dearer: Choose nothing that takes more time or bytes than the present setting, unless that exceeds a limit.
    """

    passages: int
    latency_ms: float | None = None
    max_bytes: float | None = None
    max_loss: float = 0.01
    no_dearer: bool = False

    def excess(self, scored: Scored, rows: Rows) -> float:
        """How many times a limit is exceeded; 1 where all are kept."""
        return max(
            1.0,
            scored.p50(rows) / self.latency_ms if self.latency_ms is not None else 1.0,
            scored.bytes_per_passage / self.max_bytes if self.max_bytes is not None else 1.0,
        )


def explore(
    present: Setting,
    grid: Grid,
    budgets: Callable[[Scored], Sequence[float]],
    evaluate: Evaluate,
    rows: Rows,
    limits: Limits,
) -> list[Scored]:
    """Walk from the present setting to better ones, one part at a time, by what some queries say alone.

    Fusion, then depth and blend together, then the vectors, and once more; at last budgets.

    Args:
        present: Where to begin.
        grid: Values that are tried.
        budgets: Gives those that are tried of a setting.
        evaluate: Measures a setting.
        rows: The queries that may be looked at.
        limits: What has to be kept.

    Returns:
        All settings that were tried, the present one first.
    """
    tried: dict[Setting, Scored] = {}

    def best(settings: Iterable[Setting]) -> Setting:
        for setting in dict.fromkeys(one.plain(present) for one in settings):
            if setting not in tried and (scored := evaluate(setting)) is not None:
                tried[setting] = scored
        return min(tried.values(), key=lambda one: (limits.excess(one, rows), -one.mean(rows))).setting

    current = best([present])
    for _ in range(2):
        current = best(replace(current, fusion=fusion) for fusion in grid.fusions)
        depths = product(grid.depths, grid.blends)
        current = best(replace(current, depth=depth, first_stage_weight=blend) for depth, blend in depths)
        current = best(replace(current, variant=variant) for variant in grid.variants)
        if limits.max_bytes is not None:  # few bytes may be had by dropping an arm as well
            alone = replace(current, fusion=replace(current.fusion, arms="dense"))
            current = best(replace(alone, variant=variant) for variant in grid.variants)
    best(replace(current, budget_ms=budget) for budget in budgets(tried[current]))
    return list(tried.values())


def select(tried: Sequence[Scored], rows: Rows, limits: Limits) -> Scored:
    """The cheapest setting that the queries cannot tell from the best one.

    Among those that keep the limits, and lose at most ``max_loss`` against the best without a difference that chance
    does not explain: the least time; where that is about the same (a tenth, or a millisecond) the least bytes; where
    these are about the same (16 MiB over all passages) what changes the least. A setting that is neither cheaper than
    the present one nor distinguishable from it is not chosen.

    Args:
        tried: Settings, the present one first.
        rows: The queries that may be looked at.
        limits: What has to be kept.
    """
    present = tried[0]
    least = min(limits.excess(one, rows) for one in tried)
    kept = [one for one in tried if limits.excess(one, rows) <= least]
    if limits.no_dearer and present in kept:
        kept = [one for one in kept if not _dearer(one, present, rows, limits)]
    best = max(kept, key=lambda one: one.mean(rows))
    floor = best.mean(rows) - limits.max_loss
    close = [one for one in kept if one.mean(rows) >= floor and not distinguishable(best, one, rows)]
    chosen = _cheapest(close, present, rows, limits.passages)
    if present in kept and not distinguishable(chosen, present, rows) and not cheaper(chosen, present, rows, limits):
        return present
    return chosen


def distinguishable(one: Scored, other: Scored, rows: Rows) -> bool:
    """Whether chance alone seldom gives differences like these (paired randomization test at 0.05)."""
    return randomization_p((one.values[rows] - other.values[rows]).tolist()) < LEVEL


def cheaper(one: Scored, other: Scored, rows: Rows, limits: Limits) -> bool:
    """Whether a setting saves time or bytes worth mentioning, and costs none of the other."""
    less_time = not _same_time(one.p50(rows), other.p50(rows)) and one.p50(rows) < other.p50(rows)
    saved = (other.bytes_per_passage - one.bytes_per_passage) * limits.passages
    return (less_time and saved >= -_SAME_BYTES) or (
        saved > _SAME_BYTES and (less_time or _same_time(one.p50(rows), other.p50(rows)))
    )


def folds(queries: int, count: int, seed: int) -> list[Rows]:
    """Queries in parts of about the same size, by chance.

    Args:
        queries: How many there are, at least 2.
        count: Parts, at least 2; with fewer queries each is a part of its own.
        seed: Of the chance.
    """
    order = np.random.default_rng(seed).permutation(queries)
    return [np.sort(part) for part in np.array_split(order, min(count, queries))]


def frontier(tried: Sequence[Scored], rows: Rows, most: int) -> list[Scored]:
    """Settings of which none is better in everything, from the best to the cheapest; each saves a fifth of something.

    Args:
        tried: Settings.
        rows: The queries that may be looked at.
        most: How many at most.
    """
    ladder: list[Scored] = []
    for one in sorted(tried, key=lambda one: (-one.mean(rows), one.p50(rows), one.bytes_per_passage)):
        if all(
            one.p50(rows) < 0.8 * better.p50(rows) or one.bytes_per_passage < 0.8 * better.bytes_per_passage
            for better in ladder
        ):
            ladder.append(one)
    if len(ladder) <= most:
        return ladder
    places = {round(place * (len(ladder) - 1) / (most - 1)) for place in range(most)}
    return [one for place, one in enumerate(ladder) if place in places]


def _dearer(one: Scored, other: Scored, rows: Rows, limits: Limits) -> bool:
    more_time = not _same_time(one.p50(rows), other.p50(rows)) and one.p50(rows) > other.p50(rows)
    return more_time or (one.bytes_per_passage - other.bytes_per_passage) * limits.passages > _SAME_BYTES


def _cheapest(settings: Sequence[Scored], present: Scored, rows: Rows, passages: int) -> Scored:
    fastest = min(one.p50(rows) for one in settings)
    fast = [one for one in settings if _same_time(one.p50(rows), fastest)]
    smallest = min(one.bytes_per_passage for one in fast)
    small = [one for one in fast if (one.bytes_per_passage - smallest) * passages <= _SAME_BYTES]
    return min(small, key=lambda one: (len(changes(present.setting, one.setting)), -one.mean(rows)))


def _same_time(one: float, other: float) -> bool:
    return abs(one - other) <= max(_SAME_MS, (_SAME_TIME - 1) * min(one, other))
