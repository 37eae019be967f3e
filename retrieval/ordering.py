"""The one order of results, and the fusion of the arms of the first stage."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from operator import eq
from typing import overload

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
    if not all(map(math.isfinite, scores)):
        position, score = next((at, score) for at, score in enumerate(scores) if not math.isfinite(score))
        raise ValueError(f"score {score} at position {position} is not finite")
    if not scores:
        return []
    # Halves, so that the span of two huge numbers of opposite sign does not overflow.
    lowest = min(scores) / 2
    span = max(scores) / 2 - lowest
    return [(score / 2 - lowest) / span if span > 0 else 1.0 for score in scores]


class Candidates(Sequence[Candidate]):
    """Candidates of the first stage, best first. Of a hundred few are looked at: each is put together when it is.

    Equal to any sequence of the same candidates.

    Args:
        ids: Point ids of the passages.
        scores: Fused scores, falling.
        ranks: Ranks after fusion, rising.
        arms: Points of each arm: negated scores and ids, best first, each id once.
    """

    __slots__ = ("_arms", "_places", "ids", "ranks", "scores")

    def __init__(
        self,
        ids: Sequence[str],
        scores: Sequence[float],
        ranks: Sequence[int],
        arms: Mapping[Arm, Sequence[tuple[float, str]]],
    ) -> None:
        self.ids = ids
        self.scores = scores
        self.ranks = ranks
        self._arms = arms
        self._places: dict[Arm, dict[str, int]] = {}

    def without(self, ids: Collection[str]) -> Candidates:
        """All but those; the others keep their ranks."""
        kept = [at for at, name in enumerate(self.ids) if name not in ids]
        names, scores = [self.ids[at] for at in kept], [self.scores[at] for at in kept]
        return Candidates(names, scores, [self.ranks[at] for at in kept], self._arms)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> list[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | list[Candidate]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        name = self.ids[index]
        arms: dict[Arm, ArmScore] = {}
        for arm, points in self._arms.items():
            places = self._places.get(arm)
            if places is None:
                places = self._places[arm] = {name: place for place, (_, name) in enumerate(points)}
            if (place := places.get(name)) is not None:
                arms[arm] = ArmScore(place + 1, -points[place][0])
        return Candidate(name, self.ranks[index], self.scores[index], arms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]


def fuse(arms: Mapping[Arm, Sequence[ScoredPoint]], config: FirstStageConfig) -> Candidates:
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
    totals: dict[str, float] = {}
    for arm, points in lists.items():
        if config.fusion == "minmax":
            parts = scale_to_unit([-score for score, _ in points])
        else:
            parts = [1 / (config.rrf_k + rank) for rank in range(1, len(points) + 1)]
        weight = weights[arm]
        for (_, name), part in zip(points, parts, strict=True):
            totals[name] = totals.get(name, 0.0) + weight * part
    ids = _by_total(totals, lists, config.candidates)
    return Candidates(ids, [totals[name] for name in ids], range(1, len(ids) + 1), lists)


def _by_total(
    totals: Mapping[str, float], lists: Mapping[Arm, Sequence[tuple[float, str]]], limit: int
) -> Sequence[str]:
    """The first ids by total descending, then better rank in any arm, then id."""
    ids = sorted(totals, key=totals.__getitem__, reverse=True)
    reached = [totals[name] for name in ids[: limit + 1]]
    if len(set(reached)) < len(reached):
        best: dict[str, int] = {}
        for points in lists.values():
            for rank, (_, name) in enumerate(points):
                best[name] = min(rank, best.get(name, rank))
        ids.sort(key=lambda name: (-totals[name], best[name], name))
    return ids[:limit]


def _ranked(points: Sequence[ScoredPoint]) -> list[tuple[float, str]]:
    """Negated scores and ids, best first; an id that appears twice counts with its best score."""
    scores = [-point.score for point in points]
    if not all(map(math.isfinite, scores)):
        point = next(point for point in points if not math.isfinite(point.score))
        raise ValueError(f"the first-stage score of {point.id} is {point.score}, not a finite number")
    names = [point.id for point in points]
    pairs = sorted(zip(scores, names, strict=True))
    if len(set(names)) == len(pairs):
        return pairs
    # The last one that is given for a name stays: its best.
    return sorted({name: (score, name) for score, name in reversed(pairs)}.values())


def _weights(present: Sequence[Arm], dense_weight: float) -> dict[Arm, float]:
    if len(present) == 1:
        return {present[0]: 1.0}
    return {arm: dense_weight if arm == "dense" else 1 - dense_weight for arm in present}
