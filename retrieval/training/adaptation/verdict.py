"""What follows from the self-check: how far to go, whether to go at all, and the weight of the static arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.datatypes import FloatArray
from retrieval.training.adaptation.check import CheckRow, Pool, PoolSums, balanced_change, compare
from retrieval.training.adaptation.fusion import DEFAULT, WEIGHTS, choose_weight
from retrieval.training.table import StaticTable

_WAYS = (1.0, 0.75, 0.5)
_DOUBT = 2.0  # standard errors that a shorter way has to be better by
_EVIDENCE = 1.64  # standard errors below zero that are a loss


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What the check decided: see `Adaptation`; ``change`` is that of `balanced_change`."""

    table: StaticTable
    dense_weight: float
    start_weight: float
    rows: tuple[CheckRow, ...]
    accepted: bool
    reason: str
    change: float


def judge(pool: Pool, start: StaticTable, trained: StaticTable, seed: int) -> Judged:
    """Choose how far to go from the start to the trained table, and whether to go at all.

    Args:
        pool: Passages and pseudo-queries.
        start: The starting table.
        trained: The trained one.
        seed: Draws of the bootstrap.
    """
    first, last = pool.sums(start.vectors), pool.sums(trained.vectors)
    before = pool.gains(first, WEIGHTS)
    way = _choose_way(pool, first, last)
    sums = first.mix(last, way)
    after = pool.gains(sums, WEIGHTS)
    change, error = balanced_change(before[:, -1], after[:, -1], pool.questions)
    rows = compare(
        pool.kinds,
        {"static": before[:, -1], "hybrid": before[:, DEFAULT]},
        {"static": after[:, -1], "hybrid": after[:, DEFAULT]},
        seed,
    )
    told = (
        f"going {way:.0%} of the way changes {len(pool.kinds)} held-out pseudo-queries by {change:+.3f} nDCG@10 "
        f"(standard error {error:.3f})"
    )
    accepted = change >= -_EVIDENCE * error
    verdict = "accepted" if accepted else "the self-check shows a loss"
    return Judged(
        table=trained if way == 1 else start.with_vectors(_between(start, trained, way)),
        dense_weight=choose_weight(after, pool.questions),
        start_weight=choose_weight(before, pool.questions),
        rows=rows,
        accepted=accepted,
        reason=f"{verdict}: {told}",
        change=change,
    )


def _choose_way(pool: Pool, first: PoolSums, last: PoolSums) -> float:
    """The whole way, or a shorter one that the pseudo-queries clearly find better."""
    gains = {way: pool.gains(first.mix(last, way), (1.0,))[:, 0] for way in _WAYS}
    better = {_WAYS[0]: 0.0}
    for way in _WAYS[1:]:
        change, error = balanced_change(gains[_WAYS[0]], gains[way], pool.questions)
        better[way] = change - _DOUBT * error
    return max(better, key=lambda way: better[way])


def _between(start: StaticTable, trained: StaticTable, way: float) -> FloatArray:
    moved = (trained.vectors != start.vectors).any(axis=1)
    vectors = start.vectors.copy()
    vectors[moved] += np.float32(way) * (trained.vectors[moved] - start.vectors[moved])
    return vectors
