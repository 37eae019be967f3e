"""The one order of results, and the fusion of the arms of the first stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from retrieval.config import DEFAULT_DENSE_WEIGHT, FirstStageConfig
from retrieval.datatypes import Arm, ArmScore, Candidate, ScoredPoint


def order(scores: Sequence[float], ranks: Sequence[int], ids: Sequence[str]) -> list[int]:
    """Put things in their final order: score descending, then earlier rank, then id.

    Args:
        scores: Higher is better.
        ranks: Rank in an earlier stage, which breaks ties of the score.
        ids: Names, which break what is still tied.

    Returns:
        Positions in the given sequences, best first.

    Raises:
        ValueError: A score is not a number, or the sequences differ in length.
    """
    for position, (score, _, name) in enumerate(zip(scores, ranks, ids, strict=True)):
        if math.isnan(score):
            raise ValueError(f"the score of {name!r} at position {position} is not a number")
    return sorted(range(len(scores)), key=lambda position: (-scores[position], ranks[position], ids[position]))


def scale_to_unit(scores: Sequence[float]) -> list[float]:
    """Min-max scaling: the best becomes 1, the worst 0, and everything 1 where all are equal.

    Args:
        scores: Finite numbers in any order.

    Raises:
        ValueError: A score is not finite.
    """
    for position, score in enumerate(scores):
        if not math.isfinite(score):
            raise ValueError(f"score {score} at position {position} is not finite")
    if not scores:
        return []
    # Halves, so that the span of two huge numbers of opposite sign does not overflow.
    lowest = min(scores) / 2
    span = max(scores) / 2 - lowest
    return [(score / 2 - lowest) / span if span > 0 else 1.0 for score in scores]


def fuse(arms: Mapping[Arm, Sequence[ScoredPoint]], config: FirstStageConfig) -> list[Candidate]:
    """Merge what the arms returned into one list of candidates.

    ``minmax`` scales the scores of each arm over its own list to [0, 1] and adds them up by weight; a passage that
    an arm did not return gets 0 from it. ``rrf`` adds ``weight / (rrf_k + rank)``. The weights are those of the arms
    that returned something, scaled to a sum of 1. Ties go to the better rank in any arm, then to the smaller id, so
    that the order of the points within an arm does not matter.

    Args:
        arms: Points of the arms that were asked; an id that appears twice in an arm counts with its best score.
        config: Fusion, weights (none given: the default) and where to cut. Its ``arms`` is not read: the keys of
            ``arms`` say what was asked.

    Returns:
        At most ``config.candidates`` candidates, best first, ranks from 1.

    Raises:
        ValueError: A score is not finite.

    Source:
        Bruch et al. 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"; Cormack et al. 2009 (RRF).
    """
    lists = {arm: _ranked(points) for arm, points in sorted(arms.items()) if points}
    dense_weight = DEFAULT_DENSE_WEIGHT if config.dense_weight is None else config.dense_weight
    weights = _weights(list(lists), dense_weight)
    scores: dict[str, float] = {}
    found: dict[str, dict[Arm, ArmScore]] = {}
    for arm, points in lists.items():
        scaled = scale_to_unit([point.score for point in points])
        for rank, (point, share) in enumerate(zip(points, scaled, strict=True), start=1):
            part = share if config.fusion == "minmax" else 1 / (config.rrf_k + rank)
            scores[point.id] = scores.get(point.id, 0.0) + weights[arm] * part
            found.setdefault(point.id, {})[arm] = ArmScore(rank, point.score)
    ids = list(scores)
    best_ranks = [min(place.rank for place in found[name].values()) for name in ids]
    positions = order(list(scores.values()), best_ranks, ids)[: config.candidates]
    return [
        Candidate(ids[position], rank, scores[ids[position]], found[ids[position]])
        for rank, position in enumerate(positions, start=1)
    ]


def _ranked(points: Sequence[ScoredPoint]) -> list[ScoredPoint]:
    best: dict[str, ScoredPoint] = {}
    for point in points:
        if not math.isfinite(point.score):
            raise ValueError(f"the first-stage score of {point.id} is {point.score}, not a finite number")
        if point.id not in best or point.score > best[point.id].score:
            best[point.id] = point
    return sorted(best.values(), key=lambda point: (-point.score, point.id))


def _weights(present: Sequence[Arm], dense_weight: float) -> dict[Arm, float]:
    if len(present) == 1:
        return {present[0]: 1.0}
    return {arm: dense_weight if arm == "dense" else 1 - dense_weight for arm in present}
