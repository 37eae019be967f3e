"""Where the relevant documents of a collection were lost, as an evaluation tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from retrieval.datatypes import Arm
from retrieval.evaluation import bootstrap_interval
from retrieval.evaluation.losses import Stage

Bottleneck = Literal["first stage", "second stage", "open", "none"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over all judged queries with its 95 % bootstrap interval."""

    mean: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From one value for each query."""
        return cls(float(np.mean(values)), bootstrap_interval(values))

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of 0, else 0."""
        low, high = self.interval
        return int(low > 0) - int(high < 0)


@dataclass(frozen=True, slots=True)
class ArmShare:
    """What one arm would have found alone, searching exactly.

    Args:
        arm: Which.
        fetched: Relevant documents among as many passages as it fetches.
        only: Those of them that the other arm does not have there.
        near: Of the documents that both arms missed: those among ten times as many.
        far: Those further down.
        unseen: Those that it does not have at all: no word in common (BM25), no known word (encoder), or further down
            than 10,000.
    """

    arm: Arm
    fetched: int
    only: int
    near: int
    far: int
    unseen: int


@dataclass(frozen=True, slots=True)
class LostDocument:
    """A relevant document that is not in the top.

    Args:
        query: Id of the query.
        document: Id of the document.
        grade: Its grade.
        stage: What lost it; ``no place`` where others of its query took all places.
        rank: In the final result, documents from 1; ``None`` where it is not there. So are all ranks.
        first_stage_rank: After fusion, passages from 1.
        dense_rank: Of the static arm, searching exactly.
        bm25_rank: Of BM25.
        candidates_needed: Smallest number of candidates, of those tried, with which it would have been fetched.
        would_rise: Whether one more reading would have lifted it into the top; ``None`` where that was not tried.
        reason: Why it is not in the index; empty where it is.
    """

    query: str
    document: str
    grade: int
    stage: Stage
    rank: int | None
    first_stage_rank: int | None
    dense_rank: int | None
    bm25_rank: int | None
    candidates_needed: int | None
    would_rise: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class LossReport:
    """Where relevant documents were lost; all values of nDCG are nDCG@10 over all judged queries.

    Args:
        system: Name of the system that was looked at.
        places: How long the top is.
        candidates: Passages that each arm fetches and that fusion keeps.
        depth: Candidates that the cross-encoder may read.
        queries: How many are judged.
        relevant: Relevant documents of all queries.
        stages: How many of them were found, had no place, or were lost by each stage; adds up to ``relevant``.
        everything: nDCG of all relevant documents in the best order: below 1 where queries have none.
        ideal: nDCG of the candidates in the best order.
        ideal_read: nDCG with the best order of those that were read, before the others.
        reached: nDCG of the result.
        first_stage: nDCG of the order of the first stage.
        lost_fetching: ``everything`` minus ``ideal``: what the first stage costs.
        lost_reading: ``ideal`` minus ``ideal_read``: what reading no further costs.
        lost_ordering: ``ideal_read`` minus ``reached``: what the order of the cross-encoder costs.
        gain: ``reached`` minus ``first_stage``: what the second stage brings.
        exact_gain: nDCG of an exact first stage minus ``first_stage``; ``None`` where search is exact.
        bottleneck: The stage that costs more, where the queries show it; ``none`` where neither costs anything.
        arms: What each arm would have found alone.
        with_more: Documents missed by both arms or cut by fusion that more candidates would fetch, by their number.
        lifted_in: Found documents that the first stage alone would not have in the top.
        pushed_out: Missed documents that it would have.
        reasons: Why documents are not in the index, with their numbers.
        advice: Sentences that follow from the numbers; none where little was lost.
        lost: Every document that is not in the top.
    """

    system: str
    places: int
    candidates: int
    depth: int
    queries: int
    relevant: int
    stages: Mapping[Stage, int]
    everything: float
    ideal: Estimate
    ideal_read: Estimate
    reached: Estimate
    first_stage: Estimate
    lost_fetching: Estimate
    lost_reading: Estimate
    lost_ordering: Estimate
    gain: Estimate
    exact_gain: Estimate | None
    bottleneck: Bottleneck
    arms: tuple[ArmShare, ...]
    with_more: Mapping[int, int]
    lifted_in: int
    pushed_out: int
    reasons: Mapping[str, int]
    advice: tuple[str, ...] = ()
    lost: tuple[LostDocument, ...] = field(default=(), repr=False)

    def would_rise(self, *stages: Stage) -> int:
        """Documents that these stages lost and that one more reading would have lifted."""
        return sum(one.would_rise is True for one in self.lost if one.stage in stages)
