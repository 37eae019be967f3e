"""What is to be read for one query, and how."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from retrieval.ordering import scale_to_unit
from retrieval.rerankers.forecast import LikelySettled

EarlyStop = LikelySettled | Literal["exact"] | None
"""When to stop before all is read: when the top will probably not change, when it cannot, or never."""


@dataclass(frozen=True, slots=True)
class ReadingTask:
    """What is to be read for one query, and how; see `read_candidates`.

    Raises:
        ValueError: A number is out of range, a first-stage score is not finite or they do not fall, or the sequences do
            not fit together.
    """

    query: str
    texts: Sequence[str]
    first_stage: Sequence[float]
    first_stage_weight: float
    top_k: int
    groups: Sequence[Hashable] | None = None
    budget_ms: float | None = None
    batch_size: int = 4
    counts: Callable[[float], bool] | None = None
    twins: Sequence[Sequence[int]] = ()
    beyond: Mapping[int, str] = field(default_factory=dict)
    early_stop: EarlyStop = "exact"

    def __post_init__(self) -> None:
        _check(self)


def _check(task: ReadingTask) -> None:
    scores = task.first_stage
    scale_to_unit(scores)  # refuses what is not finite
    if len(task.texts) > len(scores):
        raise ValueError(f"{len(task.texts)} texts to read, but only {len(scores)} first-stage scores")
    if task.groups is not None and len(task.groups) != len(scores):
        raise ValueError(f"{len(task.groups)} groups for {len(scores)} candidates")
    if any(later > earlier for earlier, later in pairwise(scores)):
        raise ValueError("first-stage scores do not fall: candidates come best first")
    if not 0 <= task.first_stage_weight <= 1:
        raise ValueError(f"first_stage_weight is from 0 to 1, not {task.first_stage_weight}")
    if task.top_k < 1 or task.batch_size < 1:
        raise ValueError(f"top_k and batch_size are at least 1, not {task.top_k} and {task.batch_size}")
    if task.budget_ms is not None and not task.budget_ms > 0:
        raise ValueError(f"budget_ms is above 0, not {task.budget_ms}")
