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
    best_ranks: dict[str, int] = {}
    ranks: dict[Arm, dict[str, int]] = {}
    for arm, points in lists.items():
        names = [name for _, name in points]
        places = range(1, len(points) + 1)
        if config.fusion == "minmax":
            parts = scale_to_unit([-score for score, _ in points])
        else:
            parts = [1 / (config.rrf_k + rank) for rank in places]
        weight = weights[arm]
        for name, rank, part in zip(names, places, parts, strict=True):
            scores[name] = scores.get(name, 0.0) + weight * part
            best_ranks[name] = min(rank, best_ranks.get(name, rank))
        ranks[arm] = dict(zip(names, places, strict=True))
    best = sorted((-score, best_ranks[name], name) for name, score in scores.items())[: config.candidates]
    return [
        Candidate(name, rank, -score, _arms_of(name, ranks, lists))
        for rank, (score, _, name) in enumerate(best, start=1)
    ]


def _arms_of(
    name: str, ranks: Mapping[Arm, Mapping[str, int]], lists: Mapping[Arm, Sequence[tuple[float, str]]]
) -> dict[Arm, ArmScore]:
    """What each arm made of a passage."""
    return {
        arm: ArmScore(rank, -lists[arm][rank - 1][0])
        for arm, places in ranks.items()
        if (rank := places.get(name)) is not None
    }


def _ranked(points: Sequence[ScoredPoint]) -> list[tuple[float, str]]:
    """Negated scores and ids, best first; an id that appears twice counts with its best score."""
    pairs = sorted((-point.score, point.id) for point in points)
    if not all(math.isfinite(score) for score, _ in pairs):
        point = next(point for point in points if not math.isfinite(point.score))
        raise ValueError(f"the first-stage score of {point.id} is {point.score}, not a finite number")
    names: dict[str, float] = {}
    for score, name in pairs:
        names.setdefault(name, score)
    return pairs if len(names) == len(pairs) else [(score, name) for name, score in names.items()]


def _weights(present: Sequence[Arm], dense_weight: float) -> dict[Arm, float]:
    if len(present) == 1:
        return {present[0]: 1.0}
    return {arm: dense_weight if arm == "dense" else 1 - dense_weight for arm in present}
